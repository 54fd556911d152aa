"""Hashes of samples' contents, by which samples of equal time are ordered.

::

    time     9:00  9:00  9:00      history  [7]  [8]  [7]       item  1  2  3
    hash     5|b   2|c   5|a       upper half: of the groups, so that rows with equal groups lie side by side
    order     1     0     ...      lower half: of everything, so that no order is left to chance

The hash depends on the content alone, never on where a sample came from.
"""

from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa

from recd_dist.etl.checksum.row_hashes import Hashes, combine_hashes, label_hashes, row_hashes
from recd_dist.etl.checksum.sample_sums import feature_hashes
from recd_dist.etl.deal.keys import I64
from recd_dist.etl.source.inspection import link_column
from recd_dist.table.schema import SAMPLE, Kind, Schema


def hash_columns(samples: pa.Table, schema: Schema, linked: Collection[str]) -> dict[str, Hashes]:
    """Hashes labels, features and links.

    Args:
        samples: rows of the normalised samples query [N].
        schema: the schema as far as the source's columns tell.
        linked: the groups with their own query. A link is hashed by its key: row numbers depend on the engine.

    Returns:
        uint64 [N] by column.
    """
    hashes = {name: label_hashes(samples[name]) for name in schema.labels}
    hashes |= {f.name: feature_hashes(samples, f) for f in schema.features if f.group not in linked}
    return hashes | {name: row_hashes(samples[name], Kind.id) for name in map(link_column, linked)}


def order_hash(hashes: Mapping[str, Hashes], content: Hashes, schema: Schema, linked: Collection[str]) -> I64:
    """A hash of each sample that orders samples: those whose groups are alike come side by side.

    The upper 32 bits are the hash of the groups, the lower ones that of the whole content.

    Args:
        hashes: uint64 [N] of each column, of :func:`hash_columns`.
        content: uint64 [N], the hashes of all columns together.
        schema: the schema, which says of what group each feature is.
        linked: the groups with their own query.

    Returns:
        int64 [N].
    """
    names = [f.name for f in schema.features if f.group not in (SAMPLE, *linked)]
    names = names or [f.name for f in schema.features if f.kind is Kind.ids and f.group == SAMPLE]
    shared = [hashes[name] for name in (*names, *map(link_column, linked))]
    if not shared:
        return content.view(np.int64)
    upper = combine_hashes(shared) & np.uint64(0xFFFFFFFF00000000)
    return (upper | (content >> np.uint64(32))).view(np.int64)
