"""Listening events on disk and in a batch: this table against gathering the history of each sample anew.

    python benchmarks/yambda.py [--quick] [--markdown] [--json FILE] [--dir DIR]

The log is made up in the shape of Yandex's Yambda (configs/data/yambda.yaml). The baseline is what MLPerf Training's
DLRMv4 reference does: every sample carries its own last 500 events, and a batch holds a copy for each of its samples.
Both sides have the same three lists (track, action, minute) and the same values; each event takes 4 bytes a list.

disk      lists of the table's Parquet files, and the same samples as flat Parquet (zstd-3, row groups of 8192) in the
          order of time and in that of the table, where a compressor finds most repetitions
decoded   ids that the reader takes out of the files for the whole split
batch     ids, lengths and inverses of batches in the order of the table
distinct  tracks that travel for these batches: each distinct one once, or one for each place in a list
step      seconds of a training step (experiment=yambda, HSTU, 2 gloo ranks of one thread) against dedup=off, by
          benchmarks/step.py: both in the same processes and by turns, on the same batches in memory
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import measure
import step

from recd_dist.cli import main as recd
from recd_dist.table.flat import flat_view
from recd_dist.table.manifest import Manifest

CONFIGS = {"yambda": ("history", "recent"), "yambda_moving": ("history",)}
COLUMNS = ("item", "action", "time")
BATCH = 1024
BASELINE = "the last 500 events gathered for each sample"


def make_table(config: str, directory: Path, overrides: list[str]) -> Path:
    """Makes the table of a config and returns the directory of its train split."""
    out = directory / "-".join([config, *(o.partition("=")[2] for o in overrides)])
    paths = [f"data.path={directory}/raw", f"data.table={out}"]
    if not (out / "train").is_dir() and recd(["etl", f"data={config}", *paths, *overrides]):
        raise SystemExit(1)
    return out / "train"


def list_bytes(table: Path, groups: tuple[str, ...]) -> int:
    """The size of everything that the table stores for its lists: rows, windows and streams."""
    return sum(f.stat().st_size for g in groups for d in (g, f"{g}.stream") for f in (table / d).glob("*.parquet"))


def flat_bytes(table: Path, order: str) -> int:
    """The size of a flat Parquet file in which every sample has its own lists."""
    columns = ", ".join(f"history_{c}" for c in COLUMNS)
    with tempfile.NamedTemporaryFile(suffix=".parquet", dir=table.parent) as file:
        duckdb.sql(
            f"copy (select {columns} from ({flat_view(table)}) order by {order}) to '{file.name}' "
            "(format parquet, compression zstd, compression_level 3, row_group_size 8192)"
        )
        return Path(file.name).stat().st_size


def count_ids(table: Path, groups: tuple[str, ...]) -> dict[str, float]:
    """Ids of lists that are stored, decoded, and held by batches; tracks of batches, all and distinct."""
    manifest = Manifest.load(table)
    names = [f"{g}_{c}" for g in groups for c in COLUMNS]
    found = {"expanded": sum(manifest.features[n].num_values_expanded for n in names), "stored": 0.0}
    for g in groups:
        sums = " + ".join(f"sum(len({g}_{c}))" for c in COLUMNS)
        found["stored"] += float(duckdb.sql(f"select {sums} from '{table}/{g}.stream/*.parquet'").fetchall()[0][0])
    found |= {"batch_bytes": 0.0, "tracks": 0.0, "distinct": 0.0}
    for group in groups:
        rows = f"select sample_id // {BATCH} as batch, {group}_row as row, count(*) as repeats"
        rows += f" from '{table}/samples/*.parquet' group by all"
        lists = f"select {group}_row as row, any_value({group}_item) as items from (select * from ({flat_view(table)}) "
        lists += f"join (select sample_id, {group}_row from '{table}/samples/*.parquet') using (sample_id)) group by 1"
        ids, num_rows, tracks = duckdb.sql(
            f"select sum(len(items)), count(*), sum(len(items) * repeats) from ({rows}) join ({lists}) using (row)"
        ).fetchall()[0]
        found["batch_bytes"] += 4 * (len(COLUMNS) * (float(ids) + num_rows) + manifest.num_samples)
        found["tracks"] += float(tracks)
    every = " union all ".join(f"select sample_id, unnest({g}_item) as item from flat" for g in groups)
    found["distinct"] = float(
        duckdb.sql(
            f"with flat as (select * from ({flat_view(table)})) select sum(n) from "
            f"(select sample_id // {BATCH} as batch, count(distinct item) as n from ({every}) group by 1)"
        ).fetchall()[0][0]
    )
    return found


def compare(config: str, groups: tuple[str, ...], table: Path, gathered: dict[str, float]) -> list[measure.Result]:
    """The ratios of one table: the baseline's bytes over its own."""
    own, manifest = count_ids(table, groups), Manifest.load(table)
    ours = {
        "disk.time": (list_bytes(table, groups), gathered["time"]),
        "disk.sorted": (list_bytes(table, groups), gathered["sorted"]),
        "decoded": (4 * own["stored"], gathered["decoded"]),
        "batch": (own["batch_bytes"], gathered["batch"]),
        "distinct": (4 * own["distinct"], gathered["tracks"]),
    }
    results = []
    for name, (mine, baseline) in ours.items():
        ratio = round(baseline / mine, 2)
        shown: dict[str, Any] = {"ours_MB": round(mine / 1e6, 3), "baseline_MB": round(baseline / 1e6, 3)}
        words = (
            f"{table.parent.name}, {manifest.num_samples} samples, dedup factor {manifest.dedup_factor('history'):.2f}"
        )
        results.append(measure.Result(f"{config}.{name}", ratio, ratio, ratio, BASELINE, "x", words, shown))
    return results


def measure_step(directory: Path, users: list[str], num_pairs: int) -> measure.Result:
    """Whole training steps on the table with a partition a day."""
    table = make_table("yambda", directory, users).parent
    overrides = ["experiment=yambda", f"data.path={directory}/raw", f"data.table={table}", *users]
    chosen = {"pairs": num_pairs, "block": 2, "num_batches": 8}
    found = measure.run_ranks(step.__file__, chosen, overrides)
    words = f"{' '.join(['experiment=yambda', *users])}, 256 samples a rank"
    return step.results_of("yambda", step.Case((), (), words), found)[0]


def main() -> int:
    """Prints ratios of bytes and of seconds; sizes are deterministic, so one run is enough."""
    parser: argparse.ArgumentParser = measure.build_parser(__doc__)
    parser.add_argument("--dir", type=Path, help="keeps the tables there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="yambda_") as scratch:
        directory = (options.dir or Path(scratch)).resolve()
        users = ["data.synthetic_events.num_users=20"] if options.quick else []
        results = [measure_step(directory, users, 5 if options.quick else 9)]
        for way, partition in (("days", []), ("whole", ["data.partition=null"])):
            tables = {c: make_table(c, directory, [*partition, *users]) for c in CONFIGS}
            flat = tables["yambda_moving"]
            expanded = count_ids(flat, ("history",))
            gathered = {
                "time": flat_bytes(flat, "timestamp, sample_id"),
                "sorted": flat_bytes(flat, "sample_id"),
                "decoded": 4 * expanded["expanded"],
                "batch": 4 * (expanded["expanded"] + len(COLUMNS) * Manifest.load(flat).num_samples),
                "tracks": 4 * expanded["tracks"],
            }
            for config, groups in CONFIGS.items():
                results += compare(
                    f"{way}.{config}", groups, tables[config], {k: float(v) for k, v in gathered.items()}
                )
        measure.report(results, options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
