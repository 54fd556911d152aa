"""Reading foreign files: claims foreign.defaults, foreign.snappy, foreign.lz4 and foreign.zstd.

    python benchmarks/foreign.py [--quick] [--samples N] [--rounds N] [--markdown] [--json FILE] [--dir DIR]

The samples of the rm1 preset (ours, modelled on RecD's words), sorted by session, as pyarrow writes them flat: one
file, every column nullable, with row groups of 8192 and of three codecs, or all as ``pq.write_table`` does where nobody
tells it anything (one row group, snappy). It is read once through into batches of 4096: by this project directly
(data.reader=direct, equal neighbours found while reading) into IKJTs, and by pyarrow into KeyedJaggedTensors without a
copy before the one that lays the features of a batch side by side. Each side is a process that stays alive, bound to
one core with all its threads. What both deliver is compared once, by sums over all ids of each feature and over all
labels. Pages are in the page cache.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch
from rm1 import files_of, raw_logs

BATCH_SIZE, ROW_GROUP = 4096, 8192
FORMS = {"defaults": {}} | {
    codec: {"compression": codec, "row_group_size": ROW_GROUP} for codec in ("snappy", "lz4", "zstd")
}
BASELINE = "pyarrow from the same file into KeyedJaggedTensors, one process on one core"


def write_sorted(raw: Path, path: Path, options: dict[str, Any]) -> None:
    """Writes the samples sorted by session and time, in nullable columns, unless it was done."""
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ds.dataset([str(file) for file in files_of(raw)]).to_table()
    order = pc.sort_indices(
        rows.select(["session_id", "timestamp"]), [("session_id", "ascending"), ("timestamp", "ascending")]
    )
    kinds = {f.name: pa.list_(f.type.value_type) if pa.types.is_list(f.type) else f.type for f in rows.schema}
    pq.write_table(rows.take(order).cast(pa.schema(list(kinds.items()))), path, **options)


def open_job(path: str) -> Any:
    """The job that reads the file directly."""
    from recd_dist.job.config import load
    from recd_dist.job.job import resolve

    source = load("train", ["data=rm1"]).data
    keys = [f"data.keys.{k}={v}" for k, v in vars(source.keys).items() if v is not None]
    given = [f"data.path={path}", "data.reader=direct", "data.split=null", f"data.labels={list(source.labels)}"]
    return resolve(load("train", ["data=parquet", *keys, *given]))


def our_batches(job: Any) -> Iterator[Iterator[Any]]:
    """The passes over the file by this project."""
    from recd_dist.reader.loader import Loader

    transforms = type(job.transforms)({})
    loader = Loader(job.table, job.schema, job.tables, transforms, batch_size=BATCH_SIZE)
    epoch = 0
    while True:
        loader.start_epoch(epoch)
        yield ((batch.sparse, batch.labels) for batch in loader)
        epoch += 1


def their_batches(job: Any, path: str) -> Iterator[Iterator[Any]]:
    """The passes over the file by pyarrow."""
    keys = [f.name for f in job.schema.sparse]
    dense, labels = [f.name for f in job.schema.dense], list(job.schema.labels)
    while True:
        yield _read_flat(path, keys, dense, labels)


def _read_flat(path: str, keys: list[str], dense: list[str], labels: list[str]) -> Iterator[Any]:
    with pq.ParquetFile(path) as file:
        # By 8192 rows: faster than whole row groups of a million, and than 4096 by 4096.
        for rows in file.iter_batches(ROW_GROUP, columns=[*keys, *dense, *labels], use_threads=False):
            columns = dict(zip(rows.schema.names, rows.columns, strict=True))
            for start in range(0, rows.num_rows, BATCH_SIZE):
                yield _to_kjt(columns, keys, dense, labels, start, min(BATCH_SIZE, rows.num_rows - start))


def _to_kjt(
    columns: dict[str, pa.Array], keys: list[str], dense: list[str], labels: list[str], start: int, size: int
) -> Any:
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

    values, lengths = [], []
    for key in keys:
        column = columns[key]
        if pa.types.is_list(column.type):
            offsets = column.offsets.to_numpy()[start : start + size + 1]
            values.append(column.values.to_numpy()[offsets[0] : offsets[-1]])
            lengths.append(np.diff(offsets))
        else:
            values.append(column.to_numpy(zero_copy_only=False)[start : start + size])
            lengths.append(np.ones(size, np.int32))
    kjt = KeyedJaggedTensor(
        keys=keys,
        values=torch.from_numpy(np.concatenate(values)),
        lengths=torch.from_numpy(np.concatenate(lengths)),
        stride=size,
        length_per_key=[len(part) for part in values],
    )
    numbers = np.empty((size, len(dense)), np.float32)
    for n, name in enumerate(dense):
        numbers[:, n] = columns[name].to_numpy(zero_copy_only=False)[start : start + size]
    label = np.stack([columns[n].to_numpy(zero_copy_only=False)[start : start + size] for n in labels], 1)
    return kjt, torch.from_numpy(label.astype(np.float32)), torch.from_numpy(numbers)


def child_main(config: dict[str, Any]) -> None:
    """Reads when told to, and answers with seconds and sums."""
    os.sched_setaffinity(0, {config["core"]})
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    job = open_job(config["path"])
    passes = our_batches(job) if config["side"] == "ours" else their_batches(job, config["path"])
    hashed = {f.name for f in job.schema.sparse if job.tables[str(f.table)].hashed}
    for line in sys.stdin:
        start, sums, num = time.perf_counter(), {}, 0
        for sparse, labels, *_ in next(passes):
            num += len(labels)
            if line.strip() == "sum":
                flat = sparse.expand() if config["side"] == "ours" else sparse
                for key in set(flat.keys if config["side"] == "ours" else flat.keys()) - hashed:
                    values = flat.values_of(key) if config["side"] == "ours" else flat[key].values()
                    sums[key] = sums.get(key, 0) + int(values.long().sum())
                sums["labels"] = sums.get("labels", 0) + float(labels.sum())
        answer = {"seconds": time.perf_counter() - start, "samples": num, "sums": sums}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


class Side:
    """A reading process."""

    def __init__(self, path: Path, side: str) -> None:
        config = json.dumps({"path": str(path), "side": side, "core": max(os.sched_getaffinity(0))})
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": ""}
        command = [sys.executable, __file__, "--child", config]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, what: str) -> Any:
        """Lets it read once through."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a reading process has ended; its error is above")
        return json.loads(line)

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


def measure_form(path: Path, form: str, num_rounds: int) -> measure.Result:
    """Ours against pyarrow, on one file."""
    sides = [Side(path, side) for side in ("ours", "theirs")]
    ours, theirs = (side.ask("sum") for side in sides)
    if ours["sums"] != theirs["sums"] or ours["samples"] != theirs["samples"]:
        raise SystemExit(f"{form}: the two sides deliver different samples")
    pairs = measure.alternate(*(lambda s=s: s.ask("read")["seconds"] for s in sides), num_rounds)
    for side in sides:
        side.close()
    rates = {
        name: round(ours["samples"] / statistics.median(pair[n] for pair in pairs))
        for n, name in enumerate(("ours_samples_per_s", "baseline_samples_per_s"))
    }
    words = f"{path.name}, {ours['samples']:,} samples sorted by session, {path.stat().st_size / 2**20:.0f} MiB"
    return measure.speed_up(f"foreign.{form}", pairs, BASELINE, words, **rates)


def main() -> None:
    """Measures and prints."""
    if sys.argv[1:2] == ["--child"]:
        child_main(json.loads(sys.argv[2]))
        return
    parser: argparse.ArgumentParser = measure.build_parser(__doc__)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dir", type=Path, default=Path("data/bench"))
    options = parser.parse_args()
    raw = raw_logs(options.dir, 20_000 if options.quick else options.samples)
    results = []
    for form, given in FORMS.items():
        path = options.dir / "foreign" / f"{raw.path.name}-nullable-{form}.parquet"
        write_sorted(raw.path, path, given)
        results.append(measure_form(path, form, options.rounds))
    measure.report(results, options)


if __name__ == "__main__":
    main()
