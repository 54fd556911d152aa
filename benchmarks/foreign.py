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
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flat_reader
import measure
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from rm1 import files_of, raw_logs

import reader

BATCH_SIZE, ROW_GROUP = 4096, 8192
FORMS = {"defaults": {}} | {
    codec: {"compression": codec, "row_group_size": ROW_GROUP} for codec in ("snappy", "lz4", "zstd")
}
Names = tuple[str, ...]
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
    keys, dense = (tuple(f.name for f in of) for of in (job.schema.sparse, job.schema.dense))
    labels = tuple(job.schema.labels)
    while True:
        yield ((batch.kjt(), batch.labels) for batch in _read_flat(path, keys, dense, labels))


def _read_flat(path: str, keys: Names, dense: Names, labels: Names) -> Iterator[flat_reader.FlatBatch]:
    with pq.ParquetFile(path) as file:
        # By 8192 rows: faster than whole row groups of a million, and than 4096 by 4096.
        for rows in file.iter_batches(ROW_GROUP, columns=[*keys, *dense, *labels], use_threads=False):
            columns = dict(zip(rows.schema.names, rows.columns, strict=True))
            for start in range(0, rows.num_rows, BATCH_SIZE):
                size = min(BATCH_SIZE, rows.num_rows - start)
                yield flat_reader.batch_of(columns, keys, dense, labels, start, size)


def child_main(config: dict[str, Any]) -> None:
    """Reads when told to, and answers with seconds and sums."""
    reader.bind(config["cores"])
    job = open_job(config["path"])
    passes = our_batches(job) if config["side"] == "ours" else their_batches(job, config["path"])
    hashed = {f.name for f in job.schema.sparse if job.tables[str(f.table)].hashed}
    for line in sys.stdin:
        start, sums, num = time.perf_counter(), {}, 0
        for sparse, labels in next(passes):
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


def measure_form(path: Path, form: str, num_rounds: int) -> measure.Result:
    """Ours against pyarrow, on one file."""
    core = {max(os.sched_getaffinity(0))}
    sides = [reader.Child({"path": str(path), "side": side}, core, __file__) for side in ("ours", "theirs")]
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
