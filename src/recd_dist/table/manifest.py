"""The manifest, which describes a clustered table and is the last file written.

Layout of a table::

    TABLE/manifest.json
    TABLE/samples/part-00000.parquet   one row per sample: KEYS, labels, sample features, int64 <group>_row per group
    TABLE/<group>/part-00000.parquet   one row per unique row: row (int64), the group's features
    TABLE/<group>.stream/part-00000.parquet   one row per stream: stream (int64), lists that the group's windows lie in

A directory with a manifest holds a whole table. Row group i of part n of ``samples`` refers only to row group i of part
n of each group. A table never gives the number of a part twice, so that no file of a newer state overwrites one of an
older state.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.files.json_text import json_text
from recd_dist.table.announcement import Announcement
from recd_dist.table.location import Location, contents, directories, file_size, put
from recd_dist.table.raw_file import RawFile
from recd_dist.table.schema import Schema

FORMAT = "recd_dist.table"
NAME = "manifest.json"
VERSION = 2

ROW = "row"
"""Column of a group: the number of each row, to which ``<group>_row`` of ``samples`` refers."""
STREAM = "stream"
"""Column of a group with windows: the stream in which the windows of a row lie; and of its streams: their numbers."""
_REMEDY = "make the table again with `recd etl`"


def stream_directory(group: str) -> str:
    """The directory in which the streams of a group lie."""
    return f"{group}.stream"


def start_of(feature: str) -> str:
    """The column that says where a row's window begins in its stream, int32."""
    return f"{feature}_start"


def length_of(feature: str) -> str:
    """The column that says how many ids a row's window holds, int32."""
    return f"{feature}_length"


@dataclass(frozen=True)
class FileEntry:
    """One Parquet file.

    Attributes:
        path: relative to the directory of the table.
        row_groups: rows of each row group.
        num_bytes: size of the file.
        crc32: CRC-32 of its bytes.
    """

    path: str
    row_groups: tuple[int, ...]
    num_bytes: int
    crc32: int

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "FileEntry":
        """The entry of which ``asdict`` made a dict.

        Raises:
            DataError: the path leads out of the table, where files could be read, and removed when the table changes.
        """
        path = PurePosixPath(value["path"])
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"manifest.json names {path}, outside the table: do not use a table that holds this")
        return FileEntry(value["path"], tuple(value["row_groups"]), value["num_bytes"], value["crc32"])


@dataclass(frozen=True)
class Part:
    """Part n of ``samples`` and of every deduplicated group; their row groups correspond one to one.

    Attributes:
        samples: the file of its samples.
        groups: for each deduplicated group the file of its rows.
        streams: for each group with windows the file of its streams.
        partition: day or hour in which its sessions begin, such as ``2026-11-25``; empty in a table without partitions.
        number: n, which every row number contains. Its place in ``Manifest.parts`` may be another number.
        num_sessions, num_requests: sessions and requests of its samples.
        first_sample: ``sample_id`` of its first sample, from which those of the others count on.
    """

    samples: FileEntry
    groups: dict[str, FileEntry]
    streams: dict[str, FileEntry] = field(default_factory=dict)
    partition: str = ""
    number: int = 0
    num_sessions: int = 0
    num_requests: int = 0
    first_sample: int = 0

    @property
    def num_samples(self) -> int:
        """Number of its samples."""
        return sum(self.samples.row_groups)

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """All files of the part: samples, groups and streams."""
        return (self.samples, *self.groups.values(), *self.streams.values())

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; ``Part.from_json`` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Part":
        """The part that ``to_json`` wrote."""
        groups, streams = (
            {g: FileEntry.from_json(f) for g, f in value[kind].items()} for kind in ("groups", "streams")
        )
        names = ("partition", "number", "num_sessions", "num_requests", "first_sample")
        return Part(FileEntry.from_json(value["samples"]), groups, streams, *(value[name] for name in names))


@dataclass(frozen=True)
class FeatureStats:
    """What the writer measured of a feature.

    Attributes:
        num_values_unique: ids (or numbers) that are stored, of unique rows.
        num_values_expanded: ids (or numbers) that there would be if every sample carried its own copy.
        max_length: ids of the longest list.
        stay_rate: d, the share of the pairs of neighbouring samples of one session in which the value stays the same;
            nan where there is no pair.
        num_null: values that the source misses, filled as the docs say.
        mean, std, min, max: statistics of a dense feature over all samples; 0 for ids.
        num_pairs: pairs of neighbouring samples of one session, of which ``stay_rate`` is a share.
    """

    num_values_unique: int
    num_values_expanded: int
    max_length: int
    stay_rate: float
    num_null: int = 0
    mean: float = 0.0
    std: float = 0.0
    min: float = 0.0
    max: float = 0.0
    num_pairs: int = 0


@dataclass(frozen=True)
class IdStats:
    """The raw ids of one embedding table, in every feature that looks it up and in every split of the source.

    Attributes:
        min_id, max_id: smallest and largest raw id; 0 and -1 when there is none.
        num_distinct: number of distinct ids, exact or estimated within a few percent.
    """

    min_id: int
    max_id: int
    num_distinct: int


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says.

    Attributes:
        name, split: name of the source and of its split, such as ``ebnerd`` and ``train``.
        schema: features, groups and labels.
        num_samples, num_sessions, num_requests: samples, sessions and requests of this table.
        group_rows: for each deduplicated group the unique rows that are stored.
        features: statistics of each feature.
        ids: statistics of each embedding table.
        parts: the parts with their files.
        source: how the table was made (SQL, keys, options), for people.
        sessions: what a session is, in plain words.
        dropped: samples that a policy left out, by reason (``duplicate``, ``late``, ``time``, ``sampled``), and what
            it kept but counted (``duplicate_kept``, ``late_kept``, ``time_kept``, ``session_cut``, ...).
        next_part, next_sample: the numbers of the next part and sample to be written.
        partition: the time by which parts are apart: ``day``, ``hour`` or empty.
        runs: ids of the ETL runs whose samples the table holds.
        labels: statistics of each label; empty in tables of older releases.
        raw_files: the files whose samples the table holds; empty in tables of older releases.
        notes: the files beside the manifest, such as the statistics; empty in tables of older releases.
        announcements: what these runs found in the logs that people may not expect; empty in tables of older releases.
    """

    name: str
    split: str
    schema: Schema
    num_samples: int
    num_sessions: int
    num_requests: int
    group_rows: dict[str, int]
    features: dict[str, FeatureStats]
    ids: dict[str, IdStats]
    parts: tuple[Part, ...]
    source: dict[str, Any] = field(default_factory=dict)
    sessions: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    next_part: int = 0
    next_sample: int = 0
    partition: str = ""
    runs: tuple[str, ...] = ()
    labels: dict[str, FeatureStats] = field(default_factory=dict)
    announcements: tuple[Announcement, ...] = ()
    raw_files: tuple[RawFile, ...] = ()
    notes: tuple[FileEntry, ...] = ()

    def dedup_factor(self, group: str) -> float:
        """Samples per stored row of a group (1.0 for ``sample``)."""
        rows = self.group_rows.get(group, self.num_samples)
        return self.num_samples / rows if rows else 1.0

    @property
    def sequences(self) -> frozenset[int]:
        """Places of the parts whose row groups an epoch keeps one after another; a clustered table has none."""
        return frozenset()

    @property
    def partitions(self) -> tuple[str, ...]:
        """Names of the partitions that have parts, sorted."""
        return tuple(sorted({part.partition for part in self.parts if part.partition}))

    def of_partitions(self, names: Collection[str]) -> "Manifest":
        """What the table would hold if it had some partitions only; statistics of features and ids stay those of all.

        Args:
            names: the partitions to keep.

        Raises:
            ConfigError: the table has no such partition.
        """
        for name in names:
            if name not in self.partitions:
                raise ConfigError(
                    f"data.partitions: table {self.name}/{self.split} has no partition '{name}'"
                    f"{nearest(name, self.partitions)}"
                )
        parts = tuple(part for part in self.parts if part.partition in names)
        return replace(
            self,
            parts=parts,
            num_samples=sum(part.num_samples for part in parts),
            num_sessions=sum(part.num_sessions for part in parts),
            num_requests=sum(part.num_requests for part in parts),
            group_rows={g: sum(sum(part.groups[g].row_groups) for part in parts) for g in self.group_rows},
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of all Parquet files of the table."""
        return sum(f.num_bytes for p in self.parts for f in p.files)

    def save(self, table: Location) -> None:
        """Writes ``manifest.json`` whole or not at all.

        Args:
            table: directory of one split.
        """
        value = {"format": FORMAT, "version": VERSION, **asdict(self), "schema": self.schema.to_json()}
        put(table / NAME, json_text(value).encode())

    @staticmethod
    def load(table: Location) -> "Manifest":
        """Reads a table's manifest.

        Args:
            table: directory of one split.

        Raises:
            DataError: there is no table, the file is no manifest, or this release cannot read its version.
        """
        path = table / NAME
        try:
            value = json.loads(contents(path))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise DataError(
                f"{table}: no clustered table here (no manifest.json); make it with `recd etl data=...`"
            ) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not readable as JSON ({error}); {_REMEDY}") from error
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise DataError(f"{path}: not a manifest of a clustered table; is this the right directory?")
        if value.get("version") != VERSION:
            raise DataError(
                f"{path}: table version {value.get('version')}, this release reads {VERSION}; "
                f"{_REMEDY} or use the release that wrote it"
            )
        try:
            return manifest_from_json(value)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: incomplete manifest ({error!r}); {_REMEDY}") from error


def is_table(table: Location) -> bool:
    """Whether a directory holds one split of a table."""
    return file_size(table / NAME) is not None


def splits_of(root: Location) -> list[str]:
    """Names of the splits that a directory holds, sorted."""
    return [name for name in directories(root) if is_table(root / name)]


def _null_to_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _stats_from_json(value: Mapping[str, Any]) -> dict[str, FeatureStats]:
    return {
        name: FeatureStats(**stats | {"stay_rate": _null_to_nan(stats["stay_rate"])}) for name, stats in value.items()
    }


def manifest_from_json(value: Mapping[str, Any]) -> Manifest:
    """The manifest whose attributes JSON has kept."""
    return Manifest(
        name=value["name"],
        split=value["split"],
        schema=Schema.from_json(value["schema"]),
        num_samples=value["num_samples"],
        num_sessions=value["num_sessions"],
        num_requests=value["num_requests"],
        group_rows=dict(value["group_rows"]),
        features=_stats_from_json(value["features"]),
        ids={k: IdStats(**v) for k, v in value["ids"].items()},
        parts=tuple(Part.from_json(p) for p in value["parts"]),
        source=dict(value["source"]),
        sessions=value["sessions"],
        dropped=dict(value["dropped"]),
        next_part=value["next_part"],
        next_sample=value["next_sample"],
        partition=value["partition"],
        runs=tuple(value["runs"]),
        labels=_stats_from_json(value.get("labels", {})),
        announcements=tuple(map(Announcement.from_json, value.get("announcements", ()))),
        raw_files=tuple(map(RawFile.from_json, value.get("raw_files", ()))),
        notes=tuple(map(FileEntry.from_json, value.get("notes", ()))),
    )
