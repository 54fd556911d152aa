"""Checksums of samples by column: what both sides of a comparison count, each in its own order.

::

    session  label  history  item        one hash a value (checksum.py), then a sum a column, and
       s       y       h      i    ->    row: the hash of (s, y, h, i) together

Columns enter the row's hash by name, in alphabetic order, and a group with its own query as one column: the hash of its
features. So the source's side hashes each row of such a group once, whatever number of samples carries it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.checksum.row_hashes import Hashes, column_checksum, combined, row_hashes
from recd_dist.etl.source.inspection import REQUEST, SESSION, TIMESTAMP
from recd_dist.etl.source.source import Source
from recd_dist.table.schema import REQUEST_ID, SESSION_ID, Feature, Kind
from recd_dist.table.schema import TIMESTAMP as TIME

ROW = "row"
"""The column that stands for the whole sample; no feature can have this name."""

NUM_BUCKETS = 4096
_BITS = np.uint64(52)  # the upper 12 bits of a hash are its bucket


def compared_keys(source: Source) -> dict[str, str]:
    """Key columns of the table that are columns of the source too, and their names in its normalised query.

    Sessions that the ETL finds by gaps, or makes up, are not there to be compared.
    """
    found = {}
    if source.session_column is not None and source.gap_us is None:
        found[SESSION_ID] = SESSION
    if "request" in source.keys:
        found[REQUEST_ID] = REQUEST
    if "timestamp" in source.keys:
        found[TIME] = TIMESTAMP
    return found


def hashed(columns: pa.Table | pa.RecordBatch, feature: Feature) -> Hashes:
    """Hashes of a feature's rows, weights mixed in: uint64 [N]."""
    weights = None if feature.weights is None else columns.column(feature.weights)
    return row_hashes(columns.column(feature.name), feature.kind, weights)


def group_hashes(hashes: Mapping[str, Hashes], features: Iterable[str]) -> Hashes:
    """One hash for the features of a group with its own query: uint64 [N]."""
    return combined(hashes[name] for name in sorted(features))


def whole(hashes: Mapping[str, Hashes], groups: Mapping[str, Hashes]) -> Hashes:
    """The hash of whole samples.

    Args:
        hashes: uint64 [N] of each column that belongs to no group with its own query.
        groups: uint64 [N] of each group with its own query.

    Returns:
        uint64 [N].
    """
    return combined([*(hashes[name] for name in sorted(hashes)), *(groups[name] for name in sorted(groups))])


def sample_checksums(hashes: Mapping[str, Hashes], own: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """What the ETL notes of samples that it leaves out, by reason, in ``Manifest.source["dropped_checksums"]``.

    Args:
        hashes: uint64 [N] of every column that :func:`recd_dist.etl.verify.compare.verify` compares: labels, features,
            and of session_id, request_id and timestamp those that the source names.
        own: features of each group with its own query.

    Returns:
        Checksum by column, and that of the whole samples under :data:`ROW`.
    """
    linked = {name for names in own.values() for name in names}
    groups = {group: group_hashes(hashes, names) for group, names in own.items()}
    rows = whole({name: column for name, column in hashes.items() if name not in linked}, groups)
    return {**{name: column_checksum(column) for name, column in hashes.items()}, ROW: column_checksum(rows)}


def key_hashes(column: pa.Array | pa.ChunkedArray) -> Hashes:
    """Hashes of a key column: int64 [N] -> uint64 [N]."""
    return row_hashes(column, Kind.id)


def buckets_of(hashes: Hashes) -> npt.NDArray[np.int64]:
    """The bucket of each hash: int64 [N] in [0, NUM_BUCKETS)."""
    return (hashes >> _BITS).astype(np.int64)


@dataclass
class Sums:
    """Counted of some samples.

    Attributes:
        num_samples: how many.
        columns: checksum by column, :data:`ROW` among them.
        buckets: uint64 [NUM_BUCKETS], the sum of the whole samples' hashes by the bucket of their session.
    """

    num_samples: int = 0
    columns: dict[str, int] = field(default_factory=dict)
    buckets: Hashes = field(default_factory=lambda: np.zeros(NUM_BUCKETS, np.uint64))

    def add(self, hashes: Mapping[str, Hashes], rows: Hashes, bucket: npt.NDArray[np.int64]) -> None:
        """Counts samples.

        Args:
            hashes: uint64 [N] by column.
            rows: uint64 [N] of the whole samples.
            bucket: int64 [N].
        """
        self.num_samples += len(rows)
        for name, column in (*hashes.items(), (ROW, rows)):
            self.add_sum(name, column_checksum(column))
        np.add.at(self.buckets, bucket, rows)

    def add_sum(self, name: str, value: int) -> None:
        """Adds to the checksum of a column."""
        self.columns[name] = (self.columns.get(name, 0) + value) % 2**64

    def merge(self, other: "Sums") -> None:
        """Adds what was counted of other samples."""
        self.num_samples += other.num_samples
        for name, value in other.columns.items():
            self.add_sum(name, value)
        self.buckets += other.buckets
