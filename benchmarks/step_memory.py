"""Peak memory of a training step on unique rows: claims step.memory and step.largest.

    python benchmarks/step_memory.py [CASE] [--markdown] [--json FILE] [--dir DIR]

The baseline is the same model with dedup=off, plain TorchRec on expanded KeyedJaggedTensors; both are trained for a few
steps, each in a process of its own of one rank and one thread. step.memory compares what the steps need beyond what was
there before them (tables, weights, the batches that were read): the process's peak, as the kernel counts it, less that.
step.largest compares the largest batches with which the whole process stays below 4 GiB: from a line through the peaks
at two sizes, and then a run at 0.95 of that size shows that it fits.
"""

import gc
import json
import re
from argparse import SUPPRESS
from itertools import islice
from pathlib import Path
from typing import Any

import measure
from step import BASELINE, CASES, Trainer, ensure_table, overrides

LIMIT = 4 << 30
SIZES = (512, 2048)
NUM_STEPS = 3


def memory(field: str) -> int:
    """A number of /proc/self/status in bytes: VmRSS is what is in memory now, VmHWM its peak."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def rank_main(config: dict[str, Any]) -> None:
    """Trains one mode and writes its memory."""
    import torch

    from recd_dist.job.config import load
    from recd_dist.job.job import resolve
    from recd_dist.ranks.process_group import process_group
    from recd_dist.ranks.quiet import log_to_screen, quiet_libraries
    from recd_dist.train import build

    torch.set_num_threads(1)
    log_to_screen()
    quiet_libraries()
    with process_group("cpu") as ranks:
        job = resolve(load("train", config["overrides"]))
        loader = build.build_loader(job, ranks, job.transforms.fit(job.table))
        batches = list(islice(iter(loader), NUM_STEPS))
        loader.close()
        size = max(b.batch_size for b in batches)
        trainer = Trainer(job, ranks, batches)
        gc.collect()
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        trainer.steps(NUM_STEPS)
        found = {"before": before, "peak": memory("VmHWM"), "size": size}
        Path(config["out"]).write_text(json.dumps(found))


def peaks(case: str, directory: Path, num_samples: int, batch_size: int, dedup: str) -> dict[str, int]:
    """The memory of one mode at one batch size."""
    wanted = [*overrides(CASES[case], directory, num_samples), *CASES[case].train]
    wanted += [f"batch_size={batch_size}", f"dedup={dedup}"]
    found: dict[str, int] = measure.run_ranks(__file__, {}, wanted, num_ranks=1)
    return found


def largest_batch(case: str, directory: Path, num_samples: int, found: list[dict[str, int]], dedup: str) -> int:
    """The largest batch below the limit, by a line through two peaks; checked at 0.95 of it."""
    small, large = found
    slope = max((large["peak"] - small["peak"]) / (large["size"] - small["size"]), 1.0)
    size = int(0.95 * (large["size"] + (LIMIT - large["peak"]) / slope))
    checked = peaks(case, directory, num_samples, size, dedup)
    if checked["peak"] > LIMIT:
        raise SystemExit(f"{case}, dedup={dedup}: {size} samples take {checked['peak'] / 2**30:.2f} GiB")
    return checked["size"]


def main() -> None:
    parser = measure.build_parser(__doc__)
    parser.add_argument("case", nargs="?", default="rm1", choices=list(CASES), help="a case of step.py (default rm1)")
    parser.add_argument("--dir", type=Path, default=Path(".bench"), help="raw logs and tables, kept (default .bench)")
    parser.add_argument("--samples", type=int, default=50000, help="of the table (default 50000)")
    parser.add_argument("--rank", type=json.loads, help=SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        rank_main(options.rank)
        return
    case, where = options.case, (options.dir, options.samples)
    ensure_table(CASES[case], *where)
    modes = {d: [peaks(case, *where, size, d) for size in SIZES] for d in ("on", "off")}
    steps = {d: [f["peak"] - f["before"] for f in found] for d, found in modes.items()}
    ratios = [b / a for a, b in zip(steps["on"], steps["off"], strict=True)]
    config = f"{CASES[case].words} but for the size of batches; 1 rank, 1 thread"
    step = measure.Result(
        "step.memory",
        round(ratios[-1], 2),
        round(min(ratios), 2),
        round(max(ratios), 2),
        BASELINE,
        "ratio",
        f"{config}; batches of {', '.join(map(str, SIZES))}",
        {"ours_MB": round(steps["on"][-1] / 1e6), "baseline_MB": round(steps["off"][-1] / 1e6)},
    )
    sizes = {d: largest_batch(case, *where, found, d) for d, found in modes.items()}
    ratio = round(sizes["on"] / sizes["off"], 2)
    largest = measure.Result(
        "step.largest", ratio, ratio, ratio, BASELINE, "ratio", config, {f"batch_{d}": n for d, n in sizes.items()}
    )
    measure.report([step, largest], options)


if __name__ == "__main__":
    main()
