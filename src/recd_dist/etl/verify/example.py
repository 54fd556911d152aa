"""A sample that differs, in words: both sides are read once more, and one bucket of sessions is kept."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from recd_dist.etl.checksum.row_hashes import Hashes
from recd_dist.etl.checksum.sample_sums import feature_hashes, key_hashes
from recd_dist.etl.verify.sides import Layout, SourceSide, TableSide, of_bucket

_MAX_TEXT = 120

Bar = Callable[[str], Callable[[int], None]]


def example_of(source: SourceSide, table: TableSide, bucket: int, bar: Bar) -> str:
    """The first sample of a bucket that one side has and the other has not.

    Args:
        source: one side.
        table: the other.
        bucket: whose samples differ; -1 for none.
        bar: begins a pass over a side.

    Returns:
        Text, empty where no sample can be named.
    """
    if bucket < 0:
        return "samples lie in another split than the source says"
    found = of_bucket(source, bucket, bar("source")), of_bucket(table, bucket, bar("table"))
    theirs, ours = (_Rows(source.layout, *side) if side else None for side in found)
    if theirs is None or ours is None:
        only = theirs or ours
        return only.words(0, "only in the source" if ours is None else "only in the table") if only else ""
    mine, yours = ours.not_in(theirs), theirs.not_in(ours)
    if not len(yours):
        return ours.words(int(mine[0]), "only in the table") if len(mine) else ""
    row = int(yours[0])
    twins = [int(other) for other in mine if theirs.key(row) == ours.key(int(other))]
    if not twins:
        return theirs.words(row, "only in the source")
    twin = min(twins, key=lambda other: len(theirs.differing(row, ours, other)))
    names = theirs.differing(row, ours, twin)
    shown = "; ".join(f"{n} is {theirs.value(n, row)} in the source, {ours.value(n, twin)} in the table" for n in names)
    return f"for example {theirs.place(row)}: {shown}"


class _Rows:
    """Samples of one side, in memory."""

    def __init__(self, layout: Layout, table: pa.Table, rows: Hashes) -> None:
        self.layout, self.table, self.rows = layout, table, rows
        self.hashes = {key: key_hashes(table[key]) for key in layout.keys}
        features = (*layout.plain, *(f for features in layout.own.values() for f in features))
        self.hashes |= {f.name: feature_hashes(table, f) for f in features}

    def not_in(self, other: "_Rows") -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Rows that the other side has not, or not so often."""
        order = np.argsort(self.rows, kind="stable")
        ordered = self.rows[order]
        times = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)  # how often it came before
        there = np.sort(other.rows)
        counts = np.searchsorted(there, ordered, side="right") - np.searchsorted(there, ordered)
        return np.sort(order[times >= counts])

    def key(self, row: int) -> tuple[int, ...]:
        """What tells samples apart: the keys that are compared."""
        return tuple(int(self.hashes[key][row]) for key in self.layout.keys)

    def differing(self, row: int, other: "_Rows", twin: int) -> list[str]:
        """Columns in which two samples differ."""
        return [name for name, column in self.hashes.items() if column[row] != other.hashes[name][twin]]

    def value(self, name: str, row: int) -> str:
        """One value as text, not too long."""
        text = str(self.table[name][row].as_py())
        return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 3]}..."

    def place(self, row: int) -> str:
        """The keys of a sample as text."""
        return ", ".join(f"{key} {self.table[key][row].as_py()}" for key in self.layout.keys) or "a sample"

    def words(self, row: int, what: str) -> str:
        """A sample that has no counterpart."""
        labels = ", ".join(f"{name} {self.value(name, row)}" for name in self.layout.schema.labels)
        return f"for example {self.place(row)} ({labels}): {what}"
