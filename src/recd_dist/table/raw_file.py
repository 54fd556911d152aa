"""The raw files whose samples a table holds, so that none is added twice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RawFile:
    """One file that the samples query read.

    Attributes:
        path: where it lay, an absolute path or an address in a store.
        num_bytes: its size.
        checksum: what its content is: ``sha256:`` and 32 hexadecimal digits, or what a store says of the content
            (``etag:...``), since a file there is not read twice.
        query: 16 hexadecimal digits that stand for the query and the share of the sessions that were read of it.
    """

    path: str
    num_bytes: int
    checksum: str
    query: str

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "RawFile":
        """The file of which ``asdict`` made a dict."""
        return RawFile(value["path"], value["num_bytes"], value["checksum"], value["query"])

    def has_content_of(self, other: "RawFile") -> bool:
        """Whether both are the same bytes, wherever they lie."""
        return (self.num_bytes, self.checksum) == (other.num_bytes, other.checksum)
