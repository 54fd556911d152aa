"""Small clustered tables, written by hand as the manifest's docstring lays them out."""

import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.reader.loader import Loader
from recd_dist.reader.order import permutation
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.manifest import FeatureStats, FileEntry, IdStats, Manifest, Part
from recd_dist.table.schema import Feature, Kind, Schema, Table

SCHEMA = Schema(
    (
        Feature("history", Kind.ids, "user", "item"),
        Feature("age", Kind.dense, "user"),
        Feature("country", Kind.id, "profile", "country"),
        Feature("candidate", Kind.id, "sample", "item"),
        Feature("tags", Kind.ids, "sample", "tag"),
        Feature("price", Kind.dense, "sample"),
    ),
    ("clicked",),
)
TABLES = {
    "item": Table("item", 50, 4),
    "country": Table("country", 64, 4, hashed=True),
    "tag": Table("tag", 10, 4),
}


@dataclass(frozen=True)
class Sample:
    """One sample, flat: what a batch must hold for it."""

    session: int
    history: list[int]
    age: float
    country: int
    candidate: int
    tags: list[int]
    price: float
    clicked: float
    time: int | None = None


def samples_of(num_sessions: int, seed: int = 0) -> list[Sample]:
    """Sessions of 1 to 9 samples; history, age and country seldom change inside one."""
    rng = np.random.default_rng(seed)
    samples = []
    for session in range(num_sessions):
        history, age, country = rng.integers(0, 50, rng.integers(0, 6)).tolist(), float(rng.integers(18, 80)), -session
        for _ in range(rng.integers(1, 10)):
            if rng.random() < 0.2:
                history = [*history[1:], int(rng.integers(0, 50))]
            tags = rng.integers(0, 10, rng.integers(0, 3)).tolist()
            price, clicked = float(np.float32(rng.normal(5, 3))), float(rng.random() < 0.3)
            samples.append(Sample(session, history, age, country, int(rng.integers(0, 50)), tags, price, clicked))
    return samples


def int_list(rows: list[list[int]], item: pa.DataType) -> pa.Array:
    offsets = pa.array(np.cumsum([0, *map(len, rows)]), pa.int32())
    flat = pa.array([i for row in rows for i in row], item)
    return pa.ListArray.from_arrays(offsets, flat, type=pa.list_(pa.field("item", item, nullable=False)))


def write_file(path: Path, row_groups: list[dict[str, pa.Array]]) -> FileEntry:
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([pa.field(n, c.type, nullable=False) for n, c in row_groups[0].items()])
    with pq.ParquetWriter(path, schema) as writer:
        for columns in row_groups:
            writer.write_table(pa.Table.from_arrays(list(columns.values()), schema=schema))
    data = path.read_bytes()
    relative = f"{path.parent.name}/{path.name}"
    return FileEntry(relative, tuple(len(next(iter(c.values()))) for c in row_groups), len(data), zlib.crc32(data))


def row_group_columns(
    samples: list[Sample], first_sample: int, first_rows: dict[str, int], part: int
) -> dict[str, dict[str, pa.Array]]:
    """A row group of the samples and of each group; neighbours that are equal share a row."""
    columns, stored = {}, {}
    for group, names in (("user", ("history", "age")), ("profile", ("country",))):
        rows, unique, last = [], [], None
        for s in samples:
            value = (s.session, [getattr(s, n) for n in names])
            if value != last:
                unique.append(value[1])
                last = value
            rows.append((part << 40) + first_rows[group] + len(unique) - 1)
        columns[group] = pa.array(rows, pa.int64())
        numbers = (part << 40) + first_rows[group] + np.arange(len(unique))
        stored[group] = {"row": pa.array(numbers, pa.int64())}
        for i, n in enumerate(names):
            values = [u[i] for u in unique]
            stored[group][n] = {
                "history": lambda v: int_list(v, pa.int32()),
                "age": lambda v: pa.array(v, pa.float32()),
                "country": lambda v: pa.array(v, pa.int64()),
            }[n](values)
        first_rows[group] += len(unique)
    numbers = first_sample + np.arange(len(samples))
    stored["samples"] = {
        "sample_id": pa.array(numbers, pa.int64()),
        "session_id": pa.array([s.session for s in samples], pa.int64()),
        "request_id": pa.array(numbers // 2, pa.int64()),
        "timestamp": pa.array(
            [n if s.time is None else s.time for n, s in zip(numbers, samples, strict=True)], pa.int64()
        ),
        "clicked": pa.array([s.clicked for s in samples], pa.float32()),
        "user_row": columns["user"],
        "profile_row": columns["profile"],
        "candidate": pa.array([s.candidate for s in samples], pa.int32()),
        "tags": int_list([s.tags for s in samples], pa.int32()),
        "price": pa.array([s.price for s in samples], pa.float32()),
    }
    return stored


def split_sessions(samples: list[Sample], size: int) -> list[list[Sample]]:
    """Row groups of about so many samples, sessions whole."""
    groups: list[list[Sample]] = [[]]
    for i, s in enumerate(samples):
        if len(groups[-1]) >= size and s.session != samples[i - 1].session:
            groups.append([])
        groups[-1].append(s)
    return groups


def write_table(
    table: Path, samples: list[Sample], row_group_size: int = 20, row_groups_per_part: int = 3, split: str = "train"
) -> Manifest:
    """Writes a clustered table of these samples and returns its manifest."""
    groups = split_sessions(samples, row_group_size)
    parts, first_sample, num_rows = [], 0, {"user": 0, "profile": 0}
    for number, begin in enumerate(range(0, len(groups), row_groups_per_part)):
        stored, first_rows = [], {"user": 0, "profile": 0}
        for group in groups[begin : begin + row_groups_per_part]:
            stored.append(row_group_columns(group, first_sample, first_rows, number))
            first_sample += len(group)
        entries = {
            name: write_file(table / name / f"part-{number:05d}.parquet", [s[name] for s in stored])
            for name in stored[0]
        }
        parts.append(Part(entries.pop("samples"), entries))
        num_rows = {g: num_rows[g] + first_rows[g] for g in num_rows}
    ages, prices = [s.age for s in samples], [s.price for s in samples if np.isfinite(s.price)]
    stats = {
        f.name: FeatureStats(0, 0, 0, 0.8, 0, *((np.mean(v), np.std(v), min(v), max(v)) if v else ()))
        for f, v in zip(SCHEMA.features, ([], ages, [], [], [], prices), strict=True)
    }
    manifest = Manifest(
        name="small", split=split, schema=SCHEMA, num_samples=len(samples),
        num_sessions=len({s.session for s in samples}), num_requests=len(samples) // 2, group_rows=num_rows,
        features=stats, ids={"item": IdStats(0, 49, 50), "country": IdStats(-99, 0, 100), "tag": IdStats(0, 9, 10)},
        parts=tuple(parts),
    )  # fmt: skip
    manifest.save(table)
    return manifest


@dataclass(frozen=True)
class SmallTable:
    path: Path
    samples: list[Sample]
    manifest: Manifest
    schema: Schema = SCHEMA
    tables: dict[str, Table] = field(default_factory=lambda: dict(TABLES))

    @property
    def clustered(self) -> ClusteredTable:
        """The table as it stands on disk now."""
        return ClusteredTable.load(self.path)

    def sample(self, number: int) -> dict:
        """A sample as a batch shows it: raw features in lists, ids of hashed tables left out."""
        s = self.samples[number]
        return {
            "history": s.history, "candidate": [s.candidate], "tags": s.tags, "age": s.age, "price": s.price,
            "clicked": s.clicked, "request": number // 2,
        }  # fmt: skip


def loader(table, **options):
    options = {"batch_size": 32, "window": 3, "tables": table.tables, "schema": table.schema} | options
    return Loader(table.clustered, options.pop("schema"), options.pop("tables"), **options)


def batches(table, **options):
    reader = loader(table, **options)
    try:
        return list(reader)
    finally:
        reader.close()


def ids_of(found):
    return [i for b in found for i in b.sample_ids.tolist()]


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> SmallTable:
    """About 350 samples in 60 sessions, about 14 row groups in 5 parts. Read only."""
    samples = samples_of(60)
    path = tmp_path_factory.mktemp("small")
    return SmallTable(path, samples, write_table(path, samples))


@pytest.fixture(scope="session")
def dated(tmp_path_factory) -> SmallTable:
    """The same samples at times that go across parts, some of them equal, and parts of three days. Read only."""
    started = permutation(60, 1)
    samples = [replace(s, time=int(started[s.session]) * 3 + n % 7) for n, s in enumerate(samples_of(60))]
    path = tmp_path_factory.mktemp("dated")
    manifest = write_table(path, samples)
    days = ["2026-11-27", "2026-11-25", "2026-11-26"]
    parts = tuple(replace(part, partition=days[n % 3]) for n, part in enumerate(manifest.parts))
    manifest = replace(manifest, parts=parts, partition="day", source={"keys": {"timestamp": "at"}})
    manifest.save(path)
    return SmallTable(path, samples, manifest)


@pytest.fixture
def spoiled(tmp_path):
    """Writes a small table with one sample changed."""

    def write(number: int = 130, **changes) -> SmallTable:
        samples = samples_of(60)
        samples[number] = replace(samples[number], **changes)
        return SmallTable(tmp_path, samples, write_table(tmp_path, samples))

    return write


@pytest.fixture
def rewrite():
    """Changes the columns of a file behind the reader's back, manifest brought up to date."""

    def write(table: SmallTable, name: str, change) -> None:
        path = table.path / name
        file = pq.ParquetFile(path)
        groups = [file.read_row_group(i) for i in range(file.num_row_groups)]
        changed = [
            change(dict(zip(g.column_names, (c.combine_chunks() for c in g.columns), strict=True))) for g in groups
        ]
        entry = write_file(path, changed)
        parts = tuple(
            Part(
                entry if p.samples.path == name else p.samples,
                {g: entry if e.path == name else e for g, e in p.groups.items()},
            )
            for p in table.manifest.parts
        )
        replace(table.manifest, parts=parts).save(table.path)

    return write
