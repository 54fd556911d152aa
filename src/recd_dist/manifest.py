"""``manifest.json``: what a clustered table holds, written last, so that a table is whole or absent.

Layout of a table::

    TABLE/manifest.json
    TABLE/samples/part-00000.parquet   one row per sample: KEYS, labels, sample features, int64 <group>_row per group
    TABLE/<group>/part-00000.parquet   one row per unique row: row (int64), the group's features

Row group i of part n of ``samples`` refers only to row group i of part n of each group.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recd_dist.errors import DataError
from recd_dist.schema import Schema

FORMAT = "recd_dist.table"
VERSION = 1


@dataclass(frozen=True)
class FileEntry:
    """One Parquet file: path relative to the table, rows of each row group, size and CRC-32 of its bytes."""

    path: str
    row_groups: tuple[int, ...]
    num_bytes: int
    crc32: int


@dataclass(frozen=True)
class Part:
    """Part n of ``samples`` and of every deduplicated group; their row groups correspond one to one."""

    samples: FileEntry
    groups: dict[str, FileEntry]


@dataclass(frozen=True)
class FeatureStats:
    """Measured by the writer.

    Attributes:
        num_values_unique: ids (or numbers) stored, over unique rows.
        num_values_expanded: ids (or numbers) when every sample carries its own copy.
        max_length: longest list.
        stay_rate: d, the share of neighbouring samples of one session whose value is the same (nan: no neighbours).
        num_null: values missing in the source, filled as the docs say.
        mean, std, min, max: over samples, dense features only, else 0.
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


@dataclass(frozen=True)
class IdStats:
    """Raw ids of one embedding table, over every feature that looks it up and every split of the source.

    Attributes:
        min_id, max_id: smallest and largest raw id (0 and -1 when there is none).
        num_distinct: distinct ids, exact or estimated within a few percent.
    """

    min_id: int
    max_id: int
    num_distinct: int


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says.

    Attributes:
        name, split: of the source, e.g. ``ebnerd`` and ``train``.
        schema: features, groups, labels.
        num_samples, num_sessions, num_requests: counts of this table.
        group_rows: unique rows stored per deduplicated group.
        features: statistics per feature.
        ids: statistics per embedding table.
        parts: the files.
        source: how it was made (SQL, keys, options), for people.
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

    def dedup_factor(self, group: str) -> float:
        """Samples per stored row of a group (1.0 for ``sample``)."""
        rows = self.group_rows.get(group, self.num_samples)
        return self.num_samples / rows if rows else 1.0

    @property
    def num_bytes(self) -> int:
        """Bytes of all Parquet files of the table."""
        return sum(f.num_bytes for p in self.parts for f in (p.samples, *p.groups.values()))

    def save(self, table: Path) -> None:
        """Writes ``manifest.json`` whole or not at all (written beside, flushed, renamed)."""
        value = {"format": FORMAT, "version": VERSION, **asdict(self), "schema": self.schema.to_json()}
        partial = table / ".manifest.json.partial"
        with partial.open("w") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(table / "manifest.json")

    @staticmethod
    def load(table: Path) -> "Manifest":
        """Reads a table's manifest.

        Args:
            table: the table's directory (one split).

        Raises:
            DataError: no such table, not a manifest, or a version that this release cannot read.
        """
        path = table / "manifest.json"
        if not path.is_file():
            raise DataError(f"{table}: no clustered table here (no manifest.json); make it with `recd etl data=...`")
        try:
            value = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not readable as JSON ({error}); make the table again with `recd etl`") from error
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise DataError(f"{path}: not a manifest of a clustered table; is this the right directory?")
        if value.get("version") != VERSION:
            raise DataError(
                f"{path}: table version {value.get('version')}, this release reads {VERSION}; "
                "make the table again with `recd etl` or use the release that wrote it"
            )
        try:
            return _from_json(value)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: incomplete manifest ({error!r}); make the table again with `recd etl`") from error


def _file(value: Mapping[str, Any]) -> FileEntry:
    return FileEntry(value["path"], tuple(value["row_groups"]), value["num_bytes"], value["crc32"])


def _from_json(value: Mapping[str, Any]) -> Manifest:
    return Manifest(
        name=value["name"],
        split=value["split"],
        schema=Schema.from_json(value["schema"]),
        num_samples=value["num_samples"],
        num_sessions=value["num_sessions"],
        num_requests=value["num_requests"],
        group_rows=dict(value["group_rows"]),
        features={k: FeatureStats(**v) for k, v in value["features"].items()},
        ids={k: IdStats(**v) for k, v in value["ids"].items()},
        parts=tuple(Part(_file(p["samples"]), {g: _file(f) for g, f in p["groups"].items()}) for p in value["parts"]),
        source=dict(value["source"]),
    )
