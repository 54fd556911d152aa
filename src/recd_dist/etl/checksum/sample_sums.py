"""Checksums of samples by column, which must agree between source and table.

::

    session  label  history  item        each value has a hash (row_hashes.py), each column a sum of hashes,
       s       y       h      i    ->    and each sample a hash of (s, y, h, i) together, whose sum is that of `row`

Columns enter the hash of a sample in the alphabetic order of their names. A group with its own query enters as one
column, the hash of its features: so the source's side hashes each row of such a group once, however many samples carry
it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.checksum.row_hashes import Hashes, column_checksum, combine_hashes, row_hashes
from recd_dist.etl.source.inspection import REQUEST, SESSION, TIMESTAMP
from recd_dist.etl.source.source import Source
from recd_dist.table.schema import REQUEST_ID, SESSION_ID, Feature, Kind
from recd_dist.table.schema import TIMESTAMP as TIME

ROW = "row"
"""The name under which the checksum of whole samples stands among those of the columns; no feature can have it."""

NUM_BUCKETS = 4096
"""Sums of whole samples are kept for this many groups of sessions, so that a difference leads to a session."""
_BITS = np.uint64(52)  # the upper 12 bits of a hash are its bucket


def compared_keys(source: Source) -> dict[str, str]:
    """The key columns of the table that the source has too, with their names in the normalised samples query.

    Sessions that the ETL tells apart by gaps, or makes up, do not stand in the source and cannot be compared.
    """
    names = {}
    if source.session_column is not None and source.gap_us is None:
        names[SESSION_ID] = SESSION
    if "request" in source.keys:
        names[REQUEST_ID] = REQUEST
    if "timestamp" in source.keys:
        names[TIME] = TIMESTAMP
    return names


def feature_hashes(columns: pa.Table | pa.RecordBatch, feature: Feature) -> Hashes:
    """The hash of each row of a feature, with its weights: uint64 [N]."""
    weights = None if feature.weights is None else columns.column(feature.weights)
    return row_hashes(columns.column(feature.name), feature.kind, weights)


def group_hashes(hashes: Mapping[str, Hashes], features: Iterable[str]) -> Hashes:
    """The hash of each row of a group with its own query, over its features: uint64 [N]."""
    return combine_hashes(hashes[name] for name in sorted(features))


def sample_hashes(hashes: Mapping[str, Hashes], groups: Mapping[str, Hashes]) -> Hashes:
    """The hash of each sample, over all columns.

    Args:
        hashes: uint64 [N] of each column that belongs to no group with its own query.
        groups: uint64 [N] of each group with its own query, as :func:`group_hashes` returns them.

    Returns:
        uint64 [N].
    """
    return combine_hashes([*(hashes[name] for name in sorted(hashes)), *(groups[name] for name in sorted(groups))])


def sample_checksums(hashes: Mapping[str, Hashes], own: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The checksums of some samples, as the ETL notes them of samples that it leaves out.

    They stand in the manifest under ``source["dropped_checksums"]``, by reason.

    Args:
        hashes: uint64 [N] of every column that :func:`recd_dist.etl.verify.compare.verify` compares: labels, features,
            and those of session_id, request_id and timestamp that the source names.
        own: the features of each group with its own query.

    Returns:
        The checksum of each column by name, and that of the whole samples under :data:`ROW`.
    """
    linked = {name for names in own.values() for name in names}
    groups = {group: group_hashes(hashes, names) for group, names in own.items()}
    rows = sample_hashes({name: column for name, column in hashes.items() if name not in linked}, groups)
    return {**{name: column_checksum(column) for name, column in hashes.items()}, ROW: column_checksum(rows)}


def key_hashes(column: pa.Array | pa.ChunkedArray) -> Hashes:
    """The hash of each row of a key column: int64 [N] -> uint64 [N]."""
    return row_hashes(column, Kind.id)


def buckets_of(hashes: Hashes) -> npt.NDArray[np.int64]:
    """The bucket of each session by the hash of its id: uint64 [N] -> int64 [N] in [0, NUM_BUCKETS)."""
    return (hashes >> _BITS).astype(np.int64)


@dataclass
class Sums:
    """The number and the checksums of some samples.

    Attributes:
        num_samples: the number of samples.
        columns: the checksum of each column by name, with :data:`ROW` among them.
        buckets: uint64 [NUM_BUCKETS], the sum of the whole samples' hashes by the bucket of their session.
    """

    num_samples: int = 0
    columns: dict[str, int] = field(default_factory=dict)
    buckets: Hashes = field(default_factory=lambda: np.zeros(NUM_BUCKETS, np.uint64))

    def add(self, hashes: Mapping[str, Hashes], rows: Hashes, bucket: npt.NDArray[np.int64]) -> None:
        """Adds samples.

        Args:
            hashes: uint64 [N], the hash of each value, by column.
            rows: uint64 [N], the hashes of the whole samples.
            bucket: int64 [N], the buckets of their sessions.
        """
        self.num_samples += len(rows)
        for name, column in (*hashes.items(), (ROW, rows)):
            self.add_sum(name, column_checksum(column))
        np.add.at(self.buckets, bucket, rows)

    def add_sum(self, name: str, value: int) -> None:
        """Adds a sum of hashes to the checksum of a column."""
        self.columns[name] = (self.columns.get(name, 0) + value) % 2**64

    def merge(self, other: "Sums") -> None:
        """Adds the number and the checksums of other samples."""
        self.num_samples += other.num_samples
        for name, value in other.columns.items():
            self.add_sum(name, value)
        self.buckets += other.buckets
