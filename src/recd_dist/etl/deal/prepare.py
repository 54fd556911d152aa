"""A batch of the normalised query becomes samples ready to be sharded: checked, linked, hashed, weighed.

::

    query      __session  __timestamp  label  history        __link_user
    prepared   + __request ... + __hash (content) + __size (bytes)   __link_user: the row's number instead of its key

Every row is looked at once: a missing key or label ends the run here, times outside the policy's bounds are judged, and
ranges of ids and missing values are noted, which decide the table's types. A pure function of the batch: DuckDB's
stream and Spark's partitions call the same code.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recd_dist.errors import DataError
from recd_dist.etl.checksum.row_hashes import combined, row_hashes
from recd_dist.etl.checksum.sample_sums import compared_keys, hashed, key_hashes, sample_checksums
from recd_dist.etl.deal.keys import HASH, I64, SIZE, in_sample
from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.deal.value_range import Seen
from recd_dist.etl.source.inspection import ORDER_KEY, REQUEST, SAMPLE_KEY, SESSION, TIMESTAMP, link
from recd_dist.etl.source.source import Source
from recd_dist.table.hash import GOLDEN
from recd_dist.table.schema import SAMPLE, Feature, Kind, Schema


@dataclass
class Dropped:
    """Samples that a policy left out.

    Attributes:
        counts: per reason.
        checksums: per reason and column the sum of the row hashes, so that source = table + dropped can be checked.
    """

    counts: dict[str, int] = field(default_factory=dict)
    checksums: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, reason: str, count: int, checksums: Mapping[str, int]) -> None:
        """Adds some samples."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        mine = self.checksums.setdefault(reason, {})
        for name, value in checksums.items():
            mine[name] = (mine.get(name, 0) + value) % 2**64

    def merge(self, other: "Dropped") -> None:
        """Adds another's."""
        for reason, count in other.counts.items():
            self.add(reason, count, other.checksums.get(reason, {}))


@dataclass
class Tally:
    """What was noted of some batches.

    Attributes:
        seen: per feature.
        num_unlinked: per group with its own query the samples that have no row there.
        dropped: by policies that look at one sample alone.
        num_rows: of the query.
    """

    seen: dict[str, Seen] = field(default_factory=dict)
    num_unlinked: dict[str, int] = field(default_factory=dict)
    dropped: Dropped = field(default_factory=Dropped)
    num_rows: int = 0

    def merge(self, other: "Tally") -> None:
        """Adds what was noted of other batches."""
        for name, seen in other.seen.items():
            self.seen.setdefault(name, Seen()).merge(seen)
        for group, count in other.num_unlinked.items():
            self.num_unlinked[group] = self.num_unlinked.get(group, 0) + count
        self.dropped.merge(other.dropped)
        self.num_rows += other.num_rows

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Tally":
        """The tally that ``dataclasses.asdict`` turned into plain values."""
        seen = {name: Seen(**fields) for name, fields in value["seen"].items()}
        return Tally(seen, dict(value["num_unlinked"]), Dropped(**value["dropped"]), value["num_rows"])


@dataclass(frozen=True)
class Preparation:
    """What preparing a batch needs to know; :meth:`prepared` does it.

    Attributes:
        source: keys and policies.
        schema: of the source as inspected.
        lookups: of the groups with their own query.
        timed: the timestamp is a time, so that one outside the policy's bounds is known to be wrong.
    """

    source: Source
    schema: Schema
    lookups: Mapping[str, Lookup]
    timed: bool

    def prepared(self, batch: pa.RecordBatch, first: int) -> tuple[pa.Table, Tally]:
        """A batch with every column that sharding needs, less what policies leave out, and what was noted.

        Args:
            batch: of the normalised samples query.
            first: place of its first row in the query's result.

        Raises:
            DataError: a sample without session, request, timestamp or label, or outside the bounds of time.
        """
        tally = Tally(num_rows=batch.num_rows)
        table = pa.Table.from_batches([batch])
        _check_keys(table, first)
        _check_labels(table, self.schema.labels, first)
        for feature in self.schema.features:
            if feature.weights is not None and feature.group not in self.lookups:
                _check_weights(table, feature, first)
        columns, tally.num_unlinked = self._linked(table)
        hashes = self._hashes(table, columns)
        content = combined(hashes.values())
        table = self._keyed(columns, content, self._grouped_hash(hashes, content), first)
        keep = self._judged(table, first, tally)
        if not keep.all():
            table = table.filter(pa.array(keep))
        for feature in self.schema.features:
            if feature.group not in self.lookups:
                seen = tally.seen.setdefault(feature.name, Seen())
                for chunk in table[feature.name].chunks:
                    seen.look(chunk)
        return table, tally

    def _linked(self, table: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        """The samples with row numbers instead of keys of the groups that have their own query."""
        num_unlinked = {}
        for group, lookup in self.lookups.items():
            rows = lookup.find(table[link(group)].combine_chunks())
            num_unlinked[group] = int((rows < 0).sum())
            table = table.set_column(table.column_names.index(link(group)), link(group), pa.array(rows))
        return table, num_unlinked

    def _hashes(self, raw: pa.Table, linked: pa.Table) -> dict[str, npt.NDArray[np.uint64]]:
        """Row hashes of labels, features and links; a link by its key, since row numbers depend on the engine."""
        found = {name: row_hashes(raw[name], Kind.dense) for name in self.schema.labels}
        for feature in self.schema.features:
            if feature.group not in self.lookups:
                found[feature.name] = hashed(linked, feature)
        return found | {link(group): row_hashes(raw[link(group)], Kind.id) for group in self.lookups}

    def _grouped_hash(
        self, hashes: Mapping[str, npt.NDArray[np.uint64]], content: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.int64]:
        """Content in 64 bits, of which the upper half is that of the groups: rows alike in these lie side by side."""
        names = [f.name for f in self.schema.features if f.group not in (SAMPLE, *self.lookups)]
        names = names or [f.name for f in self.schema.features if f.kind is Kind.ids and f.group == SAMPLE]
        shared = [hashes[name] for name in (*names, *map(link, self.lookups))]
        if not shared:
            return content.view(np.int64)
        upper = combined(shared) & np.uint64(0xFFFFFFFF00000000)
        return (upper | (content >> np.uint64(32))).view(np.int64)

    def _keyed(
        self, table: pa.Table, content: npt.NDArray[np.uint64], hashes: npt.NDArray[np.int64], first: int
    ) -> pa.Table:
        """The samples with all key columns."""
        arrival = np.arange(first, first + table.num_rows, dtype=np.int64)
        timed = TIMESTAMP in table.column_names
        if SESSION not in table.column_names:
            own = (content >> np.uint64(1)).view(np.int64) if timed else arrival
            table = table.append_column(SESSION, pa.array(own))
        if not timed:
            table = table.append_column(TIMESTAMP, pa.array(arrival))
        return table.append_column(HASH, pa.array(hashes)).append_column(SIZE, pa.array(self._sizes(table)))

    def _sizes(self, table: pa.Table) -> npt.NDArray[np.int32]:
        """Bytes of each sample in memory, from its contents alone."""
        lists = {f.name: f.weights for f in self.schema.features if f.kind is Kind.ids and f.group not in self.lookups}
        names = [n for name, weights in lists.items() for n in (name, weights) if n in table.column_names]
        names = [n for n in names if pa.types.is_list(table.schema.field(n).type)]
        sizes = np.full(table.num_rows, 8 * (table.num_columns + 2) + 4 * len(names), np.int32)
        for name in names:
            lengths = pc.fill_null(pc.list_value_length(table[name]), 0)
            sizes += lengths.to_numpy().astype(np.int32) * (table.schema.field(name).type.value_type.bit_width // 8)
        return sizes

    def _judged(self, table: pa.Table, first: int, tally: Tally) -> npt.NDArray[np.bool_]:
        """Which samples stay, by their times and by the sampling of sessions."""
        keep = np.ones(table.num_rows, bool)
        policy = self.source.policy
        if self.timed:
            time = table[TIMESTAMP].to_numpy()
            outside = (time < policy.earliest_us) | (time > policy.latest_us)
            if outside.any():
                self._outside(table, outside, first, tally)
                keep &= ~outside if policy.time == "drop" else True
        if self.source.sample < 1 and self.source.gap_us is None:
            out = ~in_sample(table[SESSION].to_numpy(), self.source.sample) & keep
            if out.any():
                tally.dropped.add("sampled", int(out.sum()), self.checksums(table.filter(pa.array(out))))
                keep &= ~out
        return keep

    def _outside(self, table: pa.Table, outside: npt.NDArray[np.bool_], first: int, tally: Tally) -> None:
        """Samples whose time cannot be: a clock that is wrong, or a unit that is."""
        policy, row = self.source.policy, int(np.argmax(outside))
        if policy.time == "error":
            raise DataError(
                f"samples query: row {first + row} (and perhaps more) has the time "
                f"{_moment(int(table[TIMESTAMP][row].as_py()))}, outside {_moment(policy.earliest_us)} to "
                f"{_moment(policy.latest_us)}: a clock that is wrong? data.policy.time=drop leaves such samples out, "
                "keep keeps them; data.policy.earliest and latest move the bounds"
            )
        reason = "time" if policy.time == "drop" else "time_kept"
        sums = self.checksums(table.filter(pa.array(outside))) if policy.time == "drop" else {}
        tally.dropped.add(reason, int(outside.sum()), sums)

    def check_duplicates(self, duplicates: pa.Table, originals: pa.Table) -> None:
        """Duplicates are found by one hash of 64 bits and left out for good: here each column is compared by its own.

        Args:
            duplicates: prepared samples [n].
            originals: what each should equal [n].

        Raises:
            DataError: two samples that differ have one hash.
        """
        one, other = (self._hashes(samples, samples) for samples in (duplicates, originals))
        for name, hashes in one.items():
            if (hashes != other[name]).any():
                raise DataError(
                    f"policy.duplicates: two samples of one session and time differ in '{name}' though their hashes "
                    "are equal; name keys.sample, or keep duplicates (data.policy.duplicates=keep)"
                )

    def checksums(self, samples: pa.Table) -> dict[str, int]:
        """What `recd etl --verify` adds to the table for some prepared samples that are left out."""
        found = {key: key_hashes(samples[name]) for key, name in compared_keys(self.source).items()}
        found |= {name: row_hashes(samples[name], Kind.dense) for name in self.schema.labels}
        for group in self.schema.groups:
            rows = samples
            if group in self.lookups:
                rows = self.lookups[group].take(samples[link(group)].to_numpy())
            found |= {f.name: hashed(rows, f) for f in self.schema.of_group(group)}
        own = {g: [f.name for f in self.schema.of_group(g)] for g in self.lookups}
        return sample_checksums(found, {group: names for group, names in own.items() if names})


def bucket_of(session: I64, num_buckets: int) -> I64:
    """The bucket of each session key: int64 [N] in [0, num_buckets), a power of two."""
    shift = np.uint64(64 - (num_buckets.bit_length() - 1))
    if num_buckets == 1:
        return np.zeros(len(session), np.int64)
    # Fibonacci hashing: neighbouring session ids spread over the buckets.
    return ((session.view(np.uint64) * GOLDEN) >> shift).astype(np.int64)


def _check_keys(table: pa.Table, first: int) -> None:
    named = ((SESSION, "session id"), (REQUEST, "request id"), (TIMESTAMP, "timestamp"), (SAMPLE_KEY, "sample key"))
    for name, what in (*named, (ORDER_KEY, "order key")):
        if name in table.column_names and table[name].null_count:
            row = first + int(np.argmax(table[name].is_null().to_numpy()))
            raise DataError(
                f"samples query: row {row} (and perhaps more) has no {what} (null or empty); "
                "filter such rows in the SQL"
            )


def _check_labels(table: pa.Table, labels: Iterable[str], first: int) -> None:
    for name in labels:
        bad = pc.invert(pc.fill_null(pc.is_finite(table[name]), False))
        if pc.any(bad).as_py():
            row = pc.index(bad, True).as_py()
            value = "null" if (value := table[name][row].as_py()) is None else value
            raise DataError(
                f"samples query: label '{name}' is {value} in row {first + row} (and perhaps more); "
                "filter such rows in the SQL, or say what a missing label means with coalesce"
            )


def _check_weights(table: pa.Table, feature: Feature, first: int) -> None:
    """A weight for each id: lists of other lengths are an error."""
    weights = str(feature.weights)
    ids, found = (pc.fill_null(pc.list_value_length(table[name]), 0).to_numpy() for name in (feature.name, weights))
    if (ids != found).any():
        row = int(np.argmax(ids != found))
        raise DataError(
            f"samples query: row {first + row}: feature '{feature.name}' has {ids[row]} ids and {found[row]} weights "
            f"in '{weights}'; give one weight for each id"
        )


def _moment(microseconds: int) -> str:
    """A time for people; what no calendar holds stays a number."""
    try:
        return str(np.datetime64(microseconds, "us")).split(".")[0]
    except (ValueError, OverflowError):
        return f"{microseconds} us"
