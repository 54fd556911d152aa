"""The samples that were read, in the order in which the ETL would store them.

::

    keys       session, or user and gap, or request; time, request, order column, hash of the content
    arrange    the ETL's own: sessions, duplicates, order
    parts      split, partition and shard of each sample, as far as they can be told beforehand
    bounds     where row groups begin; a row that two row groups share is stored twice

What the ETL decides by the keys alone is decided here by the same functions. Only the number of shards is an estimate.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.checksum.row_hashes import combine_hashes
from recd_dist.etl.deal.arrange import Arrangement, arrange
from recd_dist.etl.deal.assign_sessions import split_threshold
from recd_dist.etl.deal.keys import HASH, Rules
from recd_dist.etl.deal.order_hash import hash_columns, order_hash
from recd_dist.etl.etl_run import Options
from recd_dist.etl.source.inspection import ORDER_KEY, REQUEST, SAMPLE_KEY, SESSION, TEST, TIMESTAMP
from recd_dist.etl.source.source import Source
from recd_dist.etl.write.row_groups import row_group_bounds
from recd_dist.suggest.dealing import Dealing
from recd_dist.table.schema import Schema

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TableOrder:
    """The order of the table.

    Attributes:
        rows: int64 [K], the place of each sample among those that were read; duplicates may be left out.
        session: int64 [K], the final session of each sample.
        bounds: int64 [row groups + 1], where row groups begin and end, from 0 to K.
        has_ties: whether some order was decided by the hash of the content, which depends on the groups.
        num_train: number of samples of the train split, which come first.
    """

    rows: I64
    session: I64
    bounds: I64
    has_ties: bool
    num_train: int


@dataclass(frozen=True)
class OrderRules:
    """What the order of a table depends on, beside its samples.

    Attributes:
        source: names keys and policies.
        options: the options of the ETL.
        linked: the groups with their own query.
        dealing: how the ETL would deal sessions into shards.
        has_session, has_time: whether the source has these keys.
        share: the share of the samples of their shards that were read.
    """

    source: Source
    options: Options
    linked: Collection[str]
    dealing: Dealing
    has_session: bool
    has_time: bool
    share: float

    def order(self, samples: pa.Table, schema: Schema) -> TableOrder:
        """Orders samples as the table would be.

        Args:
            samples: rows of the normalised samples query [N], in the order in which they came.
            schema: the schema with the groups of the table.
        """
        keys = self._key_columns(samples)
        has_ties = _has_ties(keys)
        if has_ties or (self.has_time and not self.has_session):
            hashes = hash_columns(samples, schema, self.linked)
            content = combine_hashes(hashes.values())
            keys[HASH] = order_hash(hashes, content, schema, self.linked)
            if self.has_time and not self.has_session:  # every sample its own session, named by its content
                keys[SESSION] = (content >> np.uint64(1)).view(np.int64)
        rules = replace(Rules.of(self.source, self.options.max_session_samples), fail_on_duplicates=False)
        arrangement = arrange(pa.table(keys), rules)
        shards = self.dealing.shard_of(keys[SESSION][arrangement.rows])
        parts = np.stack([_is_test(arrangement, rules).astype(np.int64), arrangement.partition, shards])
        by_part = np.lexsort(parts[::-1])
        session, parts = arrangement.session[by_part], parts[:, by_part]
        bounds = _row_groups(session, parts, self.share, self.options.row_group_samples)
        return TableOrder(arrangement.rows[by_part], session, bounds, has_ties, int((parts[0] == 0).sum()))

    def _key_columns(self, samples: pa.Table) -> dict[str, npt.NDArray[np.int64]]:
        names = [SESSION, REQUEST, TIMESTAMP, ORDER_KEY, SAMPLE_KEY, TEST]
        keys = {n: samples[n].fill_null(0).to_numpy() for n in names if n in samples.column_names and n != TEST}
        if TEST in samples.column_names:
            keys[TEST] = samples[TEST].to_numpy()
        if not self.has_time:
            keys[TIMESTAMP] = np.arange(samples.num_rows, dtype=np.int64)
        return keys


def _has_ties(keys: dict[str, npt.NDArray[np.int64]]) -> bool:
    """Whether two samples have the same session, time, request and order column."""
    columns = [keys[name] for name in (SESSION, TIMESTAMP, REQUEST, ORDER_KEY) if name in keys]
    order = np.lexsort(columns[::-1])
    same = np.ones(max(len(order) - 1, 0), np.bool_)
    for column in columns:
        same &= column[order][1:] == column[order][:-1]
    return bool(same.any())


def _is_test(arrangement: Arrangement, rules: Rules) -> npt.NDArray[np.bool_]:
    """Which samples are of the test split: bool [K]."""
    if rules.test_share is None:
        return arrangement.is_test(None)
    first = np.append(True, arrangement.session[1:] != arrangement.session[:-1])[: len(arrangement.session)]
    return arrangement.is_test(split_threshold(arrangement.session[first], arrangement.start[first], rules.test_share))


def _row_groups(session: I64, parts: I64, share: float, row_group_samples: int) -> I64:
    """Where row groups begin and end: as the ETL cuts each part, or about as long where only a share was read.

    Args:
        session: int64 [K], the session of each sample.
        parts: int64 [3, K], what tells parts apart.
        share: the share of the samples of these parts that were read.
        row_group_samples: the most samples of a row group, unless one session has more.
    """
    changes = (parts[:, 1:] != parts[:, :-1]).any(axis=0)
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(session)]
    if share == 1:
        ends = [row_group_bounds(session[a:b], row_group_samples)[1:] + a for a, b in pairwise(edges)]
        return np.concatenate([np.zeros(1, np.int64), *ends])
    sizes = np.diff(edges) / share
    num_groups = max(1, round(share * float(np.ceil(sizes / row_group_samples).sum())))
    return row_group_bounds(session, int(1.02 * len(session) / num_groups) + 1)
