"""The last step: manifests, and the tables put in place.

::

    new table     table/ is renamed                           readers see nothing, then everything
    overwrite     table/ and the old one are exchanged        readers see the old, then the new
    append        files are moved in, then the manifest       files that no manifest names are no part of a table
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.etl.deal.tally import Dropped
from recd_dist.etl.place.publish import check_whole, publish
from recd_dist.etl.place.sketches import SKETCHES, load_sketches, save_sketches
from recd_dist.etl.place.statistics import STATISTICS, PartStatistics, load_statistics, save_statistics, summed
from recd_dist.etl.place.work_directory import replaced
from recd_dist.etl.source.inspection import Inspection
from recd_dist.etl.source.source import Source
from recd_dist.etl.write.measure import Distinct
from recd_dist.etl.write.part import Form, Result
from recd_dist.etl.write.write_parts import Written
from recd_dist.screen.progress import Progress
from recd_dist.table.location import Location, contents
from recd_dist.table.manifest import NAME, Manifest, is_table, splits_of
from recd_dist.table.schema import Schema

logger = logging.getLogger(__name__)

_CHECKSUMS = "dropped_checksums"  # verify.py adds them to those of the table


@dataclass(frozen=True)
class Tables:
    """The tables that a run adds to.

    Attributes:
        kept_in: directory with copies of their manifests and sketches; None where there are no tables.
        splits: of the source.
        first_part: number of the first part where no table is added to but one is replaced in a store.
        manifests: per split; empty where nothing is there yet.
    """

    kept_in: Path | None
    splits: tuple[str, ...]
    manifests: dict[str, Manifest]
    first_part: int = 0

    @staticmethod
    def kept(directory: Path, out: Location, splits: tuple[str, ...]) -> "Tables":
        """The tables as they were when the run began, whatever it has added since.

        Args:
            directory: where their manifests are kept.
            out: directory of the tables.
            splits: of the source.

        Raises:
            ConfigError: tables of other splits than the source has.
        """
        if not directory.is_dir():
            partial = directory.with_name("base.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            if not isinstance(out, Path):
                check_whole(out)
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
        if not any(directory.iterdir()):
            return Tables(None, splits, {})
        return Tables(directory, splits, {split: Manifest.load(directory / split) for split in splits})

    @property
    def schema(self) -> Schema | None:
        """Of the tables."""
        return next((m.schema for m in self.manifests.values()), None)

    @property
    def partitions(self) -> frozenset[str]:
        """Partitions that are there."""
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
        """Splits that need a new sample: all, unless tables are added to."""
        return () if self.manifests else self.splits

    def parts_of(self, partitions: frozenset[str]) -> dict[str, frozenset[int]]:
        """Per split the numbers of the parts in some partitions."""
        return {
            split: frozenset(part.number for part in manifest.parts if part.partition in partitions)
            for split, manifest in self.manifests.items()
        }

    def check(self, inspection: Inspection, source: Source) -> None:
        """Refuses a source whose samples are not like those of the tables.

        Raises:
            DataError: every difference, by name.
        """
        if self.schema is None:
            return
        made = next(iter(self.manifests.values()))
        mistakes = list(_differences(made, inspection.schema, inspection.automatic))
        for what, before, now in (
            ("data.partition", made.partition, source.partition),
            ("a session", made.sessions, source.session_words),
        ):
            if before != now:
                mistakes.append(f"{what} was '{before}', is now '{now}'")
        if mistakes:
            raise DataError(
                "append: the new samples are not like those of the table: "
                + "\n  ".join(mistakes)
                + "\n  bring them to the same form in data.samples, or make the table anew with overwrite=true"
            )


def made_by(out: Location, splits: tuple[str, ...], run: str) -> dict[str, Manifest] | None:
    """The tables' manifests, if a run has made or added to all of them."""
    if not all(is_table(out / split) for split in splits):
        return None
    manifests = {split: Manifest.load(out / split) for split in splits}
    return manifests if all(run in manifest.runs for manifest in manifests.values()) else None


def _differences(made: Manifest, now: Schema, automatic: bool) -> list[str]:
    """What has changed since a table was made, by name."""
    before = made.schema
    old, new = {f.name: f for f in before.features}, {f.name: f for f in now.features}
    found = [f"feature '{n}' is gone{nearest(n, new)}" for n in old if n not in new]
    found += [f"feature '{n}' is new{nearest(n, old)}" for n in new if n not in old]
    for name in (n for n in old if n in new):
        for what in ("kind", "table", "weights", *(() if automatic else ("group",))):
            one, other = getattr(old[name], what), getattr(new[name], what)
            single = (one, other) == ("ids", "id") and made.features[name].max_length < 2  # one id, sometimes missing
            if one != other and not single:
                found.append(f"feature '{name}': its {what} was {one}, is now {other}")
    if before.labels != now.labels:
        found.append(f"labels were {list(before.labels)}, are now {list(now.labels)}")
    return found


@dataclass(frozen=True)
class Made:
    """What has been written, before it is put in place.

    Attributes:
        source, inspection, form: what was made, of what.
        written: the parts.
        run: id of the run.
        replaces: numbers of parts that the new ones take the place of, per split; partitions that come again, say.
        describes: the manifest whose words are kept, where parts were only merged.
    """

    source: Source
    inspection: Inspection
    form: Form
    written: Written
    run: str
    replaces: Mapping[str, frozenset[int]] = field(default_factory=dict)
    describes: Manifest | None = None


def finished(work: Path, out: Location, made: Made, base: Tables, bar: Progress | None = None) -> dict[str, Manifest]:
    """Writes manifests and puts the tables in place.

    Args:
        work: directory of work; the new files lie in its ``table``.
        out: place of the tables.
        made: what was written.
        base: the tables that are added to.
        bar: told of what is uploaded.
    """
    table = work / "table"
    ids = made.written.ids
    if base.kept_in is not None:
        for name, distinct in load_sketches(base.kept_in / base.splits[0] / SKETCHES).items():
            ids.setdefault(name, Distinct()).merge(distinct)
    statistics = {split: _statistics(split, made, base) for split in made.written.parts}
    train = summed(statistics[base.splits[0]])
    manifests = {
        split: _manifest(split, made, summed(statistics[split]), train, ids, base) for split in made.written.parts
    }
    for split in manifests:
        (table / split).mkdir(parents=True, exist_ok=True)
        save_sketches(table / split / SKETCHES, ids)
        save_statistics(table / split / STATISTICS, statistics[split])
    for split, manifest in manifests.items():
        manifest.save(table / split)
    if not isinstance(out, Path):
        if bar is not None:
            bar.uploading(sum(file.num_bytes for r in _results(made) for file in r.parts[0].files))
        publish(table, out, overwrite=True, progress=bar.advance if bar is not None else None)
    elif base.kept_in is None:
        replaced(table, out)
    else:
        for split, manifest in manifests.items():
            _moved(table / split, out / split)
            manifest.save(out / split)
            _removed(out / split, base.manifests[split], manifest)
    return manifests


def _results(made: Made) -> list[Result]:
    return [result for results in made.written.parts.values() for result in results]


def _moved(source: Path, target: Path) -> None:
    """Moves the data of one table into another, which has no files of these names."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.name != NAME:
            place = target / path.relative_to(source)
            place.parent.mkdir(exist_ok=True)
            shutil.move(path, place)


def _removed(table: Path, before: Manifest, now: Manifest) -> None:
    """Removes files that the manifest no longer names; a reader that has them open reads on."""
    kept = {file.path for part in now.parts for file in part.files}
    for file in (file for part in before.parts for file in part.files):
        if file.path not in kept:
            (table / file.path).unlink(missing_ok=True)


def _statistics(split: str, made: Made, base: Tables) -> dict[int, PartStatistics]:
    """What was measured of each part, old and new."""
    parts: dict[int, PartStatistics] = {}
    if base.kept_in is not None:
        found = load_statistics(base.kept_in / split / STATISTICS)
        gone = made.replaces.get(split, frozenset())
        parts = {p.number: found[p.number] for p in base.manifests[split].parts if p.number not in gone}
    return parts | {result.parts[0].number: result.features for result in made.written.parts[split]}


def _manifest(
    split: str,
    made: Made,
    measured: PartStatistics,
    train: PartStatistics,
    ids: Mapping[str, Distinct],
    base: Tables,
) -> Manifest:
    """Both splits' manifests agree on ids and on the numbers that inputs are standardized by (the train split's)."""
    before, gone = base.manifests.get(split), made.replaces.get(split, frozenset())
    kept = () if before is None else tuple(p for p in before.parts if p.number not in gone)
    parts = (*kept, *(result.parts[0] for result in made.written.parts[split]))
    dropped = _dropped(before) if before else Dropped()
    if made.describes is None:
        dropped.merge(made.written.dropped)
    words = _words(made, dropped)
    groups = made.form.schema.dedup_groups
    return Manifest(
        name=made.source.name,
        split=split,
        schema=made.form.schema,
        num_samples=sum(part.num_samples for part in parts),
        num_sessions=sum(part.num_sessions for part in parts),
        num_requests=sum(part.num_requests for part in parts),
        group_rows={group: sum(sum(part.groups[group].row_groups) for part in parts) for group in groups},
        features={f.name: measured[f.name].stats(train[f.name]) for f in made.form.schema.features},
        ids={table: distinct.stats() for table, distinct in ids.items()},
        parts=parts,
        source=words,
        sessions=made.describes.sessions if made.describes else made.source.session_words,
        dropped=dropped.counts,
        next_part=max([p.number + 1 for p in parts] + [before.next_part if before else 0]),
        next_sample=max([p.first_sample + p.num_samples for p in parts] + [before.next_sample if before else 0]),
        partition=made.source.partition,
        runs=(*(before.runs if before else ()), made.run),
    )


def _words(made: Made, dropped: Dropped) -> dict[str, Any]:
    """How the table was made."""
    if made.describes is not None:
        return made.describes.source
    words = asdict(made.source) | {"samples_sql": made.inspection.samples, "groups_sql": made.inspection.groups}
    words |= {"row_group_samples": made.form.row_group_samples, "compression": made.form.compression}
    return dict(_plain(words | {_CHECKSUMS: dropped.checksums}))


def _dropped(manifest: Manifest) -> Dropped:
    """What earlier runs left out, as the manifest has it."""
    checksums = {reason: dict(columns) for reason, columns in manifest.source.get(_CHECKSUMS, {}).items()}
    return Dropped(dict(manifest.dropped), checksums)


def _plain(value: Any) -> Any:
    """Tuples as lists, so that a manifest read back equals the one written."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def report(out: Location, manifests: Mapping[str, Manifest]) -> None:
    """Says in the log what was filled in and what was left out."""
    for split, manifest in manifests.items():
        filled = {name: stats.num_null for name, stats in manifest.features.items() if stats.num_null}
        if filled:
            shown = ", ".join(f"{name} {num}" for name, num in list(filled.items())[:20])
            logger.info("%s/%s: values missing and filled: %s", out, split, shown)
    dropped = next(iter(manifests.values())).dropped
    for reason, count in dropped.items():
        logger.info("%s: %s %s", out, f"{count:,}", _WORDS.get(reason, reason))


_WORDS = {
    "duplicate": "samples left out, which were there already",
    "duplicate_kept": "samples equal another in every value, and are kept",
    "late": "samples left out, which came late for their partition",
    "late_kept": "samples came late for their partition, and are kept",
    "time": "samples left out, whose time cannot be",
    "time_kept": "samples have a time that cannot be, and are kept",
    "sampled": "samples left out, whose sessions are not in the sample",
    "session_cut": "sessions are longer than eight row groups, and were cut",
}
