"""A request that was read, and several of them as the rows of one batch.

::

    request A: user u, candidates a b        rows of a group    u | v        unique over all requests
    request B: user u, candidates c          row of sample      0 0 0 1
    request C: user v, candidates d          samples            a b c d
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recd_dist.reader.row_group_columns import DecodedRowGroup, Origin
from recd_dist.table.column import Array, Column, join_columns
from recd_dist.table.schema import SAMPLE, Schema


@dataclass(frozen=True, eq=False)
class UserRow:
    """The user's row of a request.

    Attributes:
        columns: for each of its features one row.
        keys: for each group the bytes of its values; groups with equal bytes are equal.
    """

    columns: Mapping[str, Column]
    keys: Mapping[str, bytes]

    @staticmethod
    def of(columns: Mapping[str, Column], schema: Schema) -> "UserRow":
        """The row of some columns.

        Args:
            columns: for each feature of the user one row.
            schema: the groups of the features.
        """
        groups = {g: [columns[f.name] for f in schema.of_group(g)] for g in schema.dedup_groups}
        return UserRow(columns, {g: b"".join(map(_bytes_of, members)) for g, members in groups.items()})

    @property
    def num_bytes(self) -> int:
        """The bytes of its values, about; what a cache counts."""
        return 2 * sum(map(len, self.keys.values()))


def _bytes_of(column: Column) -> bytes:
    """Length and values of a column of one row, so that two columns with equal bytes hold the same."""
    weights = b"" if column.weights is None else column.weights.tobytes()
    return len(column.values).to_bytes(4, "little") + column.values.tobytes() + weights


@dataclass(frozen=True, eq=False)
class Request:
    """One user row and its candidates, as the table would store them.

    Attributes:
        user: the user's row.
        candidates: for each feature of the candidates their rows.
        num_candidates: their number, at least 1.
    """

    user: UserRow
    candidates: Mapping[str, Column]
    num_candidates: int


class RequestOrigin(Origin):
    """Where rows come from, for messages: requests and no file."""

    def __init__(self) -> None:
        super().__init__(Path(), 0)

    def __str__(self) -> str:
        return "request"


def join_requests(requests: Sequence[Request], schema: Schema) -> DecodedRowGroup:
    """Puts requests into one batch; equal rows of users stand there once.

    Args:
        requests: the requests, at least one.
        schema: the features that are given, in the groups of the table.
    """
    sizes = np.array([request.num_candidates for request in requests])
    columns, row_of_sample, num_rows = dict[str, Column](), dict[str, Array](), dict[str, int]()
    for group in schema.dedup_groups:
        places = dict[bytes, int]()
        rows = [places.setdefault(request.user.keys[group], len(places)) for request in requests]
        first = [rows.index(place) for place in range(len(places))]
        row_of_sample[group] = np.repeat(np.array(rows, np.int32), sizes)
        num_rows[group] = len(places)
        for feature in schema.of_group(group):
            columns[feature.name] = join_columns([requests[n].user.columns[feature.name] for n in first])
    for feature in schema.of_group(SAMPLE):
        columns[feature.name] = join_columns([request.candidates[feature.name] for request in requests])
    num_samples, origin = int(sizes.sum()), RequestOrigin()
    numbers = np.arange(num_samples)
    return DecodedRowGroup(
        sample_ids=numbers,
        session_ids=numbers,
        request_ids=np.repeat(np.arange(len(requests)), sizes),
        labels=np.zeros((num_samples, 0), np.float32),
        row_of_sample=row_of_sample,
        num_rows=num_rows,
        columns=columns,
        origins=dict.fromkeys(schema.groups, origin),
    )
