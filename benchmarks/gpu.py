"""Everything that claims about GPUs need, in one go of under 8 minutes on one GPU.

    python benchmarks/gpu.py [--again] [--device cpu --quick] [--page FILE]
    python benchmarks/gpu.py --dir OUT --page OUT/gpu.md --commit HASH         where only OUT is brought back

Each part is a process of its own with a limit of time: one that fails or hangs loses no other, and the end of its log
is shown. What a part found is kept below --dir; the same command goes on with the parts that are missing, and says at
the end what is left. The result page (docs/results/gpu.md) is written anew after each part, so that minutes on a lent
GPU are enough. Logs, DuckDB, Hydra and TorchX are not needed: batches are made in memory (``gpu_parts.py``).

| part | what |
|---|---|
| exact | few steps of both models: deduplication on = off, the device = the CPU, every table moves |
| rm1, dlrm | the training step with deduplication and without, by turns; peak memory of each |
| kernels | lookup, distinct ids, expansion; each against the time that its bytes need |
| attention | on unique rows against expanded histories, forward and backward |
| collectives | NCCL with one rank, and with all GPUs where there are several, with a training step |

``--device cpu --quick`` runs the same parts in small on a machine without a GPU: a rehearsal of the script, no claim.
"""

import argparse
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import measure

ON_CPU = "exact on the CPU"
LIMITS_S = {"exact": 70, "rm1": 90, "dlrm": 90, "kernels": 60, "attention": 60, "collectives": 90, ON_CPU: 60}
"""Seconds that each part may take."""

WHOLE_S = 460
"""Seconds of all parts; where one takes its whole limit, others are left for the next call."""

PAGE = Path(__file__).parents[1] / "docs" / "results" / "gpu.md"
TOLERANCE = 1e-3
"""Largest relative difference of losses that counts as the same training: sums run in another order."""


def run_part(name: str, options: argparse.Namespace, out: Path, limit_s: float) -> str | None:
    """Runs a part in processes of its own, one for each rank; returns why there is no result, None if there is one."""
    device = "cpu" if name == ON_CPU else options.device
    num_ranks = count_ranks(options.device) if name == "collectives" else 1
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    size = {"WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks)}
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1" if num_ranks > 1 else "2"}
    env = os.environ | size | meet | {"TORCH_CPP_LOG_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, "--part", name.partition(" ")[0], "--device", device, "--out", str(out)]
    command += ["--quick"] if options.quick else []
    log = out.with_suffix(".log")
    with log.open("wb") as screen:
        ranks = [
            subprocess.Popen(command, env=env | {"RANK": str(r), "LOCAL_RANK": str(r)}, stdout=screen, stderr=screen)
            for r in range(num_ranks)
        ]
        end = time.monotonic() + limit_s
        try:
            codes = [rank.wait(max(0.1, end - time.monotonic())) for rank in ranks]
        except subprocess.TimeoutExpired:
            return f"took more than {limit_s:.0f} s"
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"failed: {lines[-1] if lines else codes}" if any(codes) else None


def tail(log: Path) -> str:
    """The last lines of a log, indented."""
    return "".join(f"    {line}\n" for line in log.read_text(errors="replace").splitlines()[-12:])


def count_ranks(device: str) -> int:
    """All GPUs, or two ranks of a rehearsal."""
    if device == "cpu":
        return 2
    import torch

    return max(1, torch.cuda.device_count())


def setting(device: str, commit: str) -> dict[str, str]:
    """What the results belong to: the device, the versions and the commit."""
    import torch

    names = ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu")
    found = [f"{name} {v}" for name in names if (v := version_of(name))]
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    ask = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude", "*"]
    found_commit = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "device": f"{gpus} x {torch.cuda.get_device_name()}" if gpus else f"{os.cpu_count()} CPU cores",
        "versions": f"Python {platform.python_version()}, CUDA {torch.version.cuda or 'none'}, {', '.join(found)}",
        "commit": commit or found_commit or "unknown",
    }


def version_of(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def page(found: dict[str, Any], failed: dict[str, str], options: argparse.Namespace, known: dict[str, str]) -> str:
    """The result page, in Markdown."""
    rehearsal = "**A rehearsal on a CPU, in small: no claim.**\n\n" if options.device == "cpu" or options.quick else ""
    lines = [
        "# On a GPU: the step, its kernels, exactness\n",
        f"    python {' '.join(['benchmarks/gpu.py', *sys.argv[1:]])}\n",
        f"{rehearsal}{datetime.now(UTC):%Y-%m-%d}, {known['device']}; {known['versions']}; commit {known['commit']}.",
        "Written by the script. Ratios are baseline / ours, pair by pair; the baseline is plain TorchRec on expanded "
        "batches (`dedup=off`) in the same process, by turns. Batches are made in memory.\n",
    ]
    writers: dict[str, Callable[[dict[str, Any]], list[str]]] = {
        "exact": lambda part: exact_lines(part, found.get(ON_CPU)),
        "rm1": lambda part: step_lines("rm1", part),
        "dlrm": lambda part: step_lines("dlrm", part),
        "kernels": kernel_lines,
        "attention": attention_lines,
        "collectives": collective_lines,
    }
    for name, write in writers.items():
        if name in found:
            try:
                lines += write(found[name])
            except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:  # its file still has what it found
                lines.append(f"- **{name}**: not shown ({type(error).__name__}: {error})")
    for name in LIMITS_S:
        if name not in found:
            lines.append(f"- **{name}**: {failed.get(name, 'not run')}")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def spread(numbers: dict[str, float], digits: int = 2) -> str:
    """A median and its range."""
    return f"{numbers['median']:.{digits}f} ({numbers['low']:.{digits}f}–{numbers['high']:.{digits}f})"


def step_lines(name: str, part: dict[str, Any]) -> list[str]:
    """The step with deduplication and without."""
    shape, peak = part["shape"], part["peak_gib"]
    memory = " / ".join(f"{peak[m]:.2f} GiB" for m in ("ours", "baseline")) if peak else "not measured on a CPU"
    head = ["claim", "ratio", "ours, ms", "baseline, ms", "peak memory, ours / baseline", "loss difference"]
    row = [f"gpu.step.{name}", *(spread(part[k]) for k in ("ratio", "ours_ms", "baseline_ms")), memory]
    return [
        f"## Training step, {name}\n",
        measure.table(head, [[*row, f"{part['loss_difference']:.1e}"]], markdown=True),
        f"{shape['model']} model, {shape['batch_size']} samples a rank, {part['samples_per_row']} a row of the user, "
        f"{shape['lists']} lists of up to {shape['length']} ids, tables {shape['dim']} wide.\n",
    ]


def exact_lines(part: dict[str, Any], on_cpu: dict[str, Any] | None) -> list[str]:
    """Whether the trainings are the same."""
    rows = []
    for name, model in part.items():
        there = "not run"
        if on_cpu is not None:
            pairs = zip(model["losses"], on_cpu[name]["losses"], strict=True)
            there = verdict(max(abs(a - b) / abs(b) for a, b in pairs))
        moved = f"{model['tables_that_moved']} of {model['tables']}"
        rows.append([name, verdict(model["on_off_loss"]), f"{model['on_off_weights']:.1e}", there, moved])
    head = ["model", "on = off, loss", "on = off, weights", "device = CPU, loss", "tables that moved"]
    return ["## Exactness\n", measure.table(head, rows, markdown=True)]


def verdict(difference: float) -> str:
    """A relative difference, and whether it is within the tolerance."""
    return f"{difference:.1e} ({'same' if difference <= TOLERANCE else 'DIFFERENT'})"


def kernel_lines(part: dict[str, Any]) -> list[str]:
    """Kernels against the time that their bytes need."""
    rows = [
        [name, f"{k['ms']:.3f}", f"{k['times_the_floor']:.1f}"] if "ms" in k else [name, k["failed"], ""]
        for name, k in part["kernels"].items()
    ]
    return [
        "## Kernels\n",
        measure.table(["kernel", "ms", "times the floor"], rows, markdown=True),
        f"The floor is the time in which a copy moves as many bytes: {part['bandwidth_GB_s']:.0f} GB/s here.\n",
    ]


def attention_lines(part: dict[str, Any]) -> list[str]:
    """Attention on unique rows."""
    return [
        "## Attention\n",
        f"Attention on unique rows, forward and backward: {spread(part['ratio'])} times as fast as on expanded "
        f"histories ({spread(part['ours_ms'])} against {spread(part['baseline_ms'])} ms).\n",
    ]


def collective_lines(part: dict[str, Any]) -> list[str]:
    """The all-to-all, and a step over several ranks."""
    right = "arrived" if part["right"] else "did NOT arrive"
    text = (
        f"{part['backend']}, {part['ranks']} ranks: all-to-all {part['ms']:.2f} ms, {part['GB_s']:.1f} GB/s; {right}."
    )
    several = step_lines(f"rm1 on {part['ranks']} ranks", part["step"]) if part["step"] else []
    return [f"## Collectives\n\n{text}\n", *several]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="in small: a rehearsal")
    parser.add_argument("--again", action="store_true", help="measure parts anew that have a result")
    parser.add_argument("--limit", type=float, default=1.0, metavar="TIMES", help="times the limits of time")
    parser.add_argument("--commit", default="", help="of this tree, where it is no git checkout")
    parser.add_argument(
        "--dir", type=Path, default=Path(".bench/gpu"), help="results of the parts (default .bench/gpu)"
    )
    parser.add_argument("--page", type=Path, help="the result page; default docs/results/gpu.md, on a CPU below --dir")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stdout.write("skipped: torch sees no CUDA device here; --device cpu --quick rehearses the script\n")
        return
    if options.part:
        import gpu_parts

        gpu_parts.run(options.part, options.device, options.quick, options.out)
        return
    known = setting(options.device, options.commit)
    kept = options.dir / f"{options.device}{'-quick' if options.quick else ''}-{known['commit']}"
    kept.mkdir(parents=True, exist_ok=True)
    target = options.page or (PAGE if options.device == "cuda" and not options.quick else kept / "gpu.md")
    found, failed = dict[str, Any](), dict[str, str]()
    end = time.monotonic() + options.limit * WHOLE_S
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the ranks of a part end with it
    for number, name in enumerate(LIMITS_S, 1):
        out = kept / f"{name.replace(' ', '-')}.json"
        if options.again:
            out.unlink(missing_ok=True)
        if not out.is_file():
            limit_s = min(options.limit * LIMITS_S[name], max(0.0, end - time.monotonic()))
            sys.stdout.write(f"[{number}/{len(LIMITS_S)}] {name}, {limit_s:.0f} s at most ...")
            sys.stdout.flush()
            start = time.monotonic()
            if reason := run_part(name, options, out.with_suffix(".part"), limit_s):
                failed[name] = reason
                sys.stdout.write(f" {reason}; {out.with_suffix('.log')} ends with:\n{tail(out.with_suffix('.log'))}")
            else:
                out.with_suffix(".part").replace(out)
                sys.stdout.write(f" {time.monotonic() - start:.0f} s\n")
            sys.stdout.flush()
        if out.is_file():
            found[name] = json.loads(out.read_text())
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page(found, failed, options, known))
    sys.stdout.write(f"\n{target.read_text()}\nwritten to {target}\n")
    if left := [name for name in LIMITS_S if name not in found]:
        raise SystemExit(f"left: {', '.join(left)}; the same command goes on with them")


if __name__ == "__main__":
    main()
