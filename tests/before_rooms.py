"""A table and a run that an earlier release wrote, and what that release made of them.

    cd CHECKOUT && PYTHONPATH=src python THIS_FILE tests/fixtures/before_rooms    # CHECKOUT: that of the release

The folder holds ``configs/`` beforehand. Afterwards it also holds ``logs/`` (three days of raw samples),
``tables/clicks`` (two of the days, clustered), ``runs/clicks`` (two ranks, stopped by ``max_steps`` in the middle of
the first epoch) and ``expected.json``: what the release came to when it read, resumed, evaluated and appended.
Everything goes through command lines and files: no module of the package is imported, so that modules may move.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["recd"].partition(":")[0]
STOPPED_AT = 5  # steps, of 7 in an epoch
TABLE = ["--config-dir", "configs", "data=clicks"]
RUN = ["--config-dir", "configs", "experiment=small", "model.pooling=sum"]  # the default of then
ROW_GROUPS = "row_group_samples=48"
QUALITY = ("num_samples", "auc", "auc_per_request", "ne", "loss", "calibration")
ADDED_DAY = "data.path=logs/2025-03-03.parquet"


def recd(folder: Path, *arguments: str) -> str:
    """What a command says on stdout. One thread a rank: sums are then in one order."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    ended = subprocess.run(
        [sys.executable, "-m", COMMANDS, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"recd {' '.join(arguments)}: exit code {ended.returncode}\n{ended.stderr}")
    return ended.stdout


def write_logs(folder: Path) -> None:
    """Three days of visits, one Parquet file a day; the third holds the last four visits of the second day too."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(7)
    logs: dict[int, list[dict[str, Any]]] = {1: [], 2: [], 3: []}
    for visit in range(48):
        day = 1 + visit // 16
        logs[3 if 28 <= visit < 32 else day] += visit_samples(visit, day, rng)
    for day, rows in logs.items():
        order = rng.permutation(len(rows))  # visits lie mixed, as in a log
        pq.write_table(pa.Table.from_pylist([rows[i] for i in order]), folder / f"2025-03-0{day}.parquet")


def visit_samples(visit: int, day: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The samples of one visit: a history that shifts, a profile that stays, text, missing values."""
    words = ["shoes", "red shoes", "rain coat", "hat", "", "boots"]
    country, device = ["DK", "SE", "NO", None][rng.integers(4)], int(rng.integers(3))
    age = round(float(rng.uniform(18, 80)), 1)
    start = datetime(2025, 3, day) + timedelta(minutes=int(rng.integers(1300)))
    history, rows = [int(i) for i in rng.integers(0, 60, 6)], []
    for number in range(int(rng.integers(4, 11))):
        if number and rng.random() < 0.4:  # an item is read: the history shifts by one
            history = [*history[1:], int(rng.integers(0, 60))]
        item, price = int(rng.integers(0, 60)), float(np.float32(rng.lognormal(3, 1)))
        clicked = int(rng.random() < (0.7 if item in history or item < 15 else 0.2))
        rows.append(
            {
                "visit": visit,
                "request": f"{visit}-{number // 2}",
                "time": start + timedelta(seconds=20 * (number // 2)),
                "position": number % 2,
                "history": history,
                "topics": sorted({f"t{i % 7}" for i in history}),
                "country": country,
                "device": device,
                "age": age,
                "item": item,
                "query": words[int(rng.integers(len(words)))],
                "price": None if rng.random() < 0.05 else price,
                "clicked": clicked,
                "bought": int(clicked and price < 20),
            }
        )
    return rows


def digest(data: bytes) -> str:
    """The first half of the SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()[:32]


def files(table: Path) -> dict[str, str]:
    """The digest of every Parquet file of a table's splits, by path."""
    return {path.relative_to(table).as_posix(): digest(path.read_bytes()) for path in sorted(table.rglob("*.parquet"))}


def samples(folder: Path, split: str) -> list[dict[str, Any]]:
    """The flat samples that the query of ``recd sql`` gives, sorted, without the table's own numbers of them."""
    import duckdb

    query = recd(folder, "sql", *TABLE, f"data.table={folder / 'tables/clicks'}", "--split", split)
    found = duckdb.sql(f"select * exclude (sample_id) from ({query}) order by all")
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def flat(folder: Path) -> dict[str, Any]:
    """Of each split, how many samples there are and the digest of all of them."""
    rows = {split: samples(folder, split) for split in ("train", "test")}
    return {split: {"num": len(found), "digest": digest(json.dumps(found).encode())} for split, found in rows.items()}


def losses(run_dir: Path) -> dict[str, float]:
    """Step -> smoothed loss of rank 0, every bit of its float32, from the events of the newest attempt."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run_dir / "board"), size_guidance={"scalars": 0})
    board.Reload()
    return {str(event.step): event.value for event in board.Scalars("quality/loss")}


def tensors(checkpoint: Path) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint, weights and optimizer state, put together from what the ranks wrote."""
    import torch
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    def walk(name: str, value: Any) -> None:
        for key, inner in value.items() if isinstance(value, dict) else ():
            walk(f"{name}/{key}" if name else str(key), inner)
        if not isinstance(value, dict):
            found[name] = value.numpy()

    found: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch, "whole.pt")
        dcp_to_torch_save(checkpoint, whole)
        walk("", torch.load(whole, weights_only=True))
    return found


def evaluation(folder: Path) -> dict[str, float]:
    """The quality that ``recd evaluate`` writes about the newest checkpoint."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        recd(folder, "evaluate", "run_dir=runs/clicks", "--json", file.name)
        found = json.loads(Path(file.name).read_text())
    return {name: found[name] for name in QUALITY}


def resumed(folder: Path, num_ranks: int) -> dict[str, Any]:
    """Trains the stopped run of a folder to its end, and what came of it."""
    recd(folder, "train", *RUN, "--nproc", str(num_ranks))
    run = folder / "runs/clicks"
    summary = json.loads((run / "summary.json").read_text())
    attempt = max((run / "seen").glob("attempt-*"))
    weights = tensors(folder / summary["checkpoint"])
    return {
        "steps": summary["steps"],
        "losses": losses(run),
        "tensors": {name: digest(value.tobytes()) for name, value in sorted(weights.items())},
        "trained": {path.name: digest(path.read_bytes()) for path in sorted(attempt.iterdir())},
        "quality": {name: summary[name] for name in QUALITY},
    }


def appended(folder: Path) -> dict[str, Any]:
    """Adds the third day to the table of a folder, then merges its small parts."""
    recd(folder, "etl", *TABLE, ADDED_DAY, "append=true")
    after_append = {"files": files(folder / "tables/clicks"), "flat": flat(folder)}
    recd(folder, "compact", *TABLE)
    return {"appended": after_append, "compacted": {"files": files(folder / "tables/clicks"), "flat": flat(folder)}}


def stats(folder: Path) -> dict[str, Any]:
    """What ``recd stats`` writes about the table."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        recd(folder, "stats", *TABLE, "--json", file.name)
        return dict(json.loads(Path(file.name).read_text()))


def arithmetic() -> dict[str, str]:
    """What the last bit of a float depends on: libraries and processor."""
    import torch

    facts = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(": ")[2] for line in facts if line.startswith("model name")), platform.machine())
    found = {
        name: version(name).partition("+")[0] for name in ("torch", "torchrec", "fbgemm-gpu-cpu", "pyarrow", "duckdb")
    }
    return found | {"cpu": f"{processor}, {torch.backends.cpu.get_cpu_capability()}"}


def main(out: Path) -> None:
    """Writes logs, table, run and expected.json."""
    for name in ("logs", "tables", "runs"):
        shutil.rmtree(out / name, ignore_errors=True)
    write_logs(out / "logs")
    recd(out, "etl", *TABLE, ROW_GROUPS)
    recd(out, "train", *RUN, "--nproc", "2", f"max_steps={STOPPED_AT}")
    shutil.rmtree(out / "runs/clicks/board")
    expected = {"arithmetic": arithmetic(), "files": files(out / "tables/clicks"), "flat": flat(out)}
    expected |= {"first_sample": samples(out, "train")[0], "stats": stats(out), "stopped": evaluation(out)}
    with tempfile.TemporaryDirectory() as scratch:
        for num_ranks in (2, 1):
            copy = shutil.copytree(out, Path(scratch, f"on-{num_ranks}"))
            expected[f"resumed_on_{num_ranks}"] = resumed(copy, num_ranks)
            expected["seen"] = recd(copy, "seen", "run_dir=runs/clicks").splitlines()
        expected |= appended(shutil.copytree(out, Path(scratch, "grown")))
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
