"""What each feature of the sampled sessions does from one sample to the next.

::

    session     a    a    a    a    b
    history     12   12   123  234  56       ids
    changed     1    0    1    1    1        flags: what would be stored
    new         12        3    4    56       a history that shifts: a window stores only what is new
    d                1 of 3                  neighbours in a session between which it stays

A group with its own query changes where its key does, as in the table that the ETL writes. Its lists are compared row
by row and never expanded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recd_dist.etl.write.history_windows import num_stream_values
from recd_dist.etl.write.repeating_features import RepeatingFeature, chance_of_same
from recd_dist.suggest.sample_columns import SampleColumns, as_column
from recd_dist.suggest.shifts import count_shifts
from recd_dist.table.flat_columns import flag_array_changes

HISTORY_LENGTH = 4
"""Mean length from which a list counts as a history, for attention and windows."""


@dataclass(frozen=True)
class SampledFeature(RepeatingFeature):
    """One feature over the sampled sessions, N samples in clustered order.

    Attributes:
        num_changes: number of changes inside a session.
        num_shifts: number of these changes that only append to a list, while old ids may fall out.
        num_missing: number of values that are missing.
    """

    num_changes: int
    num_shifts: int
    num_missing: int

    @property
    def shift_rate(self) -> float:
        """Share of the changes inside a session that only append; 0 without changes."""
        return self.num_shifts / self.num_changes if self.num_changes else 0.0

    @property
    def is_history(self) -> bool:
        """Whether samples carry lists of ``HISTORY_LENGTH`` ids or more, on average."""
        return self.lengths is not None and self.num_values() >= HISTORY_LENGTH * len(self.flags)


def measure_features(
    columns: SampleColumns, windows: Mapping[str, bool | None] | None = None
) -> Iterator[SampledFeature]:
    """Measures every feature, in the order of the schema.

    Args:
        columns: the columns of the sampled sessions.
        windows: what the config says of a feature's windows, by feature.
    """
    for name in columns.features:
        measure = _measure_linked if columns.origin[name] else _measure
        yield measure(columns, name, (windows or {}).get(name))


def _measure(columns: SampleColumns, name: str, window: bool | None) -> SampledFeature:
    """Measures a feature of the samples' own columns."""
    column = columns.column(name)
    same_session = ~columns.new_session
    changed = flag_array_changes(column) | columns.weight_changes(name)
    is_list = pa.types.is_list(column.type)
    flags = columns.settle_block_starts(changed) | columns.new_row_group
    num_new = 0
    if is_list:
        rows = column.take(pa.array(np.flatnonzero(flags)))
        num_new = num_stream_values(as_column(rows), columns.row_bounds(flags))
    return SampledFeature(
        feature=columns.features[name],
        origin=None,
        stored=columns.stored_type(name),
        lengths=np.diff(column.offsets.to_numpy()).astype(np.int64) if is_list else None,
        flags=flags,
        num_pairs=int(same_session.sum()),
        num_same=int((same_session & ~changed).sum()),
        num_changes=int((same_session & changed).sum()),
        num_shifts=count_shifts(column, same_session) if is_list else 0,
        num_new=num_new,
        num_missing=columns.num_missing(name),
        window=window,
        by_chance=chance_of_same(as_column(column)),
    )


def _measure_linked(columns: SampleColumns, name: str, window: bool | None) -> SampledFeature:
    """Measures a feature of a group that has its own query."""
    origin = str(columns.origin[name])
    flags, row_of = columns.new_row[origin], columns.sample.row_of[origin]
    num_pairs = int((~columns.new_session).sum())
    num_changes = num_shifts = num_new = 0
    for start, end in columns.row_groups():
        rows = columns.stored_rows(name, start, end, flags)
        same_session = ~columns.new_session[start:end][flags[start:end]]
        num_changes += int((flag_array_changes(rows) & same_session).sum())
        if pa.types.is_list(rows.type):
            num_shifts += count_shifts(rows, same_session)
            num_new += num_stream_values(as_column(rows), np.array([0, len(rows)]))
    lengths = None
    if pa.types.is_list(columns.stored_type(name)):
        row_lengths = np.append(np.diff(columns.column(name).offsets.to_numpy()), 0).astype(np.int64)
        lengths = row_lengths[row_of]  # -1, no row, takes the 0 at the end
    return SampledFeature(
        feature=columns.features[name],
        origin=origin,
        stored=columns.stored_type(name),
        lengths=lengths,
        flags=flags,
        num_pairs=num_pairs,
        num_same=num_pairs - num_changes,
        num_changes=num_changes,
        num_shifts=num_shifts,
        num_new=num_new,
        num_missing=columns.num_missing(name),
        window=window,
        by_chance=0.0,
    )
