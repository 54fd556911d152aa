"""A log whose ids change over time: rows that ids share by hashing, against rows that they get and lose. AUC of both.

    python benchmarks/moving_ids.py [--quick] [--json results.json]
    python benchmarks/moving_ids.py --speed 4

Items appear, are shown for a while, and are gone; one impression in eight shows an item that nobody sees again. Every
side trains the same samples once, in the order of time, in a table of as many rows, and is judged on the last hours:

    hashed            rows by hash: an item shares its row with others, living and gone
    hashed, 16x       the same in 16 times as many rows
    mapped            an item has a row of its own, and takes that of the one not seen for longest
    admitted          the same, after two lookups: items that come once take no row
    a row for each    more rows than there are items, which a log that never ends does not allow
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import alternate

NUM_ROWS = 2048
SEGMENTS, WIDTH = 16, 4
SHOWN_ONCE = 1 / 8
HOURS = 200.0
SIDES = {
    "hashed": f"{{num_embeddings: {NUM_ROWS}, hashed: true}}",
    "hashed, 16x": f"{{num_embeddings: {16 * NUM_ROWS}, hashed: true}}",
    "mapped": f"{{num_embeddings: {NUM_ROWS}, mapped: true}}",
    "admitted": f"{{num_embeddings: {NUM_ROWS}, mapped: true, admit_after: 2}}",
    "a row for each": "{num_embeddings: 262144, mapped: true}",
}


def make_log(path: Path, num_sessions: int, seed: int = 0) -> float:
    """Writes the log, and returns the AUC of who knows the probabilities, on the samples that are judged."""
    random = np.random.default_rng(seed)
    num_items = num_sessions // 5
    raw = random.integers(-(2**62), 2**62, num_items)  # ids are any numbers of 64 bits
    bias, taste = random.normal(0, 0.8, num_items), random.normal(0, 1, (num_items, WIDTH))
    wants = random.normal(0, 1, (SEGMENTS, WIDTH))
    born = np.sort(random.uniform(-HOURS / 20, HOURS, num_items))
    times = np.sort(random.uniform(0, HOURS, num_sessions))
    columns: dict[str, list[Any]] = {name: [] for name in ("session", "time", "segment", "history", "item", "clicked")}
    chances = []
    for session, hour in enumerate(times):
        alive = slice(*np.searchsorted(born, [hour - HOURS / 20, hour]))
        size = max(1, alive.stop - alive.start)
        segment = int(random.integers(SEGMENTS))
        shown = alive.start + np.minimum((random.pareto(1.2, 14) * size / 20).astype(int), size - 1)
        history = raw[shown[:8]].tolist()
        for item in shown[8:]:
            is_once = random.random() < SHOWN_ONCE
            logit = -0.5 if is_once else -0.5 + bias[item] + taste[item] @ wants[segment]
            chance = 1 / (1 + np.exp(-logit))
            chances.append(chance)
            columns["session"].append(session)
            columns["time"].append(int((1_700_000_000 + hour * 3600) * 1_000_000))
            columns["segment"].append(segment)
            columns["history"].append(history)
            columns["item"].append(int(random.integers(-(2**62), 2**62)) if is_once else int(raw[item]))
            columns["clicked"].append(float(random.random() < chance))
    table = pa.table(columns)
    table = table.set_column(1, "time", table["time"].cast(pa.timestamp("us")))
    pq.write_table(table, path)
    last = int(len(chances) * (1 - SPLIT))
    return auc(np.array(chances[last:]), np.array(columns["clicked"][last:]))


SPLIT = 0.03


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The share of pairs of a positive and a negative that the scores put in order; no two scores are equal."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores)] = np.arange(1, len(scores) + 1)
    positives = labels.sum()
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(labels) - positives)))


def recd(*arguments: str) -> None:
    """Runs a command of recd; its output is shown where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "recd_dist.cli", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])


def train(directory: Path, data: list[str], side: str, seed: int) -> dict[str, Any]:
    """Trains one side, and returns its summary."""
    run = directory / f"{side.replace(' ', '_').replace(',', '')}-{seed}"
    options = [
        "model=deepfm",
        "batch_size=512",
        "epochs=1",
        "reader.order=table",
        "optim.tables.lr=0.05",
        f"seed={seed}",
        f"run_dir={run}",
    ]
    recd("train", *options, *data, f"data.tables.item={SIDES[side]}", "checkpoint.every=null", "--nproc", "2")
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return summary


def make_table(directory: Path, num_sessions: int) -> tuple[list[str], float]:
    """Makes the log and its table; the overrides that name it, and the best possible AUC."""
    best = make_log(directory / "log.parquet", num_sessions)
    data = ["data=parquet", "data.name=moving", f"data.path={directory}/log.parquet", f"data.table={directory}/table"]
    data += ["data.keys={session: session, timestamp: time}", "data.labels=[clicked]", f"data.split={SPLIT}"]
    data += ["data.features={history: {table: item}, segment: {kind: id}}"]
    recd("etl", *data, "data.groups={user: [history, segment]}")
    return data, best


def judge(found: dict[str, list[dict[str, Any]]]) -> None:
    """Prints what each side has come to."""
    print("| rows | AUC (lowest to highest) | NE | unknown lookups: training, evaluation | admitted | evicted |")
    print("|---|---|---|---|---|---|")
    for side, summaries in found.items():
        aucs, ids = [s["auc"] for s in summaries], summaries[0].get("ids", {}).get("item", {})
        shown = f"{statistics.median(aucs):.4f} ({min(aucs):.4f} to {max(aucs):.4f})"
        ne = statistics.median(summary["ne"] for summary in summaries)
        unknown = f"{ids['unknown_share']:.1%}, {ids['unknown_share_evaluated']:.1%}" if ids else "-"
        print(f"| {side} | {shown} | {ne:.3f} | {unknown} | {ids.get('admitted', '-')} | {ids.get('evicted', '-')} |")


def compare_speed(directory: Path, data: list[str], num_pairs: int) -> None:
    """Prints how long a step takes with a mapped table, against one with as many hashed rows, run by turns."""

    def seconds(side: str, size: int) -> float:
        steps = [*data, "max_steps=150", "evaluate.split=null", "resume=false", f"batch_size={size}"]
        return 1 / float(train(directory, steps, side, 0)["samples_per_s"])

    for size in (512, 4096):
        pairs = alternate(partial(seconds, "admitted", size), partial(seconds, "hashed", size), num_pairs)
        ratios = [ours / baseline for ours, baseline in pairs]
        found = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        print(f"time of a step of {size} samples a rank, mapped / hashed: {found}", flush=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the log, one seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--speed", type=int, metavar="PAIRS", help="compares the speed instead, in so many pairs of runs"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        data, best = make_table(directory, 6_000 if options.quick else 60_000)
        if options.speed:
            compare_speed(directory, data, options.speed)
            return
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for seed in range(1 if options.quick else options.seeds):
            for side, summaries in found.items():  # by turns, on the same samples
                summaries.append(train(directory, data, side, seed))
    print(f"best possible AUC {best:.4f}")
    judge(found)
    if options.json:
        options.json.write_text(json.dumps({"best_auc": best, "sides": found}, indent=1))


if __name__ == "__main__":
    main()
