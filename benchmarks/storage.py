"""Bytes on disk: claims storage.zstd, .lz4, .history, .lists, .defaults and .logs (RecD's O1).

    python benchmarks/storage.py [--quick] [--samples N] [--markdown] [--json FILE] [--dir DIR]

The baseline comes from the same raw logs in the same run: the same samples in time order as one flat Parquet file, with
zstd-3, required columns, row groups of 8192 samples, pages of 1 MiB, and for each column the encoding that the table's
own chooser takes on them. Beside it stand: pages of 16 MiB; these, and the levels of zstd that the table's chooser
takes; for each column the best of four encodings over all its rows; the samples in the table's order; and what pyarrow
and DuckDB write without options. Sizes are deterministic, so that one run is enough, and low and high equal the value.
The script checks that every form holds the same samples, by their number and by a checksum of every column: the tables
with the code of `recd etl --verify`, the flat files after reading them back.

The data are the rm1 preset (ours, modelled on RecD's words). They are made once, into --dir, with all samples in one
table.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import measure
import storage_flat as flat
import storage_logs
from rm1 import Raw, raw_logs

from recd_dist.etl.checksum.sample_sums import ROW as WHOLE
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_groups import FeatureSource
from recd_dist.etl.verify.compare import verify
from recd_dist.job.config import load
from recd_dist.job.options import EtlConfig
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import SAMPLE, Kind, Schema

BASELINE = "flat, in time order"
BEST = f"{BASELINE}, each column's best of four"
PAGES = f"{BASELINE}, pages of 16 MiB"
AS_OURS = "pages and levels as ours"
BASELINE_WORDS = (
    "the same samples flat in time order, zstd-3, required columns, encodings by the same chooser, row groups of 8192, "
    "pages of 1 MiB"
)
TABLES = {
    "table, zstd": ("zstd", True),
    "table, lz4": ("lz4", True),
    "table, zstd, no windows": ("zstd", False),
    "table, lz4, no windows": ("lz4", False),
}
"""By name: the compression, and whether histories are stored as windows where the ETL finds that they pay."""


@dataclass(frozen=True)
class Table:
    """A clustered table that equals its source.

    Attributes:
        path: the directory of its one split.
        manifest: its manifest.
        num_bytes: the size of all its files.
        columns: the size of the column chunks in bytes, by directory and column.
    """

    path: Path
    manifest: Manifest
    num_bytes: int
    columns: dict[str, Counter[str]]

    def group_bytes(self, group: str) -> int:
        """The bytes of a group: of its rows, of its streams, and of the samples' references to it."""
        files = [self.columns[group], self.columns.get(f"{group}.stream", Counter())]
        return sum(sum(columns.values()) for columns in files) + self.columns["samples"][f"{group}_row"]


def write_tables(raw: Raw, root: Path) -> tuple[dict[str, Table], dict[str, int]]:
    """Writes the tables, and checks each against its source; returns them and the checksums of the source.

    Raises:
        SystemExit: a table differs from its source.
    """
    made, checksums = {}, dict[str, int]()
    for number, (name, (compression, windows)) in enumerate(TABLES.items()):
        source = raw.source if windows else _without_windows(raw.source)
        out = root / f"table-{number}"
        manifest = etl(source, out, compression=compression, progress=False)["train"]
        verification = verify(source, out, progress=False)
        if not verification.equal:
            raise SystemExit(f"{name}: {verification.to_json()}")
        checksums = {c.column: c.source for c in verification.columns if c.column != WHOLE}
        columns: dict[str, Counter[str]] = {}
        for file in sorted((out / "train").rglob("part-*.parquet")):
            columns.setdefault(file.parent.name, Counter()).update(flat.column_bytes(file))
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        made[name] = Table(out / "train", manifest, size, columns)
    return made, checksums


def _without_windows(source: Source) -> Source:
    """The source, but with whole lists instead of windows; only features of groups could have windows."""
    lists = {f: FeatureSource() for group in (source.groups or {}).values() for f in group.features} | source.features
    grouped = {f for group in (source.groups or {}).values() for f in group.features}
    return replace(source, features={f: replace(o, window=False) if f in grouped else o for f, o in lists.items()})


def write_flat_forms(raw: Raw, table: Path, schema: Schema, scratch: Path) -> dict[str, flat.Flat]:
    """Writes every flat form, one after the other."""
    in_time_order, in_table_order = flat.in_time_order, flat.in_table_order
    whole = {
        BASELINE: flat.write_flat(in_time_order(raw), schema, scratch),
        PAGES: flat.write_flat(in_time_order(raw), schema, scratch, 16 * flat.MIB),
        f"{BASELINE}, {AS_OURS}": flat.write_flat(in_time_order(raw), schema, scratch, 16 * flat.MIB, levels=True),
        "flat, clustered": flat.write_flat(in_table_order(table), schema, scratch),
        f"flat, clustered, {AS_OURS}": flat.write_flat(
            in_table_order(table), schema, scratch, 16 * flat.MIB, levels=True
        ),
        "flat, pyarrow's defaults": flat.pyarrow_defaults(raw, schema, scratch),
        "flat, DuckDB's defaults": flat.duckdb_defaults(raw, schema, scratch),
    }
    each = [flat.write_flat(in_time_order(raw), schema, scratch, encoding=name) for name in flat.ENCODINGS]
    best = Counter({name: min(one.columns[name] for one in each) for name in each[0].columns})
    return whole | {BEST: replace(each[0], columns=best, num_bytes=sum(best.values()))}


def check(forms: Mapping[str, flat.Flat], checksums: Mapping[str, int], num_samples: int) -> None:
    """Refuses a flat form that does not hold the samples of the source.

    Raises:
        SystemExit: a form differs; the message names it and the columns that differ.
    """
    names = {"session_id": "session_id", "request_id": "request_id", "timestamp": "timestamp"}
    for form, one in forms.items():
        differs = [n for n, value in checksums.items() if one.checksums.get(names.get(n, n)) != value]
        if differs or one.num_rows != num_samples:
            raise SystemExit(f"{form}: not the source: {one.num_rows} rows, columns {differs}")


def history(schema: Schema) -> dict[str, list[str]]:
    """The histories: the groups of lists only, with these lists. No preset has a list beside a scalar in a group."""
    lists = {g: [f.name for f in schema.of_group(g) if f.kind is Kind.ids] for g in schema.dedup_groups}
    return {group: names for group, names in lists.items() if len(names) == len(schema.of_group(group))}


def shifting_lists(groups: Mapping[str, list[str]], preset: str) -> dict[str, list[str]]:
    """Those of a preset's lists that grow and shift (in rm1 views, clicks, purchases); others are drawn again."""
    config: EtlConfig = load("etl", [f"data={preset}"])
    made = config.data.synthetic["groups"]
    return {group: names for group, names in groups.items() if made.get(group, {}).get("update") == "shift"}


def _lists(
    claim: str, groups: Mapping[str, list[str]], table: Table, baseline: flat.Flat, words: str
) -> measure.Result:
    """A claim on the lists of some groups, with their rows' numbers and the samples' references to them."""
    before = sum(baseline.columns[name] for names in groups.values() for name in names)
    after = sum(table.group_bytes(group) for group in groups)
    windowed = [f.name for f in table.manifest.schema.features if f.window and f.group in groups]
    what = f"{words}; lists of {', '.join(groups)}, with row numbers and references; windows: {', '.join(windowed)}"
    return _ratio(claim, before, after, f"{BASELINE_WORDS}; these columns only", what)


def results_of(raw: Raw, made: Mapping[str, Table], forms: Mapping[str, flat.Flat]) -> list[measure.Result]:
    """The results of the claims on size."""
    schema, baseline = next(iter(made.values())).manifest.schema, forms[BASELINE]
    preset = raw.path.name.partition("-")[0]
    words = f"{preset}, {raw.num_samples:,} samples, one table; one run: sizes are deterministic"
    results = []
    for codec in ("zstd", "lz4"):
        size = made[f"table, {codec}"].num_bytes
        results.append(_ratio(f"storage.{codec}", baseline.num_bytes, size, BASELINE_WORDS, words))
        for name, form in (("best_of_four", BEST), ("16_MiB_pages", PAGES), ("as_ours", f"{BASELINE}, {AS_OURS}")):
            results[-1].details[f"baseline_{name}"] = round(forms[form].num_bytes / size, 2)
    for claim, groups in (
        ("storage.history", shifting_lists(history(schema), preset)),
        ("storage.lists", history(schema)),
    ):
        results.append(_lists(claim, groups, made["table, zstd"], baseline, words))
    for claim, form in (("storage.defaults", "pyarrow"), ("storage.defaults.duckdb", "DuckDB")):
        size = forms[f"flat, {form}'s defaults"].num_bytes
        results.append(_ratio(claim, size, made["table, zstd"].num_bytes, f"{form} without options", words))
    return results


def _ratio(claim: str, baseline: int, ours: int, words: str, config: str) -> measure.Result:
    value = round(baseline / ours, 3)
    sizes = {"ours_MB": round(ours / 1e6, 3), "baseline_MB": round(baseline / 1e6, 3)}
    return measure.Result(claim, value, value, value, words, "ratio", config, sizes)


def logs_result(raw: Raw, cases: Mapping[str, list[dict[str, float]]]) -> measure.Result:
    """The result of O1: the median over numbers of shards, block sizes and kinds of message, with the extremes."""
    ratios = [row["ratio"] for rows in cases.values() for row in rows]
    shards = ", ".join(map(str, storage_logs.SHARDS))
    return measure.Result(
        "storage.logs",
        round(statistics.median(ratios), 3),
        round(min(ratios), 3),
        round(max(ratios), 3),
        "the same messages dealt to as many shards at random, in order of arrival, in the same blocks",
        "ratio",
        f"{raw.num_samples:,} samples dealt by session; zstd-3 over whole blocks of 1 and 4 MiB; "
        f"{shards} shards; messages as {' and '.join(cases)}; median and range of these",
        {"cases": len(ratios)},
    )


def show(raw: Raw, made: Mapping[str, Table], forms: Mapping[str, flat.Flat], markdown: bool) -> None:
    """Prints a table of every form, and one of the groups."""
    ours = made["table, zstd"].num_bytes
    sizes = {"raw files": raw.disk_bytes, **{name: table.num_bytes for name, table in made.items()}}
    sizes |= {name: form.num_bytes for name, form in forms.items()}
    rows = [
        [name, f"{size / 1e6:.2f}", f"{size / raw.num_samples:.1f}", f"{size / ours:.2f}"]
        for name, size in sorted(sizes.items(), key=lambda item: item[1])
    ]
    head = ["form", "MB", "bytes/sample", "/ table, zstd"]
    sys.stdout.write(measure.table(head, rows, markdown=markdown) + "\n")
    schema = made["table, zstd"].manifest.schema
    rows = []
    for group in schema.dedup_groups:
        before = sum(forms[BASELINE].columns[f.name] for f in schema.of_group(group))
        cells = [f"{before / made[name].group_bytes(group):.2f}" for name in TABLES]
        rows.append([group, f"{before / 1e6:.2f}", *cells, f"{made['table, zstd'].manifest.dedup_factor(group):.2f}"])
    own = [f.name for f in schema.of_group(SAMPLE)]
    before = sum(forms[BASELINE].columns[name] for name in own)
    after = [sum(made[name].columns["samples"][column] for column in own) for name in TABLES]
    rows.append([SAMPLE, f"{before / 1e6:.2f}", *(f"{before / size:.2f}" for size in after), "1.00"])
    head = ["group", "flat MB", *(f"/ {name}" for name in TABLES), "samples per row"]
    sys.stdout.write(measure.table(head, rows, markdown=markdown) + "\n")


def show_logs(cases: Mapping[str, list[dict[str, float]]], markdown: bool) -> None:
    """Prints a table of every case of O1."""
    rows = [
        [form, str(row["shards"]), str(row["block_MiB"])]
        + [f"{row[name]:.2f}" for name in ("plain_MB", "random_MB", "session_MB", "ratio")]
        for form, of_form in cases.items()
        for row in of_form
    ]
    head = ["messages", "shards", "block, MiB", "plain, MB", "at random, MB", "by session, MB", "ratio"]
    sys.stdout.write(measure.table(head, rows, markdown=markdown) + "\n")


def main() -> None:
    parser = measure.build_parser(__doc__)
    parser.add_argument("--dir", type=Path, default=Path(".bench"), help="raw logs, kept (default .bench)")
    parser.add_argument("--samples", type=int, help="of the logs (default 400000, quick 50000)")
    parser.add_argument("--data", default="rm1", help=argparse.SUPPRESS)
    options = parser.parse_args()
    raw = raw_logs(options.dir, options.samples or (50_000 if options.quick else 400_000), options.data)
    with tempfile.TemporaryDirectory(prefix="storage-", dir=options.dir) as scratch:
        made, checksums = write_tables(raw, Path(scratch))
        first = next(iter(made.values()))
        forms = write_flat_forms(raw, first.path, first.manifest.schema, Path(scratch))
        check(forms, checksums, raw.num_samples)
        shutil.rmtree(first.path.parent)
        cases = {form: storage_logs.measure_logs(raw, form) for form in ("json", "arrow")}
        show(raw, made, forms, options.markdown)
        show_logs(cases, options.markdown)
        measure.report([*results_of(raw, made, forms), logs_result(raw, cases)], options)


if __name__ == "__main__":
    main()
