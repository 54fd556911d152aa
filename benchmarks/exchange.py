"""The embedding part of a step on unique rows: claims exchange.s16.kjt, s16.vbe, s1.kjt, mixed and others.

    python benchmarks/exchange.py [CASE ...] [--quick] [--markdown] [--json FILE] [--profile [MODE]]

There are 8 tables of 100,000 rows, D=64, B=2048 a rank, 40 int32 ids a list, and S samples a session that share all
lists. 2 gloo ranks of one thread hold 4 whole tables each, under rowwise Adagrad. Ours looks up unique rows and expands
every group. Two baselines run in the same processes by turns: plain TorchRec on the expanded KeyedJaggedTensor (with
int32 and with int64 ids; the faster one counts), and TorchRec's own deduplication, a variable-batch KeyedJaggedTensor
with inverse indices (VBE); s16 also has ours with fbgemm's lookup. Outputs and weights are compared first.

| case | measures |
|---|---|
| s1 s2 s4 s8 s16 s64 | S samples a session; s1 keeps the group although nothing repeats, as a user might |
| sample | S=1 again, with the features in the group ``sample``, which is meant for what does not repeat |
| mixed | S=16 for half the features; the other half never repeats |
| expand | expansion, forward and backward, against one copy of its output: 4 MB, as in s16, and 34 MB |
| bytes | bytes at the collectives against the formula: all sharding types, rows and ids, 4 ranks as 2 hosts x 2 |
| link | s16 over two hosts of the network lab with 1 Gbit/s between them (needs root and iproute2) |
| gpu | 100 tables, B=8192, one GPU: time and peak memory |
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure

PLAIN = ("kjt int32", "kjt int64")
MODES = (*PLAIN, "vbe", "ours", "fbgemm")
BASELINES = {
    "kjt": "plain TorchRec, expanded KeyedJaggedTensor",
    "vbe": "TorchRec VBE, KeyedJaggedTensor of unique rows",
    "lookup": "ours with optim.tables.kernel=fbgemm",
}
SESSIONS = {f"s{n}": n for n in (1, 2, 4, 8, 16, 64)}
CASES = (*SESSIONS, "sample", "mixed", "expand", "bytes", "link", "gpu")
LARGE_BATCH = 16384
"""The samples of an expansion of 34 MB, which no cache holds."""


def workload_of(name: str, small: bool) -> dict[str, Any]:
    """The arguments of a case's Workload."""
    if name == "gpu":
        return {"samples_per_session": 16, "num_tables": 100, "batch_size": 8192}
    size: dict[str, Any] = {"num_embeddings": 2000, "batch_size": 128, "num_ids": 10} if small else {}
    if name == "sample":
        return {"samples_per_session": 1, "num_plain": 8, **size}
    if name == "mixed":
        return {"samples_per_session": 16, "num_plain": 4, **size}
    return {"samples_per_session": SESSIONS.get(name, 16), **size}


def rank_main(config: dict[str, Any]) -> None:
    """One rank: measures the case; rank 0 writes the results."""
    import exchange_bytes
    import exchange_modes
    import torch

    from recd_dist.ranks.process_group import process_group
    from recd_dist.ranks.quiet import quiet_libraries

    torch.set_num_threads(1)
    quiet_libraries()
    workload = exchange_modes.Workload(**config["workload"])
    with process_group(config["device"]) as ranks:
        special = {"bytes": exchange_bytes.measure_plans, "expand": measure_expansion, "profile": profile}
        results = special.get(config["what"], measure_speed)(workload, ranks, config)
        if ranks.is_first:
            Path(config["out"]).write_text(json.dumps(results))


def measure_speed(workload: Any, ranks: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Checks that the modes train alike, counts what they send, and measures them by turns."""
    import exchange_bytes
    import exchange_modes
    import torch

    modes = exchange_modes.build_modes(workload, ranks, config["num_batches"], config["modes"])
    difference = exchange_modes.check_modes(modes, config["num_batches"])
    sent = {name: exchange_bytes.count_sent_bytes(mode, config["num_batches"]) for name, mode in modes.items()}
    peaks = {name: exchange_bytes.peak_bytes(mode) for name, mode in modes.items()} if torch.cuda.is_available() else {}
    for mode in modes.values():
        mode.cpu_s, mode.num_steps = 0.0, 0
    block = config["block"]
    sides = [lambda mode=mode: mode.steps(block) / block for mode in modes.values()]
    return {
        "rounds": measure.rounds(sides, config["pairs"] + 1)[1:],
        "cpu": {name: mode.cpu_s / mode.num_steps for name, mode in modes.items()},
        "sent": sent,
        "peaks": peaks,
        "difference": difference,
        "threads": torch.get_num_threads(),
    }


def measure_expansion(workload: Any, _: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Times an expansion with its backward pass, and a copy of as many bytes to memory that is already allocated."""
    import time

    import torch

    from recd_dist.tensors.grouped import Grouped

    batch = workload.batch(0, 0)
    group = batch.groups[0]
    unique = torch.randn(group.num_rows, workload.dim * len(group.keys), requires_grad=True)
    gradient = torch.randn(workload.batch_size, unique.shape[1])
    copy = torch.empty_like(gradient)
    inverse = batch.inverse_of(group.name)

    def ours() -> float:
        start = time.perf_counter()
        for _ in range(config["block"]):
            torch.autograd.grad(Grouped(unique, inverse).expand(), unique, gradient)
        return time.perf_counter() - start

    def baseline() -> float:
        start = time.perf_counter()
        for _ in range(config["block"]):
            copy.copy_(gradient)
        return time.perf_counter() - start

    pairs = measure.alternate(ours, baseline, config["pairs"] + 1)[1:]
    return {"pairs": [(a / config["block"], b / config["block"]) for a, b in pairs], "shape": tuple(gradient.shape)}


def profile(workload: Any, ranks: Any, config: dict[str, Any]) -> str:
    """Shows where a mode spends its time on rank 0: in operators (torch.profiler) and Python functions (cProfile)."""
    import cProfile
    import io
    import pstats

    import exchange_modes
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    (mode,) = exchange_modes.build_modes(workload, ranks, config["num_batches"], config["modes"]).values()
    num_steps = 5 * config["num_batches"]
    mode.steps(num_steps)
    plain_s = mode.steps(num_steps) / num_steps
    with torch_profile(activities=[ProfilerActivity.CPU]) as operators:
        mode.steps(num_steps)
    functions = cProfile.Profile()
    functions.runcall(mode.steps, num_steps)
    text = io.StringIO()
    pstats.Stats(functions, stream=text).strip_dirs().sort_stats("tottime").print_stats(20)
    table = operators.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=60)
    head = f"{1e3 * plain_s:.2f} ms a step without a profiler; both tables: {num_steps} steps"
    return f"{head}\n{table}\n{text.getvalue()}"


def faster_plain(rounds: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    """The plain baseline with the smaller median."""
    medians = {n: statistics.median(r[i] for r in rounds) for i, n in enumerate(names) if n in PLAIN}
    return min(medians, key=lambda name: medians[name])


def speed_results(name: str, numbers: dict[str, Any], modes: Sequence[str], words: str) -> list[measure.Result]:
    """The results of a case: its ratios to the plain baseline and to the deduplicating one."""
    rounds = numbers["rounds"]
    medians = {n: statistics.median(r[i] for r in rounds) for i, n in enumerate(modes)}
    plain = faster_plain(rounds, modes)
    results = []
    for short, baseline in {"kjt": plain, "vbe": "vbe", "lookup": "fbgemm"}.items():
        if baseline not in modes:
            continue
        pairs = [(r[modes.index("ours")], r[modes.index(baseline)]) for r in rounds]
        results.append(
            measure.speed_up(
                f"exchange.{claim_name(name, short)}",
                pairs,
                f"{BASELINES[short]}{' with ' + plain.split()[1] + ' ids' if short == 'kjt' else ''}",
                f"{words}, {numbers['threads']} thread each, {len(pairs)} rounds",
                ours_ms=round(1e3 * medians["ours"], 2),
                baseline_ms=round(1e3 * medians[baseline], 2),
                ours_cpu_ms=round(1e3 * numbers["cpu"]["ours"], 2),
                baseline_cpu_ms=round(1e3 * numbers["cpu"][baseline], 2),
                ours_sent_MB=round(sum(numbers["sent"]["ours"].values()) / 1e6, 3),
                baseline_sent_MB=round(sum(numbers["sent"][baseline].values()) / 1e6, 3),
                weights_differ=float(f"{numbers['difference']:.0e}"),
            )
        )
    return results


def claim_name(case: str, short: str) -> str:
    """A claim's id without ``exchange.``; mixed and link alone name the claim on the plain baseline."""
    if case in ("mixed", "link"):
        return case if short == "kjt" else f"{case}.{short}"
    return f"{case}.{short}"


def words_of(name: str, workload: dict[str, Any], where: str) -> str:
    """The case in words."""
    shape = {"num_tables": 8, "num_embeddings": 100_000, "batch_size": 2048, "num_ids": 40, **workload}
    plain = shape.get("num_plain", 0)
    repeats = f"S={shape['samples_per_session']}"
    if name == "sample":
        repeats += ", all features in group sample"
    elif plain:
        repeats += f" for {shape['num_tables'] - plain} features, {plain} in group sample"
    if name == "s1":
        repeats += ", group kept"
    tables = f"{shape['num_tables']} tables of {shape['num_embeddings']:,} rows, D=64"
    return f"{repeats}, B={shape['batch_size']} a rank, {shape['num_ids']} ids a list, {tables}; {where}"


def measure_case(name: str, options: argparse.Namespace) -> list[measure.Result]:
    """Measures one case."""
    workload = workload_of(name, options.small)
    rounds = options.pairs or (5 if options.quick else 15)
    size = {"pairs": rounds, "block": 4, "num_batches": 2 if options.small else 4 if options.quick else 8}
    config = {"what": name, "workload": workload, "device": "cpu", **size}
    if name == "expand":
        large = {**config, "workload": {**workload, "batch_size": LARGE_BATCH}, "block": 5}
        claims = {"exchange.expand": {**config, "block": 50}, "exchange.expand.large": large}
        return [expand_result(c, measure.run_ranks(__file__, what, num_ranks=1)) for c, what in claims.items()]
    if name == "bytes":
        return [bytes_result(measure.run_ranks(__file__, config, num_ranks=4))]
    if name == "gpu":
        return measure_gpu(config)
    if name == "link":
        modes = [PLAIN[0], "ours"]
        numbers = run_over_link({**config, "modes": modes, "block": 2, "num_batches": 4})
        where = "2 hosts (network namespaces) of 1 gloo rank, 1 Gbit/s between them"
        return speed_results(name, numbers, modes, words_of(name, workload, where)) if numbers else []
    modes = MODES if name == "s16" else [*(PLAIN[:1] if options.quick else PLAIN), "vbe", "ours"]
    numbers = measure.run_ranks(__file__, {**config, "modes": modes})
    return speed_results(name, numbers, modes, words_of(name, workload, "2 gloo ranks"))


def report_skip(name: str, reason: str) -> None:
    """Reports why a case is skipped."""
    sys.stderr.write(f"exchange: {name} skipped: {reason}\n")


def run_over_link(config: dict[str, Any]) -> dict[str, Any] | None:
    """Runs a rank on each of two hosts of the network lab; returns None where there is no lab."""
    import tempfile

    from recd_dist.ranks.launcher import rank_environment

    lab = measure.network_lab()
    if reason := lab.unavailable():
        report_skip("link", reason)
        return None
    with tempfile.TemporaryDirectory() as scratch, lab.Lab(num_hosts=2, mbit=1000) as hosts:
        out = Path(scratch, "numbers.json")
        rank = [str(Path(__file__).resolve()), "--rank", json.dumps({**config, "out": str(out)})]
        env = rank_environment(2, 1) | {"OMP_NUM_THREADS": "1"}
        hosts.torchrun(rank, env=env, timeout_s=300)
        return json.loads(out.read_text())


def measure_gpu(config: dict[str, Any]) -> list[measure.Result]:
    """Measures time and peak memory of a step on one GPU, unique rows against both baselines."""
    import torch

    if not torch.cuda.is_available():
        report_skip("gpu", "torch sees no CUDA device here")
        return []
    modes = [PLAIN[0], "vbe", "ours"]
    chosen = {**config, "modes": modes, "device": "cuda", "num_batches": 4, "block": 8}
    numbers = measure.run_ranks(__file__, chosen, num_ranks=1)
    words = words_of("gpu", config["workload"], f"1 NCCL rank, {torch.cuda.get_device_name(0)}")
    times = speed_results("gpu", numbers, modes, words)
    peak = {name: numbers["peaks"][name] for name in modes}
    ratio = round(peak[PLAIN[0]] / peak["ours"], 3)
    words += "; one batch and its step, no tables"
    columns = {f"{name.replace(' ', '_')}_MiB": round(value / 2**20) for name, value in peak.items()}
    memory = measure.Result(
        "exchange.gpu.memory", ratio, ratio, ratio, BASELINES["kjt"], "ratio", words, details=columns
    )
    return [*times, memory]


def expand_result(claim: str, numbers: dict[str, Any]) -> measure.Result:
    """The result of expansion against a copy. Expansion is a cost, so that the ratio is ours / baseline."""
    ratios = [a / b for a, b in numbers["pairs"]]
    times = [round(1e3 * statistics.median(side), 3) for side in zip(*numbers["pairs"], strict=True)]
    return measure.Result(
        claim,
        round(statistics.median(ratios), 3),
        round(min(ratios), 3),
        round(max(ratios), 3),
        "one copy of the output to memory that lies ready",
        "ours / baseline",
        f"output {numbers['shape'][0]} x {numbers['shape'][1]} float32, S=16, forward and backward, 1 thread",
        {"ours_ms": times[0], "baseline_ms": times[1]},
    )


def bytes_result(numbers: dict[str, Any]) -> measure.Result:
    """The result of bytes counted against the formula: the worst sharding type, way of sending and direction."""
    ratios = {
        f"{plan} {direction}": counted / due
        for plan, values in numbers.items()
        for direction, (counted, due) in values.items()
        if due
    }
    worst = max(ratios, key=lambda key: abs(ratios[key] - 1))
    plans, sizes = ", ".join(numbers), sum(values["splits"][0] for values in numbers.values())
    whole = sum(counted for values in numbers.values() for counted, _ in values.values())
    return measure.Result(
        "exchange.bytes",
        round(ratios[worst], 4),
        round(min(ratios.values()), 4),
        round(max(ratios.values()), 4),
        "formula of plan/step_bytes.py for unique rows and unique ids",
        "counted / formula",
        f"{len(numbers)} plans ({plans}), 4 ranks as 2 hosts x 2, half the features at S=16; worst: {worst}",
        {"sizes_that_are_sent_too": f"{100 * sizes / whole:.3f}%"},
    )


def main() -> None:
    parser = measure.build_parser(__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--pairs", type=int, help="rounds (default 15, quick 5)")
    parser.add_argument("--small", action="store_true", help="tiny tables and batches, for the tests; no claim")
    parser.add_argument("--profile", nargs="?", const="ours", choices=MODES, help="only show where a mode's time goes")
    parser.add_argument("--rank", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        rank_main(options.rank)
        return
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"unknown case '{unknown[0]}'; there are {', '.join(CASES)}")
    if options.profile:
        workload = workload_of(options.cases[0] if options.cases else "s16", options.small)
        chosen = {"what": "profile", "workload": workload, "modes": [options.profile], "num_batches": 8}
        sys.stdout.write(measure.run_ranks(__file__, {**chosen, "device": "cpu"}))
        return
    results, failed = [], []
    for name in options.cases or CASES:
        try:
            results += measure_case(name, options)
        except SystemExit as error:  # the results of the other cases are still shown
            failed.append(f"{name}: {error}")
    measure.report(results, options)
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
