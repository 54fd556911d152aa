"""The tables that a run adds to, as they were when it began."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.etl.place.publish import check_notes
from recd_dist.etl.place.sketches import SKETCHES
from recd_dist.etl.place.statistics import STATISTICS
from recd_dist.etl.source.inspection import Inspection
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_options import NEWEST
from recd_dist.table.location import Location, contents
from recd_dist.table.manifest import NAME, Manifest, is_table, splits_of
from recd_dist.table.raw_file import RawFile
from recd_dist.table.schema import Schema

_FORMER_GAP, _GAP = "with less than", "with at most"
"""How earlier releases described sessions by gap, whose rule was the same."""


@dataclass(frozen=True)
class BaseTables:
    """The tables that a run adds to, one per split, as they were when it began.

    Attributes:
        kept_in: directory with copies of their manifests, sketches and statistics; None where the run adds to no table.
        splits: names of the source's splits.
        manifests: the manifest of each split; empty where the run adds to no table.
        first_part: number of the first part where the run adds to no table; above 0 where it replaces a table in a
            store, whose files must not be overwritten.
    """

    kept_in: Path | None
    splits: tuple[str, ...]
    manifests: dict[str, Manifest]
    first_part: int = 0

    @staticmethod
    def keep(directory: Path, out: Location, splits: tuple[str, ...]) -> "BaseTables":
        """Copies what a run must know of the tables that it adds to; a run that goes on reads the copies again.

        Args:
            directory: directory for the copies; where it exists, an earlier start of this run has made them.
            out: directory of the tables.
            splits: names of the source's splits.

        Raises:
            ConfigError: the tables have other splits than the source.
        """
        if not directory.is_dir():
            _copy_notes(directory, out, splits)
        if not any(directory.iterdir()):
            return BaseTables(None, splits, {})
        return BaseTables(directory, splits, {split: Manifest.load(directory / split) for split in splits})

    @property
    def schema(self) -> Schema | None:
        """Schema of the tables; None where the run adds to no table."""
        return next((m.schema for m in self.manifests.values()), None)

    @property
    def raw_files(self) -> tuple[RawFile, ...]:
        """The files whose samples the tables hold."""
        return next((m.raw_files for m in self.manifests.values()), ())

    @property
    def partitions(self) -> frozenset[str]:
        """Names of the partitions that the tables have."""
        return frozenset(p.partition for m in self.manifests.values() for p in m.parts if p.partition)

    @property
    def next_parts(self) -> dict[str, int]:
        """Per split the number of the next part."""
        return {split: self.manifests[split].next_part if self.manifests else self.first_part for split in self.splits}

    @property
    def next_samples(self) -> dict[str, int]:
        """Per split the number of the next sample."""
        return {split: self.manifests[split].next_sample if self.manifests else 0 for split in self.splits}

    @property
    def must_have(self) -> tuple[str, ...]:
        """Splits in which the run must put a sample: every split, unless it adds to tables."""
        return () if self.manifests else self.splits

    def parts_of(self, partitions: frozenset[str]) -> dict[str, frozenset[int]]:
        """Per split the numbers of the parts that belong to some partitions."""
        return {
            split: frozenset(part.number for part in manifest.parts if part.partition in partitions)
            for split, manifest in self.manifests.items()
        }

    def source_like_table(self, source: Source) -> Source:
        """The source with the rules of the tables for sessions and encodings, if there are tables."""
        tables = (source.like_table(one.sessions, readable_by(one)) for one in self.manifests.values())
        return next(tables, source)

    def check(self, inspection: Inspection, source: Source) -> None:
        """Refuses a source whose samples are not like those of the tables.

        Args:
            inspection: the inspected source.
            source: the source.

        Raises:
            DataError: the message names every difference.
        """
        if self.schema is None:
            return
        table = next(iter(self.manifests.values()))
        mistakes = list(_differences(table, inspection.schema, inspection.automatic))
        windows = {n: f.window for n, f in source.features.items() if f.window is not None and n in table.schema}
        for name, window in windows.items():
            if table.schema[name].window != window:
                mistakes.append(f"feature '{name}': its window was {table.schema[name].window}, is now {window}")
        for what, before, now in (
            ("data.partition", table.partition, source.partition),
            ("data.readable_by", readable_by(table), source.readable_by),
            ("a session", table.sessions.replace(_FORMER_GAP, _GAP), source.session_words),
        ):
            if before != now:
                mistakes.append(f"{what} was '{before}', is now '{now}'")
        if mistakes:
            raise DataError(
                "append: the new samples are not like those of the table: "
                + "\n  ".join(mistakes)
                + "\n  bring them to the same form in data.samples, or make the table anew with overwrite=true"
            )


def readable_by(manifest: Manifest) -> str:
    """The engines that can read a table; tables of earlier releases need the newest."""
    return str(manifest.source.get("readable_by", NEWEST))


def manifests_of_run(out: Location, splits: tuple[str, ...], run: str) -> dict[str, Manifest] | None:
    """The manifests of tables that a run has made or added to.

    Args:
        out: directory of the tables.
        splits: names of the splits.
        run: id of the run.

    Returns:
        Per split its manifest; None unless the run has made or added to the table of every split.
    """
    if not all(is_table(out / split) for split in splits):
        return None
    manifests = {split: Manifest.load(out / split) for split in splits}
    return manifests if all(run in manifest.runs for manifest in manifests.values()) else None


def _copy_notes(directory: Path, out: Location, splits: tuple[str, ...]) -> None:
    """Copies manifests, sketches and statistics of the tables, if there are any.

    The directory appears when everything is copied; it stays empty where there are no tables.
    """
    partial = directory.with_name("base.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    if not isinstance(out, Path):
        check_notes(out)
    if there := sorted(splits_of(out), reverse=True):
        if there != sorted(splits, reverse=True):
            raise ConfigError(
                f"append: {out} holds {', '.join(there)}, the source now has {', '.join(splits)}; data.split "
                "must be as it was"
            )
        for split in splits:
            (partial / split).mkdir()
            for name in (NAME, SKETCHES, STATISTICS):
                (partial / split / name).write_bytes(contents(out / split / name))
    partial.rename(directory)


def _differences(table: Manifest, now: Schema, automatic: bool) -> Iterator[str]:
    """Names every difference between a table and the source's schema of today.

    Args:
        table: manifest of the table.
        now: schema of the source.
        automatic: the source leaves the groups to the data, so that they are not compared.
    """
    before = table.schema
    old, new = {f.name: f for f in before.features}, {f.name: f for f in now.features}
    yield from (f"feature '{n}' is gone{nearest(n, new)}" for n in old if n not in new)
    yield from (f"feature '{n}' is new{nearest(n, old)}" for n in new if n not in old)
    for name in (n for n in old if n in new):
        for what in ("kind", "table", "weights", *(() if automatic else ("group",))):
            one, other = getattr(old[name], what), getattr(new[name], what)
            single = (one, other) == ("ids", "id") and table.features[name].max_length < 2  # one id, sometimes missing
            if one != other and not single:
                yield f"feature '{name}': its {what} was {one}, is now {other}"
    if before.labels != now.labels:
        yield f"labels were {list(before.labels)}, are now {list(now.labels)}"
