"""Reading: claims reader.zstd, reader.lz4, reader.windows, reader.scaling and reader.first_batch.

    python benchmarks/reader.py [--quick] [--samples N] [--rounds N] [--markdown] [--json FILE] [--dir DIR]

A process reads the rm1 preset (ours, modelled on RecD's words) once through into batches of 4096 samples: from the
clustered table by this project's loader into IKJTs, shuffled, and from a flat Parquet file of the same samples in time
order by pyarrow into KeyedJaggedTensors (flat_reader.py). The sides take turns (A B A B ...), each in a process of its
own that stays alive and is bound to one core with all its threads, so that a process stands for a core. What both
deliver is compared once: for each feature a sum over all samples of a hash of its list. Pages are in the page cache.

reader.windows leaves histories that are stored as windows as windows in the batch (IKJT.windows), which training takes
as they are. The other claims use a table of ten times the size as well: reader.scaling compares two processes, each
bound to a core of its own and reading its half of it as two ranks do, with one; reader.resume compares the time from
``Loader(...)`` to the first batch in a new process, whose compiled loops are on disk, from the middle of an epoch of
either table; reader.first_batch the same from the beginning and from the middle.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flat_reader
import measure
import numpy as np
from rm1 import Raw, raw_logs

BATCH_SIZE = 4096
BASELINE = "the same samples flat in time order, {codec}, required columns, encodings by the same chooser, into KJTs"
CODECS = {"lz4": "lz4", "zstd": "zstd:3"}


class Child:
    """A process bound to some cores, which does what it is told, line by line.

    Args:
        config: what it reads, JSON-ready.
        cores: the cores that it may use.
        script: what it runs, with ``--child`` and the config.
        python: the interpreter.
        environment: what it has beside that of this process.
    """

    def __init__(
        self,
        config: dict[str, Any],
        cores: set[int],
        script: str = __file__,
        python: str = sys.executable,
        environment: dict[str, str] | None = None,
    ) -> None:
        whole = json.dumps(config | {"cores": sorted(cores)})
        self._process = subprocess.Popen(
            [python, script, "--child", whole],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": ""} | (environment or {}),
        )

    def tell(self, act: str) -> None:
        """Sends a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(act + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """Waits for an answer.

        Raises:
            SystemExit: the process has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a reading process has ended; its error is above")
        return json.loads(line)

    def ask(self, act: str) -> Any:
        """Sends a line and waits for the answer."""
        self.tell(act)
        return self.hear()

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def sums_of(keys: tuple[str, ...], values: np.ndarray, lengths: np.ndarray, size: int, counts: list[int]) -> list[int]:
    """For each feature the sum over all samples of a hash of its list."""
    from recd_dist.table.hash import splitmix64

    sums, place = [], 0
    for n in range(len(keys)):
        own, sizes = values[place : place + counts[n]].astype(np.uint64), lengths[n * size : (n + 1) * size]
        position = np.arange(len(own), dtype=np.uint64) - np.repeat(np.cumsum(sizes) - sizes, sizes).astype(np.uint64)
        hashed = splitmix64(own * np.uint64(1_000_003) + position)
        sums.append(int(hashed.sum(dtype=np.uint64)))
        place += counts[n]
    return sums


def table_batches(config: dict[str, Any]) -> Callable[[], Iterator[Any]]:
    """The epochs of the table, one for each call."""
    from recd_dist.job.table_sizes import infer_tables
    from recd_dist.reader.loader import Loader
    from recd_dist.table.clustered import ClusteredTable

    table = ClusteredTable.load(Path(config["table"]))
    schema = table.manifest.schema
    windows = [f.name for f in schema.features if f.window] if config.get("windows") else ()
    shape = {"rank": config.get("rank", 0), "world_size": config.get("world_size", 1)}
    tables = infer_tables(table.manifest, schema, {}, 16)
    loader = Loader(table, schema, tables, batch_size=BATCH_SIZE, windows=windows, **shape)
    epoch = iter(range(1 << 30))

    def batches() -> Iterator[Any]:
        loader.start_epoch(next(epoch))
        return iter(loader)

    return batches


def flat_batches(config: dict[str, Any]) -> Callable[[], Iterator[Any]]:
    """The passes over the flat file, one for each call."""
    from recd_dist.table.manifest import Manifest

    schema = Manifest.load(Path(config["table"])).schema

    def batches() -> Iterator[Any]:
        for batch in flat_reader.read_batches(Path(config["flat"]), schema, BATCH_SIZE):
            batch.kjt()
            yield batch

    return batches


def bind(cores: list[int]) -> None:
    """Binds this process to some cores, with one thread for each library."""
    os.sched_setaffinity(0, cores)
    import pyarrow as pa
    import torch

    torch.set_num_threads(1)
    pa.set_cpu_count(1)


def read_when_told(batches: Callable[[], Iterator[Any]]) -> None:
    """Reads once through for each line that comes, and answers with seconds; ``sum`` answers with what was delivered.

    Args:
        batches: the passes, one for each call; of ``FlatBatch`` or of this project's batches.
    """
    for line in sys.stdin:
        start, samples, sums = time.perf_counter(), 0, Counter[str]()
        for batch in batches():
            is_flat = isinstance(batch, flat_reader.FlatBatch)
            size = batch.size if is_flat else batch.batch_size
            if line.strip() == "sum":
                lists = batch if is_flat else batch.sparse.expand()
                counts = list(lists.counts) if is_flat else [lists.num_values(k) for k in lists.keys]
                found = sums_of(lists.keys, lists.values.numpy(), lists.lengths.numpy(), size, counts)
                sums.update(dict(zip(lists.keys, found, strict=True)))
            samples += size
        answer = {"seconds": time.perf_counter() - start, "samples": samples}
        answer["sums"] = {key: value % 2**64 for key, value in sums.items()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def child_main(config: dict[str, Any]) -> None:
    """Reads when told to; or tells how long a first batch took."""
    bind(config["cores"])
    if "first" in config:
        sys.stdout.write(json.dumps(first_batch(config)) + "\n")
        return
    read_when_told(flat_batches(config) if "flat" in config else table_batches(config))


def first_batch(config: dict[str, Any]) -> float:
    """Seconds from ``Loader(...)`` to its first batch; ``first`` is the share of the epoch that is trained already."""
    from recd_dist.job.table_sizes import infer_tables
    from recd_dist.reader.loader import Loader
    from recd_dist.reader.order import Shuffle
    from recd_dist.reader.position import Position
    from recd_dist.table.clustered import ClusteredTable

    table = ClusteredTable.load(Path(config["table"]))
    schema, size = table.manifest.schema, table.manifest.num_samples
    tables = infer_tables(table.manifest, schema, {}, 16)
    position = Position.at_start(table.manifest, Shuffle()).to_json()
    state = position | {"remaining": [[int(size * config["first"]), size]]}
    start = time.perf_counter()
    loader = Loader(table, schema, tables, batch_size=BATCH_SIZE, state=state)
    next(iter(loader))
    seconds = time.perf_counter() - start
    loader.close()
    return seconds


def make_table(raw: Raw, directory: Path, codec: str) -> Path:
    """The clustered table of some logs, which is made unless it exists."""
    from recd_dist.etl.flow import etl

    out = directory / "reader" / f"{raw.path.name}-{codec}"
    if not (out / "train" / "manifest.json").is_file():
        etl(raw.source, out, compression=codec, progress=False)
    return out / "train"


def measure_sides(raw: Raw, options: argparse.Namespace) -> list[measure.Result]:
    """Ours against the flat file, for each compression; windows as lists and kept."""
    core = {max(os.sched_getaffinity(0))}
    results, children = [], []
    for codec, written in CODECS.items():
        table = str(make_table(raw, options.dir, codec))
        flat = options.dir / "reader" / f"{raw.path.name}-flat-{codec}.parquet"
        flat_reader.write_time_ordered(raw, flat, written)
        sides = {"ours": {"table": table}, "flat": {"table": table, "flat": str(flat)}}
        if codec == "lz4":
            sides["windows"] = {"table": table, "windows": True}
        running = {name: Child(side, core) for name, side in sides.items()}
        children += running.values()
        sums = {name: child.ask("sum") for name, child in running.items()}
        if any(found["sums"] != sums["flat"]["sums"] for found in sums.values()):
            raise SystemExit(f"{codec}: the table and the flat file deliver different samples")
        for child in running.values():
            child.ask("read")
        times = measure.rounds([lambda c=c: c.ask("read")["seconds"] for c in running.values()], options.rounds)
        columns = dict(zip(running, zip(*times, strict=True), strict=True))
        words = (
            f"{raw.path.name}, shuffled, batches of {BATCH_SIZE}, one process on one core; the same samples, compared"
        )
        for name, claim in (("ours", f"reader.{codec}"), ("windows", "reader.windows")):
            if name in columns:
                rates = {side: raw.num_samples / statistics.median(columns[side]) for side in (name, "flat")}
                results.append(
                    measure.speed_up(
                        claim,
                        list(zip(columns[name], columns["flat"], strict=True)),
                        BASELINE.format(codec=codec),
                        words,
                        ours_samples_per_s=round(rates[name]),
                        baseline_samples_per_s=round(rates["flat"]),
                    )
                )
    for child in children:
        child.close()
    return results


def measure_scaling(raw: Raw, options: argparse.Namespace) -> measure.Result:
    """Two processes against one, for the samples/s of both together."""
    table = str(make_table(raw, options.dir, "lz4"))
    first, second = sorted(os.sched_getaffinity(0))[:2]
    one = Child({"table": table}, {first})
    two = [Child({"table": table, "rank": r, "world_size": 2}, {(first, second)[r]}) for r in range(2)]

    def both() -> float:
        for child in two:
            child.tell("read")
        return max(child.hear()["seconds"] for child in two)

    def alone() -> float:
        return float(one.ask("read")["seconds"])

    both(), alone()
    pairs = measure.alternate(both, alone, options.rounds)
    for child in (one, *two):
        child.close()
    return measure.speed_up(
        "reader.scaling", pairs, "one process on one core", f"{raw.path.name}, lz4, two processes on a core each"
    )


def measure_first_batches(raw: Raw, larger: Raw, options: argparse.Namespace) -> list[measure.Result]:
    """The first batch of a new process: from the beginning, and from the middle of a table ten times the size."""
    core = {max(os.sched_getaffinity(0))}
    small, large = (str(make_table(logs, options.dir, "lz4")) for logs in (raw, larger))

    def seconds(table: str, share: float) -> float:
        child = Child({"table": table, "first": share}, core)
        found = float(child.hear())
        child.close()
        return found

    seconds(small, 0.0)
    sides = [lambda t=t, s=s: seconds(t, s) for t, s in ((small, 0.5), (large, 0.5), (large, 0.0))]
    times = measure.rounds(sides, options.rounds)
    words = f"from Loader(...) to the first batch of {BATCH_SIZE}, new process on one core, compiled loops on disk"
    pairs = {
        "reader.resume": ([(b, a) for a, b, _ in times], f"{raw.num_samples:,} samples"),
        "reader.first_batch": ([(c, b) for _, b, c in times], "from the middle of the epoch"),
    }
    return [
        measure.speed_up(name, found, baseline, f"{words}; {larger.num_samples:,} samples", seconds=round(ours, 3))
        for name, (found, baseline) in pairs.items()
        for ours in [statistics.median(a for a, _ in found)]
    ]


def main() -> None:
    parser = measure.build_parser(__doc__)
    parser.add_argument("--dir", type=Path, default=Path(".bench"), help="raw logs and tables, kept (default .bench)")
    parser.add_argument("--rounds", type=int, help="default 9, quick 5")
    parser.add_argument("--samples", type=int, help="default 120000, quick 40000")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child_main(options.child)
        return
    options.rounds = options.rounds or (5 if options.quick else 9)
    raw = raw_logs(options.dir, options.samples or (40_000 if options.quick else 120_000))
    results, larger = measure_sides(raw, options), raw_logs(options.dir, 10 * raw.num_samples)
    results += [measure_scaling(larger, options), *measure_first_batches(raw, larger, options)]
    measure.report(results, options)


if __name__ == "__main__":
    main()
