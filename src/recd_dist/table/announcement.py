"""What the ETL found in raw logs that people may not expect, such as numbers that became texts.

::

    column 'price': 60 of 4,000 texts are 'NULL'   60   data.null_values=[NULL] reads them as missing   suspicious

An announcement is no error: the table is made all the same. ``recd etl --strict`` makes an error of each one that is
suspicious, before anything is in its place. The manifest keeps all of them.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from recd_dist.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Announcement:
    """One thing that was found.

    Attributes:
        found: what was found and where, a clause such as ``column 'price': 60 of 4,000 texts are 'NULL'``.
        count: the number of rows, columns or files that it concerns.
        cure: what to type where it is not what people want.
        suspicious: whether it is more likely a mistake than meant, so that ``--strict`` refuses it.
    """

    found: str
    count: int
    cure: str
    suspicious: bool = True

    def __str__(self) -> str:
        """The sentence for the screen."""
        return f"{self.found}; {self.cure}" if self.cure else self.found

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Announcement":
        """The announcement of which ``asdict`` made a dict."""
        return Announcement(value["found"], value["count"], value["cure"], value["suspicious"])


def announce(found: Iterable[Announcement], strict: bool) -> None:
    """Says what was found in the log, each thing once.

    Args:
        found: what was found.
        strict: whether suspicious things are errors.

    Raises:
        DataError: something suspicious was found, and ``strict`` is set; the message lists all of it.
    """
    different = list(dict.fromkeys(found))
    suspicious = [one for one in different if one.suspicious]
    if strict and suspicious:
        lines = "\n  ".join(map(str, suspicious))
        things = "1 suspicious thing" if len(suspicious) == 1 else f"{len(suspicious)} suspicious things"
        raise DataError(f"--strict: {things} in the logs, and no table is made: {lines}")
    for one in different:
        logger.log(logging.WARNING if one.suspicious else logging.INFO, "%s", one)
