"""How often each feature repeats from one sample to the next, in order of the table.

::

    session    a  a  a  b  b
    history    x  x  y  z  z        pairs: neighbours in one session (3), of which 2 are the same
    changed    1  0  1  1  0        flags: what would be stored if the feature were a group of its own
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.write.history_windows import num_stream_values
from recd_dist.etl.write.row_groups import Samples
from recd_dist.etl.write.windows_and_encodings import WORTH_WINDOWS
from recd_dist.table.column import Column
from recd_dist.table.fill_nulls import fill_nulls
from recd_dist.table.flat_columns import Flags, Order, flag_changes, take_rows
from recd_dist.table.schema import Feature

_ROW_GROUPS = 8
_DRAWN = 50_000  # rows that by_chance is estimated from
_RARE, _BEYOND_CHANCE = 0.05, 0.5


@dataclass(frozen=True)
class RepeatingFeature:
    """One feature over N samples in clustered order.

    Attributes:
        feature: name and kind of the feature; its group is the one that the config gives it.
        origin: the group with its own query that the feature comes from, or None.
        stored: the type of the feature on disk.
        lengths: int64 [N], number of ids of each sample; None for one value a sample.
        flags: bool [N], whether a stored row begins with a sample if the feature is deduplicated by itself.
        num_pairs: number of neighbouring samples in one session.
        num_same: number of these neighbours that have the same value.
        by_chance: share of any two samples, of whatever sessions, that have the same value (of lists: both empty).
        num_new: number of ids that windows over streams would store; 0 for one value a sample.
        window: whether the config asks for windows; None leaves it to the data.
    """

    feature: Feature
    origin: str | None
    stored: pa.DataType
    lengths: Order | None
    flags: Flags
    num_pairs: int
    num_same: int
    by_chance: float
    num_new: int
    window: bool | None

    @property
    def name(self) -> str:
        """Name of the feature."""
        return self.feature.name

    @property
    def width(self) -> int:
        """Bytes of one value as stored."""
        value = self.stored.value_type if pa.types.is_list(self.stored) else self.stored
        return int(value.bit_width) // 8

    @property
    def num_rows(self) -> int:
        """Number of rows that are stored if the feature is deduplicated by itself."""
        return int(self.flags.sum())

    @property
    def stay_rate(self) -> float:
        """Share d of the neighbours in a session that have the same value; nan without neighbours."""
        return self.num_same / self.num_pairs if self.num_pairs else math.nan

    @property
    def is_of_session(self) -> bool:
        """Whether the feature stays the same more often than by chance.

        A column of few values often has the value of the row before without belonging to the session: hotels without
        a pool follow hotels without a pool. The stay rate must fill half of the room between chance and always
        (Cohen's kappa).
        """
        if not self.num_pairs or not _RARE < self.by_chance < 1:
            return True
        return (self.stay_rate - self.by_chance) / (1 - self.by_chance) >= _BEYOND_CHANCE

    def num_values(self, flags: Flags | None = None) -> int:
        """Number of values in the flagged rows.

        Args:
            flags: bool [N], the rows to count; None counts those of every sample.
        """
        if self.lengths is None:
            return int(len(self.flags) if flags is None else flags.sum())
        return int(self.lengths.sum() if flags is None else self.lengths[flags].sum())

    def has_windows(self, flags: Flags | None = None) -> bool:
        """Whether the feature is stored as windows over streams of ids, by the config or by the rule of the ETL.

        Args:
            flags: bool [N], whether a stored row of the feature's group begins with a sample; None takes its own.
        """
        if self.lengths is None or self.window is False:
            return False
        flags = self.flags if flags is None else flags
        num_values = self.num_values(flags)
        pays = self.num_new + 2 * int(flags.sum()) <= WORTH_WINDOWS * num_values
        return self.window is True or (num_values > 0 and pays)

    def num_stored(self, flags: Flags) -> int:
        """Number of values that a group stores of the feature: those of its rows, or of its streams.

        Args:
            flags: bool [N], whether a stored row of the group begins with a sample.
        """
        return self.num_new if self.has_windows(flags) else self.num_values(flags)


def measure_repeats(
    features: Sequence[Feature],
    types: Mapping[str, pa.DataType],
    samples: Samples,
    windows: Mapping[str, bool | None],
) -> tuple[list[RepeatingFeature], Flags]:
    """Measures features over a few row groups at even distances, of which one is in memory at a time.

    Args:
        features: features of the samples' own columns.
        types: the type of each feature on disk.
        samples: samples in clustered order.
        windows: what the config says of a feature's windows, by feature.

    Returns:
        The features over the N samples of these row groups; and bool [N], whether a session begins with a sample.
    """
    measured = {f.name: _Measured(f, types[f.name], windows.get(f.name)) for f in features}
    groups = list(samples.row_groups())
    chosen = np.linspace(0, len(groups) - 1, min(_ROW_GROUPS, len(groups))).round().astype(int)
    new_session = []
    for number in chosen.tolist():
        group = groups[number]
        new_session.append(group.new_session)
        rows = group.shard.take(pa.array(group.order))
        for feature in measured.values():
            feature.add(rows, group.new_session)
    return [feature.result() for feature in measured.values()], np.concatenate(new_session)


class _Measured:
    """What is known of one feature after some row groups."""

    def __init__(self, feature: Feature, stored: pa.DataType, window: bool | None) -> None:
        self.feature, self.stored, self.window = feature, stored, window
        self.flags: list[Flags] = []
        self.lengths: list[Order] = []
        self.chances: list[float] = []
        self.num_pairs = self.num_same = self.num_new = 0

    def add(self, rows: pa.Table, new_session: Flags) -> None:
        """Adds the samples of one row group, in clustered order."""
        column = fill_nulls(rows, self.feature, lambda row: f"samples query, row {row} of a row group").column
        flags = flag_changes(column, np.arange(len(column)))
        self.flags.append(flags)
        if column.offsets is not None:
            self.lengths.append(column.lengths)
            rows = take_rows(column, np.flatnonzero(flags), column.values.dtype, self.feature.name)
            self.num_new += num_stream_values(rows, np.array([0, len(rows)]))
        self.chances.append(chance_of_same(column))
        self.num_pairs += int((~new_session).sum())
        self.num_same += int((~new_session & ~flags).sum())

    def result(self) -> RepeatingFeature:
        """The feature over all row groups that were added."""
        return RepeatingFeature(
            feature=self.feature,
            origin=None,
            stored=self.stored,
            lengths=np.concatenate(self.lengths) if self.lengths else None,
            flags=np.concatenate(self.flags),
            num_pairs=self.num_pairs,
            num_same=self.num_same,
            by_chance=float(np.mean(self.chances)),
            num_new=self.num_new,
            window=self.window,
        )


def chance_of_same(column: Column) -> float:
    """Probability that two rows drawn at random have the same value; of lists, that both are empty."""
    if column.offsets is not None:
        return float((column.lengths == 0).mean()) ** 2
    values: npt.NDArray[np.generic] = column.values
    _, counts = np.unique(values[:: max(1, len(values) // _DRAWN)], return_counts=True)
    return float(((counts / counts.sum()) ** 2).sum())
