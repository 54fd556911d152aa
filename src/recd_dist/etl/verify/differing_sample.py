"""A sample that differs between source and table, described in words.

Both sides are read once more, and the samples of one bucket of sessions are kept in memory.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.checksum.row_hashes import Hashes
from recd_dist.etl.checksum.sample_sums import feature_hashes, key_hashes
from recd_dist.etl.verify.sides import Comparison, SourceSide, TableSide, read_bucket

_MAX_TEXT = 120

Bar = Callable[[str], Callable[[int], None]]
"""Begins a pass over a side; what it returns is called with numbers of samples."""


def describe_difference(source: SourceSide, table: TableSide, bucket: int, bar: Bar) -> str:
    """Describes the first sample of a bucket that one side has and the other lacks.

    Args:
        source: the source's samples.
        table: the table's samples.
        bucket: the bucket whose samples differ; -1 if samples only lie in different splits.
        bar: shows the progress.

    Returns:
        The description; empty where no sample can be named.
    """
    if bucket < 0:
        return "samples lie in another split than the source says"
    in_source = read_bucket(source, bucket, bar("source"))
    in_table = read_bucket(table, bucket, bar("table"))
    theirs = _Samples(source.comparison, *in_source) if in_source else None
    ours = _Samples(source.comparison, *in_table) if in_table else None
    if theirs is None or ours is None:
        only = theirs or ours
        return only.describe(0, "only in the source" if ours is None else "only in the table") if only else ""
    only_ours, only_theirs = ours.not_in(theirs), theirs.not_in(ours)
    if not len(only_theirs):
        return ours.describe(int(only_ours[0]), "only in the table") if len(only_ours) else ""
    row = int(only_theirs[0])
    twins = [int(other) for other in only_ours if theirs.key(row) == ours.key(int(other))]
    if not twins:
        return theirs.describe(row, "only in the source")
    twin = min(twins, key=lambda other: len(theirs.differing_columns(row, ours, other)))
    names = theirs.differing_columns(row, ours, twin)
    shown = "; ".join(f"{n} is {theirs.value(n, row)} in the source, {ours.value(n, twin)} in the table" for n in names)
    return f"for example {theirs.key_text(row)}: {shown}"


class _Samples:
    """Samples of one side, in memory.

    Args:
        comparison: what is compared.
        table: the samples, with every column that is compared.
        rows: uint64 [N], the hash of each whole sample.
    """

    def __init__(self, comparison: Comparison, table: pa.Table, rows: Hashes) -> None:
        self.comparison, self.table, self.rows = comparison, table, rows
        self.hashes = {key: key_hashes(table[key]) for key in comparison.keys}
        features = (*comparison.sample_features, *(f for features in comparison.own.values() for f in features))
        self.hashes |= {f.name: feature_hashes(table, f) for f in features}

    def not_in(self, other: "_Samples") -> npt.NDArray[np.int64]:
        """Rows of the samples that the other side lacks, or has less often; int64 in ascending order."""
        order = np.argsort(self.rows, kind="stable")
        ordered = self.rows[order]
        times = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)  # how often the sample came before
        there = np.sort(other.rows)
        counts = np.searchsorted(there, ordered, side="right") - np.searchsorted(there, ordered)
        return np.sort(order[times >= counts])

    def key(self, row: int) -> tuple[int, ...]:
        """The hashes of the keys that are compared, by which samples are told apart."""
        return tuple(int(self.hashes[key][row]) for key in self.comparison.keys)

    def differing_columns(self, row: int, other: "_Samples", twin: int) -> list[str]:
        """Names of the columns in which a sample differs from a sample of the other side."""
        return [name for name, column in self.hashes.items() if column[row] != other.hashes[name][twin]]

    def value(self, name: str, row: int) -> str:
        """A value as text, cut where it is long."""
        text = str(self.table[name][row].as_py())
        return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 3]}..."

    def key_text(self, row: int) -> str:
        """The keys of a sample as text."""
        return ", ".join(f"{key} {self.table[key][row].as_py()}" for key in self.comparison.keys) or "a sample"

    def describe(self, row: int, what: str) -> str:
        """Describes a sample that the other side lacks."""
        labels = ", ".join(f"{name} {self.value(name, row)}" for name in self.comparison.schema.labels)
        return f"for example {self.key_text(row)} ({labels}): {what}"
