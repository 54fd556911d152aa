"""What reading notes of samples: ranges of ids, missing values, samples left out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recd_dist.etl.deal.label_values import LabelValues
from recd_dist.etl.deal.null_texts import announce_null_texts
from recd_dist.etl.deal.value_range import ValueRange
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.time_units import check_unit
from recd_dist.table.announcement import Announcement


@dataclass
class Dropped:
    """Samples that policies leave out.

    Attributes:
        counts: the number of samples, by reason.
        checksums: the sum of the row hashes modulo 2**64, by reason and column, so that it can be checked that
            source = table + dropped.
    """

    counts: dict[str, int] = field(default_factory=dict)
    checksums: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, reason: str, count: int, checksums: Mapping[str, int]) -> None:
        """Adds ``count`` samples that are left out for one reason, with their checksums by column."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        sums = self.checksums.setdefault(reason, {})
        for name, value in checksums.items():
            sums[name] = (sums.get(name, 0) + value) % 2**64

    def merge(self, other: "Dropped") -> None:
        """Adds the samples that another one counts."""
        for reason, count in other.counts.items():
            self.add(reason, count, other.checksums.get(reason, {}))


@dataclass
class Tally:
    """What is noted of some batches of the samples query.

    Attributes:
        seen: the range of the values that were seen, by feature.
        labels: the values of each label.
        null_texts: the number of each text that means a missing value, such as ``NULL``, by column.
        times: the range of timestamps that are integers, whose unit nobody has said.
        num_unlinked: the number of samples without a row in the group's query, by group with its own query.
        dropped: the samples that policies leave out which look at one sample alone.
        num_rows: the number of rows of the query.
    """

    seen: dict[str, ValueRange] = field(default_factory=dict)
    num_unlinked: dict[str, int] = field(default_factory=dict)
    dropped: Dropped = field(default_factory=Dropped)
    num_rows: int = 0
    labels: dict[str, LabelValues] = field(default_factory=dict)
    times: ValueRange = field(default_factory=ValueRange)
    null_texts: dict[str, dict[str, int]] = field(default_factory=dict)

    def merge(self, other: "Tally") -> None:
        """Adds what was noted of other batches."""
        for name, seen in other.seen.items():
            self.seen.setdefault(name, ValueRange()).merge(seen)
        for name, values in other.labels.items():
            self.labels.setdefault(name, LabelValues()).merge(values)
        for group, count in other.num_unlinked.items():
            self.num_unlinked[group] = self.num_unlinked.get(group, 0) + count
        self.times.merge(other.times)
        for name, texts in other.null_texts.items():
            self.add_null_texts(name, texts)
        self.dropped.merge(other.dropped)
        self.num_rows += other.num_rows

    def add_null_texts(self, name: str, texts: Mapping[str, int]) -> None:
        """Adds the texts of a column that mean a missing value, with the number of each."""
        if texts:
            counts = self.null_texts.setdefault(name, {})
            for text, count in texts.items():
                counts[text] = counts.get(text, 0) + count

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Tally":
        """The tally that ``dataclasses.asdict`` turned into plain values."""
        seen = {name: ValueRange(**fields) for name, fields in value["seen"].items()}
        labels = {name: LabelValues(**fields) for name, fields in value["labels"].items()}
        return Tally(
            seen,
            dict(value["num_unlinked"]),
            Dropped(**value["dropped"]),
            value["num_rows"],
            labels,
            ValueRange(**value["times"]),
            value["null_texts"],
        )

    def announcements(self, source: Source, texts: Mapping[str, str]) -> tuple[Announcement, ...]:
        """What people may not expect of the rows.

        Args:
            source: names labels and keys.
            texts: what the columns that are texts upstream are called there.

        Raises:
            DataError: timestamps in several units.
        """
        found = (
            check_unit(source.keys["timestamp"], self.times.min_id, self.times.max_id)
            if "timestamp" in source.keys
            else []
        )
        labels = [name for name in source.labels if name != source.weight]
        for number, name in enumerate(labels):
            found += self.labels[name].announcements(name, trained=number == 0)
        if source.reading.null_values:  # people have said what means missing, and what does not
            return tuple(found)
        return (*found, *announce_null_texts(texts, self.null_texts, self.num_rows))
