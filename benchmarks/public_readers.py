"""Our reader and public ones on the same samples: claims reader.torchdata, reader.datasets, reader.lance, reader.ray.

    python benchmarks/public_readers.py --venv .bench/readers --install      makes an environment for the others, once
    python benchmarks/public_readers.py --venv .bench/readers [--samples N] [--rounds N] [--markdown]

All read the rm1 preset (ours, modelled on RecD's words) once through into batches of 4096 samples: values and lengths
of each id feature, side by side, in a KeyedJaggedTensor; dense numbers and labels in two tensors. The others read the
flat file of benchmarks/reader.py (time order, lz4, required columns), Lance its own files made of it; each hands over
Arrow in batches of that size, which is the fastest way that its documentation has, and one function makes tensors of
them. Ours reads the clustered table of the same samples, shuffled, into IKJTs. The sides take turns; each is a process
that stays alive, bound to one core with all its threads. What they deliver is compared once: for each feature a sum
over all samples of a hash of its list. Ray Data runs workers of its own, which are bound to that core with it.

The packages are no part of this project's environment. ``--install`` makes one beside it, which takes torch, torchrec
and pyarrow from here, and installs the versions below.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flat_reader
import measure
import pyarrow as pa
from rm1 import raw_logs

import reader

PINS = {"torchdata": "0.11.0", "datasets": "5.2.0", "pylance": "14.0.2", "ray": "2.60.0"}
PACKAGES = {"torchdata": "torchdata", "datasets": "datasets", "lance": "pylance", "ray": "ray"}
SIDES = {
    "torchdata": "torchdata's StatefulDataLoader over batches of a pyarrow dataset",
    "datasets": "Hugging Face datasets, streamed, Arrow format",
    "lance": "Lance, its own format, made of the same file",
    "ray": "Ray Data, pyarrow batches",
}


def start_side(name: str, python: str, paths: dict[str, Any], core: int) -> reader.Child:
    """A process of a public reader, with the interpreter that has it."""
    modules = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    quiet = {"HF_HUB_OFFLINE": "1", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return reader.Child(paths | {"side": name}, {core}, __file__, python, {"PYTHONPATH": modules, **quiet})


def torchdata_batches(config: dict[str, Any], columns: list[str]) -> Callable[[], Iterator[pa.Table]]:
    """A stateful loader in this process: workers would pickle what is there already."""
    import pyarrow.dataset
    from torch.utils.data import IterableDataset
    from torchdata.stateful_dataloader import StatefulDataLoader

    class Batches(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[pa.RecordBatch]:
            files = pyarrow.dataset.dataset(config["flat"])
            yield from files.to_batches(columns=columns, batch_size=reader.BATCH_SIZE, use_threads=False)

    loader = StatefulDataLoader(Batches(), batch_size=None, collate_fn=lambda batch: batch)
    return lambda: iter(loader)


def datasets_batches(config: dict[str, Any], columns: list[str]) -> Callable[[], Iterator[pa.Table]]:
    """A stream of Arrow tables."""
    import datasets

    stream = datasets.load_dataset("parquet", data_files=config["flat"], split="train", streaming=True, columns=columns)
    return lambda: stream.with_format("arrow").iter(batch_size=reader.BATCH_SIZE)


def lance_batches(config: dict[str, Any], columns: list[str]) -> Callable[[], Iterator[pa.Table]]:
    """A dataset in Lance's own format, written at the first start."""
    import lance
    import pyarrow.parquet as pq

    if not Path(config["lance"]).is_dir():
        file = pq.ParquetFile(config["flat"])
        lance.write_dataset(file.iter_batches(), config["lance"], schema=file.schema_arrow)
    stored = lance.dataset(config["lance"])
    return lambda: stored.to_batches(columns=columns, batch_size=reader.BATCH_SIZE)


def ray_batches(config: dict[str, Any], columns: list[str]) -> Callable[[], Iterator[pa.Table]]:
    """Blocks that Ray's workers read and hand over in its shared memory."""
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    rows = ray.data.read_parquet(config["flat"], columns=columns)
    return lambda: iter(rows.iter_batches(batch_size=reader.BATCH_SIZE, batch_format="pyarrow", prefetch_batches=2))


OPENERS = {
    "torchdata": torchdata_batches,
    "datasets": datasets_batches,
    "lance": lance_batches,
    "ray": ray_batches,
}


def arrays_of(batch: pa.Table | pa.RecordBatch, names: list[str]) -> dict[str, pa.Array]:
    """The columns of a batch, each in one piece; lists with offsets of 32 bits."""
    columns = {}
    for name in names:
        column = batch.column(name)
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if pa.types.is_large_list(column.type):
            column = column.cast(pa.list_(column.type.value_type))
        columns[name] = column
    return columns


def tensor_batches(config: dict[str, Any]) -> Callable[[], Iterator[flat_reader.FlatBatch]]:
    """The passes of a public reader, one for each call, as tensors."""
    from recd_dist.table.manifest import Manifest

    schema = Manifest.load(Path(config["table"])).schema
    keys, dense = tuple(f.name for f in schema.sparse), tuple(f.name for f in schema.dense)
    names = [*keys, *dense, *schema.labels]
    opened = OPENERS[config["side"]](config, names)

    def batches() -> Iterator[flat_reader.FlatBatch]:
        for batch in opened():
            tensors = flat_reader.batch_of(arrays_of(batch, names), keys, dense, schema.labels, 0, batch.num_rows)
            tensors.kjt()
            yield tensors

    return batches


def ids_as_they_are(table: Path) -> list[str]:
    """The id features that our reader hands over as they are: those whose table is not hashed."""
    from recd_dist.job.table_sizes import infer_tables
    from recd_dist.table.manifest import Manifest

    manifest = Manifest.load(table)
    tables = infer_tables(manifest, manifest.schema, {}, 16)
    return [f.name for f in manifest.schema.sparse if not tables[str(f.table)].hashed]


def install(venv: Path) -> None:
    """Makes the environment of the other readers: their packages beside ours."""
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = str(venv / "bin/python")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip()
    Path(own, "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pins = [f"{name}{'[data]' if name == 'ray' else ''}=={version}" for name, version in PINS.items()]
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", pins[0]], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *pins[1:]], check=True)


def main() -> None:
    parser = measure.build_parser(__doc__)
    parser.add_argument("--dir", type=Path, default=Path(".bench"), help="logs and tables, kept (default .bench)")
    parser.add_argument("--venv", type=Path, help="the environment that has the other readers")
    parser.add_argument("--install", action="store_true", help="make that environment, and end")
    parser.add_argument("--sides", default=",".join(SIDES), help=f"default {','.join(SIDES)}")
    parser.add_argument("--rounds", type=int, help="default 5, quick 3")
    parser.add_argument("--samples", type=int, help="default 120000, quick 40000")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        reader.bind(options.child["cores"])
        reader.read_when_told(tensor_batches(options.child))
        return
    if options.venv is None:
        parser.error("--venv DIR: the environment that has the other readers; --install makes it")
    if options.install:
        install(options.venv)
        return
    raw = raw_logs(options.dir, options.samples or (40_000 if options.quick else 120_000))
    table = str(reader.make_table(raw, options.dir, "lz4"))
    flat = options.dir / "reader" / f"{raw.path.name}-flat-lz4.parquet"
    flat_reader.write_time_ordered(raw, flat, "lz4")
    core = max(os.sched_getaffinity(0))
    paths = {"table": table, "flat": str(flat.absolute()), "lance": str(flat.with_suffix(".lance").absolute())}
    python = str(options.venv.absolute() / "bin/python")
    running: dict[str, reader.Child] = {"ours": reader.Child({"table": table}, {core})}
    for name in options.sides.split(","):
        running[name] = start_side(name, python, paths, core)
    kept, wanted = ids_as_they_are(Path(table)), running["ours"].ask("sum")
    for name, child in running.items():
        found = child.ask("sum")
        if found["samples"] != wanted["samples"] or any(found["sums"][k] != wanted["sums"][k] for k in kept):
            raise SystemExit(f"{name} delivers other samples than the table")
    rounds = options.rounds or (3 if options.quick else 5)
    times = measure.rounds([lambda c=c: c.ask("read")["seconds"] for c in running.values()], rounds)
    columns = dict(zip(running, zip(*times, strict=True), strict=True))
    results = []
    for name in list(running)[1:]:
        rates = {side: round(raw.num_samples / statistics.median(columns[side])) for side in ("ours", name)}
        pairs = list(zip(columns["ours"], columns[name], strict=True))
        results.append(
            measure.speed_up(
                f"reader.{name}",
                pairs,
                f"{SIDES[name]} {PINS[PACKAGES[name]]}",
                f"{raw.path.name}, batches of {reader.BATCH_SIZE}, one core; the same samples, compared",
                ours_samples_per_s=rates["ours"],
                baseline_samples_per_s=rates[name],
            )
        )
    for child in running.values():
        child.close()
    measure.report(results, options)


if __name__ == "__main__":
    main()
