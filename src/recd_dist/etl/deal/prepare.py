"""Prepares a batch of samples: checks its rows, links groups, adds hashes and sizes.

::

    query      __session  __timestamp  label  history        __link_user
    prepared   + __request ... + __hash (content) + __size (bytes)   __link_user: the row's number instead of its key

Every row is looked at once. A missing key or label ends the run here; times outside the policy's bounds are left out,
kept or refused; and ranges of ids and missing values are noted, which decide the table's types. Preparing is a pure
function of the batch: DuckDB's stream and Spark's partitions call the same code.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recd_dist.errors import DataError
from recd_dist.etl.checksum.row_hashes import Hashes, combine_hashes, label_hashes
from recd_dist.etl.checksum.sample_sums import compared_keys, feature_hashes, key_hashes, sample_checksums
from recd_dist.etl.deal.assign_sessions import is_in_share
from recd_dist.etl.deal.check_rows import check_keys, check_weights, find_unlabelled
from recd_dist.etl.deal.keys import HASH, I64, SIZE, Flags
from recd_dist.etl.deal.label_values import LabelValues
from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.deal.null_texts import count_null_texts
from recd_dist.etl.deal.order_hash import hash_columns, order_hash
from recd_dist.etl.deal.tally import Tally
from recd_dist.etl.deal.value_range import ValueRange
from recd_dist.etl.source.inspection import SESSION, TIMESTAMP, link_column
from recd_dist.etl.source.source import Source
from recd_dist.table.schema import Kind, Schema


@dataclass(frozen=True)
class Preparation:
    """What it takes to prepare a batch of samples.

    Attributes:
        source: describes keys and policies.
        schema: the schema as far as the source's columns tell.
        lookups: the rows of each group with its own query.
        timed: whether the timestamp is a time, so that a time outside the policy's bounds is known to be wrong.
        texts: columns of the normalised query that are texts upstream, and hashes here.
    """

    source: Source
    schema: Schema
    lookups: Mapping[str, Lookup]
    timed: bool
    texts: tuple[str, ...] = ()

    def prepare(self, batch: pa.RecordBatch, first_row: int) -> tuple[pa.Table, Tally]:
        """Prepares a batch.

        Args:
            batch: rows of the normalised samples query.
            first_row: the place of the batch's first row in the query's result.

        Returns:
            The samples that policies keep, with every column that dealing needs; and what was noted of the batch.

        Raises:
            DataError: a sample has no session, request, timestamp or label, or its time is outside the bounds.
        """
        raw = pa.Table.from_batches([batch])
        unlabelled = self._check(raw, first_row)
        linked, num_unlinked = self._link_groups(raw)
        tally = Tally(num_unlinked=num_unlinked, num_rows=batch.num_rows)
        hashes = hash_columns(raw, self.schema, self.lookups)
        content = combine_hashes(hashes.values())
        table = self._add_keys(linked, content, order_hash(hashes, content, self.schema, self.lookups), first_row)
        stays = self._apply_policies(table, unlabelled, first_row, tally)
        if not stays.all():
            table = table.filter(pa.array(stays))
        for feature in self.schema.features:
            if feature.group not in self.lookups:
                seen = tally.seen.setdefault(feature.name, ValueRange())
                for chunk in table[feature.name].chunks:
                    seen.include(chunk)
        if not self.timed and "timestamp" in self.source.keys:
            for chunk in table[TIMESTAMP].chunks:
                tally.times.include(chunk)
        for name in self.texts:
            tally.add_null_texts(name, count_null_texts(table[name]))
        for name in self.schema.labels:
            tally.labels.setdefault(name, LabelValues()).include(table[name].to_numpy())
        return table, tally

    def _check(self, raw: pa.Table, first_row: int) -> Flags:
        """Looks at single rows; returns which samples lack a label, bool [N]."""
        check_keys(raw, first_row)
        policy, weight = self.source.policy.unlabelled, self.source.weight
        unlabelled = find_unlabelled(raw, self.schema.labels, first_row, policy, weight)
        for feature in self.schema.features:
            if feature.weights is not None and feature.group not in self.lookups:
                check_weights(raw, feature, first_row)
        return unlabelled

    def _link_groups(self, raw: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        """Puts row numbers in the place of keys for each group with its own query, and counts samples without a row."""
        table, num_unlinked = raw, {}
        for group, lookup in self.lookups.items():
            name = link_column(group)
            rows = lookup.find(table[name].combine_chunks())
            num_unlinked[group] = int((rows < 0).sum())
            table = table.set_column(table.column_names.index(name), name, pa.array(rows))
        return table, num_unlinked

    def _add_keys(self, table: pa.Table, content: Hashes, content_hash: I64, first_row: int) -> pa.Table:
        """Adds the key columns that the source does not name: session, timestamp, content hash and size."""
        arrival = np.arange(first_row, first_row + table.num_rows, dtype=np.int64)
        has_time = TIMESTAMP in table.column_names
        if SESSION not in table.column_names:
            own_session = (content >> np.uint64(1)).view(np.int64) if has_time else arrival
            table = table.append_column(SESSION, pa.array(own_session))
        if not has_time:
            table = table.append_column(TIMESTAMP, pa.array(arrival))
        sizes = self._sample_bytes(table)
        return table.append_column(HASH, pa.array(content_hash)).append_column(SIZE, pa.array(sizes))

    def _sample_bytes(self, table: pa.Table) -> npt.NDArray[np.int32]:
        """The bytes of each sample in memory, from its content alone: int32 [N]."""
        lists = {f.name: f.weights for f in self.schema.features if f.kind is Kind.ids and f.group not in self.lookups}
        names = [n for name, weights in lists.items() for n in (name, weights) if n in table.column_names]
        names = [n for n in names if pa.types.is_list(table.schema.field(n).type)]
        sizes = np.full(table.num_rows, 8 * (table.num_columns + 2) + 4 * len(names), np.int32)
        for name in names:
            lengths = pc.fill_null(pc.list_value_length(table[name]), 0)
            sizes += lengths.to_numpy().astype(np.int32) * (table.schema.field(name).type.value_type.bit_width // 8)
        return sizes

    def _apply_policies(self, table: pa.Table, unlabelled: Flags, first_row: int, tally: Tally) -> Flags:
        """Which samples stay, as far as times, labels and the share of the sessions tell: bool [N]."""
        stays = np.ones(table.num_rows, bool)
        policy = self.source.policy
        if self.timed:
            time = table[TIMESTAMP].to_numpy()
            outside = (time < policy.earliest_us) | (time > policy.latest_us)
            if outside.any():
                self._note_impossible_times(table, outside, first_row, tally)
                stays &= ~outside if policy.time == "drop" else True
        if (lacking := unlabelled & stays).any():
            drops = policy.unlabelled == "drop"
            checksums = self.checksums(table.filter(pa.array(lacking))) if drops else {}
            tally.dropped.add("unlabelled" if drops else "unlabelled_kept", int(lacking.sum()), checksums)
            stays &= ~lacking if drops else True
        if self.source.sample < 1 and self.source.gap_us is None:
            unsampled = ~is_in_share(table[SESSION].to_numpy(), self.source.sample) & stays
            if unsampled.any():
                checksums = self.checksums(table.filter(pa.array(unsampled)))
                tally.dropped.add("sampled", int(unsampled.sum()), checksums)
                stays &= ~unsampled
        return stays

    def _note_impossible_times(self, table: pa.Table, outside: Flags, first_row: int, tally: Tally) -> None:
        """Counts samples whose time is impossible: their clock is wrong, or the unit of their time.

        Raises:
            DataError: the policy says that they are errors.
        """
        policy, row = self.source.policy, int(np.argmax(outside))
        if policy.time == "error":
            raise DataError(
                f"samples query: row {first_row + row} (and perhaps more) has the time "
                f"{_time_text(int(table[TIMESTAMP][row].as_py()))}, outside {_time_text(policy.earliest_us)} to "
                f"{_time_text(policy.latest_us)}: a clock that is wrong? data.policy.time=drop leaves such samples "
                "out, keep keeps them; data.policy.earliest and latest move the bounds"
            )
        reason = "time" if policy.time == "drop" else "time_kept"
        checksums = self.checksums(table.filter(pa.array(outside))) if policy.time == "drop" else {}
        tally.dropped.add(reason, int(outside.sum()), checksums)

    def check_duplicates(self, duplicates: pa.Table, originals: pa.Table) -> None:
        """Compares duplicates with their originals by a hash of each column.

        Duplicates were found by one hash of 64 bits, and leaving them out is final.

        Args:
            duplicates: prepared samples [n].
            originals: for each of them the sample that it should equal [n].

        Raises:
            DataError: two samples that differ have the same hash.
        """
        one, other = (hash_columns(samples, self.schema, self.lookups) for samples in (duplicates, originals))
        for name, hashes in one.items():
            if (hashes != other[name]).any():
                raise DataError(
                    f"policy.duplicates: two samples of one session and time differ in '{name}' though their hashes "
                    "are equal; name keys.sample, or keep duplicates (data.policy.duplicates=keep)"
                )

    def checksums(self, samples: pa.Table) -> dict[str, int]:
        """The checksums of samples that are left out, by column: ``recd etl --verify`` adds them to the table's."""
        hashes = {key: key_hashes(samples[name]) for key, name in compared_keys(self.source).items()}
        hashes |= {name: label_hashes(samples[name]) for name in self.schema.labels}
        for group in self.schema.groups:
            rows = samples
            if group in self.lookups:
                rows = self.lookups[group].take(samples[link_column(group)].to_numpy())
            hashes |= {f.name: feature_hashes(rows, f) for f in self.schema.of_group(group)}
        own = {group: [f.name for f in self.schema.of_group(group)] for group in self.lookups}
        return sample_checksums(hashes, {group: names for group, names in own.items() if names})


def _time_text(microseconds: int) -> str:
    """A time as people write it; a number that no calendar holds stays a number."""
    try:
        return str(np.datetime64(microseconds, "us")).split(".")[0]
    except (ValueError, OverflowError):
        return f"{microseconds} us"
