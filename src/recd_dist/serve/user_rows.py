"""User rows that clients have sent, kept by key and version: what a client need not send again."""

from collections import OrderedDict
from dataclasses import dataclass

from recd_dist.serve.body_columns import USER_KEY, USER_VERSION
from recd_dist.serve.frames import Bytes
from recd_dist.serve.refused import USER_OTHER_VERSION, USER_UNKNOWN, RefusedError

_ENTRY_BYTES = 300
"""Of an entry beside its key and columns, about."""


@dataclass(frozen=True)
class _Row:
    version: str | int | None
    columns: Bytes


class UserRows:
    """The rows that were used last, up to a number of bytes.

    Args:
        max_bytes: of all rows with their keys; 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._rows: OrderedDict[str, _Row] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, key: str, version: str | int | None) -> Bytes:
        """The columns of a row.

        Args:
            key: of the user.
            version: the version that the client means; it has to be the one that is kept.

        Raises:
            RefusedError: it is not kept, or in another version; the client then sends the row whole.
        """
        row = self._rows.get(key)
        if row is None:
            raise RefusedError(USER_UNKNOWN, f"{USER_KEY} '{key}': no row of that key is kept; send user whole")
        if row.version != version:
            text = f"{USER_KEY} '{key}': {USER_VERSION} {row.version!r} is kept and not {version!r}; send user whole"
            raise RefusedError(USER_OTHER_VERSION, text)
        self._rows.move_to_end(key)
        return row.columns

    def keep(self, key: str, version: str | int | None, columns: Bytes) -> None:
        """Keeps a row in place of the one that had its key; rows that were not used for longest make room."""
        self._drop(key)
        size = _size(key, columns)
        if size > self._max_bytes:
            return
        self._rows[key] = _Row(version, columns)
        self._num_bytes += size
        while self._num_bytes > self._max_bytes:
            self._drop(next(iter(self._rows)))

    def clear(self) -> None:
        """Forgets all rows, since another model may have other features."""
        self._rows.clear()
        self._num_bytes = 0

    def _drop(self, key: str) -> None:
        if (row := self._rows.pop(key, None)) is not None:
            self._num_bytes -= _size(key, row.columns)


def _size(key: str, columns: Bytes) -> int:
    return len(key) + len(columns) + _ENTRY_BYTES
