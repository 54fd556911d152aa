"""The ETL as a user runs it, at two sizes: claims etl.rate (samples/s on 2 cores) and etl.memory (GiB resident).

    python benchmarks/etl.py [--quick] [--samples N] [--pairs N] [--markdown] [--json FILE] [--dir DIR]

Each run is `recd etl` in a process of its own, with memory_limit=1GB and two cores. It is timed from its start to its
end: imports, compiled loops from the cache, reading, writing, checksums. Its memory is that of the whole process tree
(benchmarks/watched.py). 766,000 samples of the rm1 preset are 2.5 GB as uncompressed Arrow; four times as many run
once, with the same limit. Then `recd etl --verify` compares each size with its source, and is timed and watched too.

The baseline runs by turns with ours (A B A B ...). It is what a user would write without this project: one DuckDB
statement that sorts the logs by session and time into one flat Parquet file, on the same two cores and with the same
memory limit. Where DuckDB runs out of memory, it gets the next of several larger limits, and the result names it.

The data are the rm1 preset (ours, modelled on RecD's words). They are made once, into --dir, with all samples in one
table.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import measure
from rm1 import Raw, raw_logs
from watched import Run, watch_command

from recd_dist.table.manifest import Manifest

SAMPLES = 766_000
LIMIT = "1GB"
LIMITS = (LIMIT, "2GB", "4GB", "8GB", "16GB")
NUM_CORES = 2
TIMES = 4

SORT = """
import duckdb, sys
raw, out, limit, spill, threads = sys.argv[1:]
with duckdb.connect() as connection:
    connection.execute(f"set memory_limit = '{limit}'; set threads = {threads}; set temp_directory = '{spill}'")
    connection.execute("set enable_progress_bar = false")
    connection.execute(
        f"copy (select * from read_parquet('{raw}/part-*.parquet') order by session_id, timestamp) "
        f"to '{out}' (format parquet, compression zstd)"
    )
"""


@dataclass
class Side:
    """The runs of one program on one set of logs.

    Attributes:
        raw: the logs.
        scratch: the directory for what the program writes.
        runs: the runs that succeeded.
        limit: the memory limit.
        out_bytes: the size of what the last run wrote.
    """

    raw: Raw
    scratch: Path
    runs: list[Run] = field(default_factory=list)
    limit: str = LIMIT
    out_bytes: int = 0

    @property
    def rates(self) -> list[float]:
        """The samples per second of each run."""
        return [self.raw.num_samples / run.seconds for run in self.runs]

    @property
    def peaks(self) -> list[float]:
        """The peak memory of each run, in GiB."""
        return [run.peak_gib for run in self.runs]

    def keep_run(self, run: Run, out: Path) -> float:
        """Keeps a run that succeeded, and the size of what it wrote; returns its seconds.

        Raises:
            SystemExit: the run failed.
        """
        if run.code:
            raise SystemExit(f"exit status {run.code}: {run.stderr}")
        self.runs.append(run)
        self.out_bytes = sum(p.stat().st_size for p in [out, *out.rglob("*")] if p.is_file())
        return run.seconds


def run_recd(raw: Raw, out: Path, scratch: Path, *options: str) -> Run:
    """Runs `recd etl` on the logs. They exist already, so that it generates nothing."""
    command = [str(Path(sys.executable).with_name("recd")), "etl", *options, *raw.overrides, "data.source=sql"]
    command += [f"data.table={out}", f"memory_limit={LIMIT}"]
    return watch_command(command, scratch, NUM_CORES)


def write_table(side: Side) -> float:
    """Writes the table again; returns the seconds."""
    out = side.scratch / "table"
    shutil.rmtree(out, ignore_errors=True)
    seconds = side.keep_run(run_recd(side.raw, out, side.scratch), out)
    num_samples = Manifest.load(out / "train").num_samples
    if num_samples != side.raw.num_samples:
        raise SystemExit(f"{num_samples} samples in the table, {side.raw.num_samples} in the logs")
    return seconds


def verify_table(side: Side) -> Run:
    """Compares the table with the logs, and watches that.

    Raises:
        SystemExit: they differ.
    """
    run = run_recd(side.raw, side.scratch / "table", side.scratch, "--verify")
    if run.code:
        raise SystemExit(f"recd etl --verify: exit status {run.code}: {run.stderr}")
    return run


def sort_logs(side: Side) -> float:
    """Sorts the logs with DuckDB alone, and raises the memory limit until it suffices; returns the seconds."""
    out, spill = side.scratch / "flat.parquet", side.scratch / "spill"
    for limit in LIMITS[LIMITS.index(side.limit) :]:
        side.limit = limit
        arguments = [str(side.raw.path), str(out), limit, str(spill), str(NUM_CORES)]
        run = watch_command([sys.executable, "-c", SORT, *arguments], side.scratch, NUM_CORES)
        shutil.rmtree(spill, ignore_errors=True)
        if not run.code or "Out of Memory" not in run.stderr:
            return side.keep_run(run, out)
        sys.stderr.write(f"DuckDB's sort runs out of memory with {limit}, after {run.seconds:.0f} s\n")
    raise SystemExit(f"DuckDB's sort runs out of memory with {LIMITS[-1]} too")


def result(
    claim: str, values: Sequence[float], side: Side, baseline: str, unit: str, **details: object
) -> measure.Result:
    """A claim's median and extremes, with what was measured in words."""
    raw = side.raw
    preset = raw.path.name.partition("-")[0]
    config = f"{preset}, {raw.num_samples:,} samples, {raw.arrow_bytes / 1e9:.2f} GB as Arrow, "
    config += (
        f"{raw.disk_bytes / 1e6:.0f} MB of raw Parquet; `recd etl`, zstd, memory_limit={LIMIT}, {NUM_CORES} cores, "
    )
    config += f"{len(values)} run{'s' if len(values) > 1 else ''}"
    middle, low, high = (round(f(values), 3) for f in (statistics.median, min, max))
    return measure.Result(claim, middle, low, high, baseline, unit, config, details)


def results_of(ours: Side, theirs: Side, check: Run) -> list[measure.Result]:
    """Rate and memory at the size that the claims name."""
    words = "one DuckDB statement: copy (select * from the logs order by session_id, timestamp) to a flat zstd file"
    words += f", threads={NUM_CORES}, memory_limit={theirs.limit}"
    if theirs.limit != LIMIT:
        words += f" (out of memory with {LIMITS[LIMITS.index(theirs.limit) - 1]})"
    ratios = [b.seconds / a.seconds for a, b in zip(ours.runs, theirs.runs, strict=True)]
    rate = result(
        "etl.rate",
        ours.rates,
        ours,
        words,
        "samples/s",
        baseline_rate=round(statistics.median(theirs.rates)),
        ratio=round(statistics.median(ratios), 2),
        table_MB=round(ours.out_bytes / 1e6, 1),
        baseline_MB=round(theirs.out_bytes / 1e6, 1),
        verify_rate=round(ours.raw.num_samples / check.seconds),
    )
    memory = result(
        "etl.memory",
        ours.peaks,
        ours,
        words,
        "GiB",
        baseline_GiB=round(statistics.median(theirs.peaks), 3),
        baseline_limit=theirs.limit,
        verify_GiB=round(check.peak_gib, 3),
    )
    return [rate, memory]


def measure_larger(raw: Raw, scratch: Path) -> list[measure.Result]:
    """Measures rate and memory at four times the size."""
    side = Side(raw, scratch)
    write_table(side)
    check = verify_table(side)
    words = "none at this size: see etl.rate"
    sizes = {"table_MB": round(side.out_bytes / 1e6, 1)}
    verify_rate = round(raw.num_samples / check.seconds)
    rate = result(f"etl.rate.{TIMES}x", side.rates, side, words, "samples/s", **sizes, verify_rate=verify_rate)
    verify_gib = round(check.peak_gib, 3)
    return [rate, result(f"etl.memory.{TIMES}x", side.peaks, side, words, "GiB", **sizes, verify_GiB=verify_gib)]


def main() -> None:
    parser = measure.build_parser(__doc__)
    parser.add_argument("--dir", type=Path, default=Path(".bench"), help="raw logs, kept (default .bench)")
    parser.add_argument(
        "--samples", type=int, help=f"of the logs (default {SAMPLES}, quick 100000), then {TIMES} times"
    )
    parser.add_argument("--pairs", type=int, help="rounds (default 3, quick 1)")
    parser.add_argument("--data", default="rm1", help=argparse.SUPPRESS)
    options = parser.parse_args()
    num_samples = options.samples or (100_000 if options.quick else SAMPLES)
    raw = raw_logs(options.dir, num_samples, options.data)
    with tempfile.TemporaryDirectory(prefix="etl-", dir=options.dir) as scratch:
        ours, theirs = (Side(raw, Path(scratch, name)) for name in ("ours", "theirs"))
        for side in (ours, theirs):
            side.scratch.mkdir()
        write_table(ours)  # compiles the loops that the cache lacks, and brings the logs into the page cache
        sort_logs(theirs)  # finds the memory limit that suffices
        ours.runs, theirs.runs = [], []
        measure.alternate(
            lambda: write_table(ours), lambda: sort_logs(theirs), options.pairs or (1 if options.quick else 3)
        )
        results = results_of(ours, theirs, verify_table(ours))
        for side in (ours, theirs):
            shutil.rmtree(side.scratch)
            side.scratch.mkdir()
        results += measure_larger(raw_logs(options.dir, TIMES * num_samples, options.data), ours.scratch)
    measure.report(results, options)


if __name__ == "__main__":
    main()
