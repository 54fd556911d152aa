"""``recd etl --verify``: is the table the source? Counts and checksums of every column, both sides read as streams.

::

    source   7 samples   sum of hashes of `history`   sum of hashes of whole samples
    table    6 samples   "                            "                                 as a user's SQL sees it
    left out 1 sample    "                            "                                 noted by the ETL, by reason

    source = table + left out, column by column; a value that moved to another row shows in the whole samples only

Checksums do not depend on order, so that nothing is sorted and nothing held: DuckDB joins one part of the table at a
time within the memory limit; beside it stand 40 bytes for each row of a group with its own query.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from recd_dist.errors import DataError, nearest
from recd_dist.etl.budget import Budget
from recd_dist.etl.checksum.sample_sums import ROW, Sums, compared_keys
from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.source import duckdb_sql as engine
from recd_dist.etl.source.inspection import TEST, Inspection, inspected
from recd_dist.etl.source.source import Source
from recd_dist.etl.verify.example import example_of
from recd_dist.etl.verify.sides import ALL, Layout, SourceSide, TableSide
from recd_dist.table.flat import string_literal
from recd_dist.table.location import Location
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import SESSION_ID, Feature, Kind, Schema

CHECKSUMS = "dropped_checksums"
"""Of ``Manifest.source``: checksum by column of the samples left out, by reason; the same in every split's manifest."""

_COUNTED_ONLY = ("session_cut",)  # of Manifest.dropped: nothing was left out; so is what ends in _kept
_MAX_SHOWN = 12


@dataclass(frozen=True)
class Compared:
    """One column of one split (:data:`ALL` where splits are not told apart).

    Attributes:
        column: its name; ``row`` for the whole samples.
        source: checksum of the source, less that of what was left out.
        table: checksum of the table.
    """

    split: str
    column: str
    source: int
    table: int

    @property
    def equal(self) -> bool:
        """Both sides hold the same values, as far as 64 bits can tell."""
        return self.source == self.table


@dataclass(frozen=True)
class Verification:
    """What came of comparing a table with its source.

    Attributes:
        num_samples: per split, of the source (less what was left out) and of the table.
        columns: every column of every split, whole samples last.
        num_dropped: samples that policies left out.
        skipped: what was not compared, and why.
        example: a sample that differs, in words; empty where none is at hand.
    """

    num_samples: dict[str, tuple[int, int]]
    columns: tuple[Compared, ...]
    num_dropped: int
    skipped: tuple[str, ...]
    example: str

    @property
    def equal(self) -> bool:
        """The table is the source."""
        return all(a == b for a, b in self.num_samples.values()) and all(c.equal for c in self.columns)

    @property
    def different(self) -> tuple[str, ...]:
        """Names of the columns that differ, ``row`` left out."""
        return tuple(dict.fromkeys(c.column for c in self.columns if not c.equal and c.column != ROW))

    def render(self) -> Group:
        """One line when all is equal, else what differs."""
        names = {c.column for c in self.columns} - {ROW}
        in_table = sum(count for _, count in self.num_samples.values())
        lines: list[Any] = []
        if self.equal:
            left = f"; {self.num_dropped:,} left out, as noted in the manifest" if self.num_dropped else ""
            lines.append(Text(f"{len(names)} columns of {in_table:,} samples equal{left}"))
        else:
            lines.append(Text(f"table and source differ: {self._what(len(names))}"))
            if self.different:
                lines.append(self._table())
            if self.example:
                lines.append(Text(self.example))
        return Group(*lines, *(Text(f"not compared: {text}") for text in self.skipped))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; checksums as hexadecimal text, which every reader of JSON keeps whole."""
        columns = [
            {"split": c.split or "all", "column": c.column, "source": f"{c.source:016x}", "table": f"{c.table:016x}"}
            | {"equal": c.equal}
            for c in self.columns
        ]
        counts = {split or "all": {"source": a, "table": b} for split, (a, b) in self.num_samples.items()}
        rest = {"num_dropped": self.num_dropped, "skipped": list(self.skipped), "example": self.example}
        return {"equal": self.equal, "num_samples": counts, "columns": columns, **rest}

    def _what(self, num_columns: int) -> str:
        found = [
            f"{b:,} samples instead of {a:,}{f' in {split}' if split else ''}"
            for split, (a, b) in self.num_samples.items()
            if a != b
        ]
        if self.different:
            found.append(f"{len(self.different)} of {num_columns} columns")
        elif not found:
            found.append("every column holds the same values, but not in the same samples")
        return ", ".join(found)

    def _table(self) -> Table:
        shown = Table("column", "split", "checksum of the source", "of the table", box=None, pad_edge=False)
        different = [c for c in self.columns if not c.equal and c.column != ROW]
        for c in different[:_MAX_SHOWN]:
            shown.add_row(c.column, c.split or "all", f"{c.source:016x}", f"{c.table:016x}")
        if len(different) > _MAX_SHOWN:
            shown.add_row(f"and {len(different) - _MAX_SHOWN} more")
        return shown


def verify(source: Source, table_root: Location, *, memory_limit: str = "1GB", progress: bool = True) -> Verification:
    """Compares the tables of a source with it.

    Args:
        source: what they were made from; of a table that was appended to, a source of everything in it.
        table_root: directory of the tables, one per split.
        memory_limit: of the whole run; DuckDB spills beside the tables.
        progress: show a progress bar.

    Raises:
        DataError: no table there, one that cannot be read, or a source that has other columns now.
        ConfigError: a memory limit that is no size, or too small.
    """
    budget = Budget.of(memory_limit)
    tables = {split: (table_root / split, Manifest.load(table_root / split)) for split in source.splits}
    manifest = next(iter(tables.values()))[1]
    left_out = _left_out(manifest)
    parent = table_root.parent
    place = parent if isinstance(parent, Path) and os.access(parent, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix=".verify-", dir=place) as work,
        engine.connect(f"{budget.engine_bytes + budget.shard_bytes}B", spill=Path(work)) as connection,
        _Bar(progress, sum(m.num_samples for _, m in tables.values()), left_out.num_samples) as bar,
    ):
        connection.execute("set preserve_insertion_order = false")
        found = inspected(source, connection)
        names = engine.described(connection, found.samples, "samples query")
        layout = _layout(found, manifest.schema, compared_keys(source))
        lookups = {g: Lookup.of_query(g, connection, found.groups[g], Path(work, f"{g}.rows")) for g in layout.own}
        splits, sessions = _splits(source, tables, layout, TEST in names, left_out, connection)
        ours = TableSide(connection, tables, layout, splits)
        theirs = SourceSide(connection, found, layout, lookups, splits, sessions)
        in_source, in_table = theirs.sums(bar("source")), ours.sums(bar("table"))
        skipped = _without(in_source[splits[0]], left_out, layout)
        result = _result(in_source, in_table, left_out.num_samples, skipped)
        if result.equal or left_out.num_samples:
            return result
        text = example_of(theirs, ours, _differing_bucket(in_source, in_table), bar)
        return _result(in_source, in_table, 0, skipped, text)


def _left_out(manifest: Manifest) -> Sums:
    """Checksums of the samples that policies left out, as the ETL noted them."""
    noted: Mapping[str, Mapping[str, int]] = manifest.source.get(CHECKSUMS, {})
    total, num_reasons = Sums(), 0
    columns: dict[str, list[int]] = {}
    for reason, count in manifest.dropped.items():
        if not count or reason in _COUNTED_ONLY or reason.endswith("_kept"):
            continue
        if reason not in noted:
            raise DataError(
                f"the table leaves out {count:,} samples ({reason}) and has no checksums of them, so it cannot be "
                "compared; make it again with `recd etl`"
            )
        num_reasons += 1
        total.num_samples += count
        for name, value in noted[reason].items():
            columns.setdefault(name, []).append(value)
    for name, values in columns.items():
        if len(values) == num_reasons:  # a column that is noted for some reasons only is of no use
            total.add_sum(name, sum(values))
    return total


def _layout(found: Inspection, schema: Schema, keys: Mapping[str, str]) -> Layout:
    """What is compared, if both sides have the same columns.

    Raises:
        DataError: every column that only one of them has, or that is a number here and ids there.
    """
    there = [f.name for f in found.schema.features]
    mistakes = [
        f"feature '{f.name}' is in the table, not in the source{nearest(f.name, there)}"
        for f in schema.features
        if f.name not in there
    ]
    for f in found.schema.features:
        if f.name not in schema:
            mistakes.append(f"feature '{f.name}' is in the source, not in the table")
        elif (f.kind is Kind.dense) != (schema[f.name].kind is Kind.dense) or f.weights != schema[f.name].weights:
            mistakes.append(f"feature '{f.name}' is {f.kind} in the source and {schema[f.name].kind} in the table")
    if found.schema.labels != schema.labels:
        mistakes.append(f"labels are {list(found.schema.labels)} in the source and {list(schema.labels)} in the table")
    if mistakes:
        raise DataError(
            "the table was made from another description of the source: "
            + "\n  ".join(mistakes)
            + "\n  verify with the options that made it, or make it again with `recd etl`"
        )
    own: dict[str, tuple[Feature, ...]] = {}
    for feature in found.schema.features:
        if feature.group in found.groups:
            own[feature.group] = (*own.get(feature.group, ()), schema[feature.name])
    return Layout(schema, keys, own)


def _splits(
    source: Source,
    tables: Mapping[str, tuple[Location, Manifest]],
    layout: Layout,
    has_test: bool,
    left_out: Sums,
    connection: duckdb.DuckDBPyConnection,
) -> tuple[tuple[str, ...], npt.NDArray[np.int64] | None]:
    """Splits that can be told apart in the source, and the sessions of the test split where no column says them."""
    if left_out.num_samples or len(tables) == 1:
        return (ALL,) if left_out.num_samples else source.splits, None
    if has_test:
        return source.splits, None
    if SESSION_ID not in layout.keys:
        return (ALL,), None
    table, manifest = tables[source.splits[1]]
    files = ", ".join(string_literal(str(table / part.samples.path)) for part in manifest.parts)
    query = f"select distinct {SESSION_ID} from read_parquet([{files}]) order by 1"
    return source.splits, np.asarray(connection.execute(query).fetchnumpy()[SESSION_ID], np.int64)


def _without(in_source: Sums, left_out: Sums, layout: Layout) -> tuple[str, ...]:
    """Subtracts what was left out; columns of which it is not known are not compared."""
    if not left_out.num_samples:
        return ()
    in_source.num_samples -= left_out.num_samples
    unknown = [name for name in (*layout.columns, ROW) if name not in left_out.columns]
    for name in unknown:
        in_source.columns.pop(name)
    for name in in_source.columns:
        in_source.add_sum(name, -left_out.columns[name])
    return (f"{', '.join(unknown)}: not noted of the samples left out",) if unknown else ()


def _result(
    in_source: Mapping[str, Sums],
    in_table: Mapping[str, Sums],
    num_dropped: int,
    skipped: tuple[str, ...],
    example: str = "",
) -> Verification:
    counts = {split: (sums.num_samples, in_table[split].num_samples) for split, sums in in_source.items()}
    columns = [
        Compared(split, name, value, in_table[split].columns.get(name, 0))
        for split, sums in in_source.items()
        for name, value in sums.columns.items()
    ]
    columns.sort(key=lambda c: c.column == ROW)
    return Verification(counts, tuple(columns), num_dropped, skipped, example)


def _differing_bucket(in_source: Mapping[str, Sums], in_table: Mapping[str, Sums]) -> int:
    """The first bucket of sessions whose samples are not the same; -1 where the splits alone differ."""
    total = np.zeros_like(next(iter(in_source.values())).buckets)
    for split, sums in in_source.items():
        total += sums.buckets - in_table[split].buckets
    return int(np.argmax(total != 0)) if total.any() else -1


class _Bar(AbstractContextManager["_Bar"]):
    """Progress on stderr: calling it begins a pass over one side."""

    def __init__(self, shown: bool, num_samples: int, num_dropped: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not shown, refresh_per_second=4)
        self._total = {"source": num_samples + num_dropped, "table": num_samples}

    def __call__(self, side: str) -> Callable[[int], None]:
        self._bar.start()
        task = self._bar.add_task(side, total=self._total[side])
        return lambda num_rows: self._bar.advance(task, num_rows)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
