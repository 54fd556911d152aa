"""Texts that mean a missing value to people, such as ``NULL``, found by their hashes: a text is hashed before it comes.

The count is exact, over all rows, and the same on DuckDB and on Spark.
"""

from collections.abc import Iterable, Mapping
from hashlib import md5

import numpy as np
import pyarrow as pa

from recd_dist.etl.source.text_shapes import NULL_TEXTS
from recd_dist.table.announcement import Announcement

_HASHES = {
    int.from_bytes(md5(text.encode(), usedforsecurity=False).digest()[8:], "little") & (2**63 - 1): text
    for text in NULL_TEXTS
}
_SORTED = np.sort(np.array(list(_HASHES), np.int64))


def count_null_texts(column: pa.ChunkedArray) -> dict[str, int]:
    """Counts the texts that mean a missing value.

    Args:
        column: int64 [N] or lists of int64, the hashes of texts; nulls are passed over.

    Returns:
        The number of each text that occurs.
    """
    counts: dict[str, int] = {}
    for chunk in column.chunks:
        ids = (chunk.flatten() if pa.types.is_list(chunk.type) else chunk).drop_null().to_numpy(zero_copy_only=False)
        place = np.searchsorted(_SORTED, ids)
        found = ids[_SORTED[np.minimum(place, len(_SORTED) - 1)] == ids]
        for value, count in zip(*np.unique(found, return_counts=True), strict=True):
            text = _HASHES[int(value)]
            counts[text] = counts.get(text, 0) + int(count)
    return counts


def announce_null_texts(
    names: Mapping[str, str], counts: Mapping[str, Mapping[str, int]], num_rows: int
) -> Iterable[Announcement]:
    """What people may not expect of texts that mean a missing value.

    Args:
        names: what each counted column is called in the source's own query.
        counts: the number of each such text, by counted column.
        num_rows: the number of rows of the query.
    """
    for column, texts in counts.items():
        num = sum(texts.values())
        shown = ", ".join(f"'{text}' ({count:,})" for text, count in sorted(texts.items(), key=lambda item: -item[1]))
        yield Announcement(
            f"column '{names[column]}': {num:,} texts in {num_rows:,} rows are {shown} and count as values like others",
            num,
            f"data.null_values=[{','.join(map(_as_option, texts))}] reads them as missing",
        )


def _as_option(text: str) -> str:
    """A text as an element of a list on the command line."""
    return text if text.isalpha() else "'" + text.replace("\\", "\\\\") + "'"
