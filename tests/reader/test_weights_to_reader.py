"""Lists with weights through the ETL, the files and the reader: each sample gets its ids and their weights."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.reader.loader import Loader
from recd_dist.reader.table_files import TableFiles
from recd_dist.reader.transform import Transforms
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import Table
from recd_dist.tensors.batch import Batch

TABLES = {"item": Table("item", 50, 4), "tag": Table("tag", 10, 4)}
LIST, WEIGHTS = pa.list_(pa.int64()), pa.list_(pa.float32())
# Sample 2 has the ids of sample 1 with another weight, sample 3 the window one further.
ROWS: list[tuple[int, list[int], list[float], list[int], list[float], int]] = [
    (1, [1, 2, 3], [0.5, 1.0, 2.0], [7], [1.5], 10),
    (1, [1, 2, 3], [0.5, 1.0, 2.0], [], [], 11),
    (1, [1, 2, 3], [0.5, 1.0, -2.0], [7, 7], [0.0, 0.25], 10),
    (1, [2, 3, 4], [1.0, -2.0, 0.125], [8], [1.0], 12),
    (2, [], [], [9], [3.0], 10),
    (2, [40], [8.0], [9], [3.0], 13),
]


def written(
    path: Path, rows: list[Any] = ROWS, window: bool | None = False, automatic: bool = False, **options: Any
) -> Manifest:
    """Makes the table of these samples below ``path / "table"``."""
    columns = list(zip(*rows, strict=True))
    raw = {
        "session": pa.array(columns[0], pa.int64()),
        "t": pa.array(range(len(rows)), pa.int64()),
        "clicked": pa.array([0.0] * len(rows), pa.float32()),
        "history": pa.array(columns[1], LIST),
        "heat": pa.array(columns[2], WEIGHTS),
        "tags": pa.array(columns[3], LIST),
        "near": pa.array(columns[4], WEIGHTS),
        "candidate": pa.array(columns[5], pa.int64()),
        "number": pa.array(np.arange(len(rows)), pa.float32()),
    }
    pq.write_table(pa.table(raw), path / "raw.parquet")
    features = {
        "history": {"table": "item", "weights": "heat", "window": window},
        "tags": {"table": "tag", "weights": "near"},
        "candidate": {"table": "item"},
    }
    source = Source.from_dict(
        {
            "path": str(path / "raw.parquet"),
            "keys": {"session": "session", "timestamp": "t"},
            "labels": ["clicked"],
            "groups": None if automatic else {"user": ["history"]},
            "features": features,
        }
    )
    return etl(source, path / "table", progress=False, **options)["train"]


def batches(path: Path, manifest: Manifest, **options: Any) -> list[Batch]:
    given_ = {"batch_size": 8, "order": "table", "schema": manifest.schema, "tables": TABLES, **options}
    loader = Loader(ClusteredTable.load(path / "table/train"), given_.pop("schema"), given_.pop("tables"), **given_)
    try:
        return list(loader)
    finally:
        loader.close()


def by_sample(found: list[Batch]) -> dict[int, dict[str, list[tuple[int, float]]]]:
    """Of each sample, by its number, every list as pairs of an id and its weight."""
    samples: dict[int, dict[str, list[tuple[int, float]]]] = {}
    for batch in found:
        flat = batch.expand()
        numbers = flat.dense["sample"][:, 0].int().tolist()
        for key in flat.sparse.keys:
            lengths = flat.sparse.lengths_of(key).tolist()
            ids = torch.split(flat.sparse.values_of(key), lengths)
            weights = torch.split(flat.sparse.weights_of(key), lengths)
            for number, i, w in zip(numbers, ids, weights, strict=True):
                samples.setdefault(number, {})[key] = list(zip(i.tolist(), w.tolist(), strict=True))
    return samples


def wanted(rows: list[Any] = ROWS) -> dict[int, dict[str, list[tuple[int, float]]]]:
    return {
        n: {
            "history": list(zip(history, heat, strict=True)),
            "tags": list(zip(tags, near, strict=True)),
            "candidate": [(candidate, 1.0)],
        }
        for n, (_, history, heat, tags, near, candidate) in enumerate(rows)
    }


@pytest.fixture(params=[False, True], ids=["lists", "windows"])
def made(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Manifest]:
    return tmp_path, written(tmp_path, window=request.param)


def test_a_batch_holds_weights_beside_ids(made: tuple[Path, Manifest]) -> None:
    (batch,) = batches(*made)
    sparse = batch.sparse
    assert sparse.inverse_of("user").tolist() == [0, 0, 1, 2, 3, 4]
    assert sparse.values_of("history").tolist() == [1, 2, 3, 1, 2, 3, 2, 3, 4, 40]
    assert sparse.weights_of("history").tolist() == [0.5, 1.0, 2.0, 0.5, 1.0, -2.0, 1.0, -2.0, 0.125, 8.0]
    assert sparse.weights_of("tags").tolist() == [1.5, 0.0, 0.25, 1.0, 3.0, 3.0]
    assert sparse.weights_of("candidate").tolist() == [1.0] * 6
    assert sparse.weights.dtype == torch.float32
    assert by_sample([batch]) == wanted()


def test_rows_are_one_only_if_their_weights_are(made: tuple[Path, Manifest]) -> None:
    _, manifest = made
    assert manifest.group_rows["user"] == 5  # 4 without weights
    assert [(f.name, f.weights) for f in manifest.schema.sparse] == [
        ("history", "heat"), ("tags", "near"), ("candidate", None)
    ]  # fmt: skip


def test_automatic_groups_are_measured_with_weights(tmp_path: Path) -> None:
    rows = [(1, [1, 2], [0.5, 0.5], [3], [float(t)], 7) for t in range(6)]
    manifest = written(tmp_path, rows, window=None, automatic=True)
    assert {f.name: f.group for f in manifest.schema.sparse} == {
        "history": "history", "tags": "sample", "candidate": "history"
    }  # fmt: skip


@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_however_it_is_read(made: tuple[Path, Manifest], num_workers: int, expand: bool) -> None:
    found = batches(*made, num_workers=num_workers, expand=expand, batch_size=4, order="sessions")
    assert len(found) == 2
    assert by_sample(found) == wanted()
    for batch in found:
        assert batch.sparse.dedup_groups == (() if expand else ("user",))
        kjt = batch.sparse.to_kjt()
        assert kjt["history"].weights().tolist() == batch.expand().sparse.weights_of("history").tolist()


def test_groups_that_are_expanded_keep_their_weights(made: tuple[Path, Manifest]) -> None:
    path, manifest = made
    assert by_sample(batches(path, manifest, schema=manifest.schema.expand(["user"]))) == wanted()


@pytest.mark.parametrize(("transform", "cut"), [("last_x", slice(-2, None)), ("first_x", slice(0, 2))])
def test_transforms_cut_ids_and_weights_alike(made: tuple[Path, Manifest], transform: str, cut: slice) -> None:
    path, manifest = made
    transforms = Transforms.parse(manifest.schema, {"history": [{transform: 2}], "tags": [{"clamp": {"max": 8}}]})
    found = by_sample(batches(path, manifest, transforms=transforms))
    want = wanted()
    assert {n: s["history"] for n, s in found.items()} == {n: s["history"][cut] for n, s in want.items()}
    clamped = {n: [(min(i, 8), w) for i, w in s["tags"]] for n, s in want.items()}
    assert {n: s["tags"] for n, s in found.items()} == clamped


def test_hashed_ids_keep_their_weights(made: tuple[Path, Manifest]) -> None:
    tables = {**TABLES, "item": Table("item", 1000, 4, hashed=True)}
    found = by_sample(batches(*made, tables=tables))
    assert {n: [w for _, w in s["history"]] for n, s in found.items()} == {n: r[2] for n, r in enumerate(ROWS)}


def test_ids_outside_their_table_go_with_their_weights(made: tuple[Path, Manifest]) -> None:
    tables = {"item": Table("item", 14, 4), "tag": Table("tag", 9, 4)}
    found = by_sample(batches(*made, tables=tables, on_bad_id="drop"))
    assert found[4] == {"history": [], "tags": [], "candidate": [(10, 1.0)]}
    assert found[5] == {"history": [], "tags": [], "candidate": [(13, 1.0)]}
    assert {n: found[n] for n in range(4)} == {n: wanted()[n] for n in range(4)}
    tables = {**TABLES, "item": Table("item", 3, 4)}
    found = by_sample(batches(*made, tables=tables, on_bad_id="drop"))
    assert [found[n]["history"] for n in range(4)] == [[(1, 0.5), (2, 1.0)]] * 3 + [[(2, 1.0)]]


def test_weights_can_be_left_out(made: tuple[Path, Manifest]) -> None:
    path, manifest = made
    (batch,) = batches(path, manifest, schema=manifest.schema.without(["heat"]))
    assert set(batch.sparse.weights_of("history").tolist()) == {1.0}
    assert batch.sparse.weights_of("tags").tolist() == [1.5, 0.0, 0.25, 1.0, 3.0, 3.0]
    (batch,) = batches(path, manifest, schema=manifest.schema.without(["heat", "near"]))
    assert batch.sparse.weights is None


def spoiled(path: Path, manifest: Manifest, value: float) -> None:
    """Puts a number in place of the last weight of the first row, behind the ETL's back."""
    entry = manifest.parts[0].groups["user"]
    file = path / "table/train" / entry.path
    rows = pq.read_table(file)
    heat = rows["heat"].to_pylist()
    heat[0][-1] = value
    column = pa.array(heat, rows.schema.field("heat").type)
    pq.write_table(rows.set_column(rows.column_names.index("heat"), rows.schema.field("heat"), column), file)
    part = replace(manifest.parts[0], groups={"user": replace(entry, num_bytes=file.stat().st_size)})
    replace(manifest, parts=(part,)).save(path / "table/train")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float, caplog: pytest.LogCaptureFixture) -> None:
    manifest = written(tmp_path)
    spoiled(tmp_path, manifest, value)
    message = (
        rf"user/part-00000.parquet, row group 0, row 0: a weight of feature 'history' in column 'heat' is {value};"
    )
    with pytest.raises(DataError, match=message + r" mend it in the SQL, or set reader\.on_nan=zero"):
        batches(tmp_path, manifest)
    found = by_sample(batches(tmp_path, manifest, on_nan="zero"))
    assert found[0]["history"] == [(1, 0.5), (2, 1.0), (3, 0.0)]
    assert found[2] == wanted()[2]
    assert "reader: history: weight not finite: 1 so far, dropped or set to 0" in caplog.messages
    cut = Transforms.parse(manifest.schema, {"history": [{"first_x": 2}]})
    assert by_sample(batches(tmp_path, manifest, transforms=cut))[0]["history"] == [(1, 0.5), (2, 1.0)]


def test_weights_that_the_table_does_not_have(made: tuple[Path, Manifest]) -> None:
    path, manifest = made
    features = tuple(replace(f, weights="warmth") if f.name == "history" else f for f in manifest.schema.features)
    with pytest.raises(ConfigError, match=r"feature 'history': weights 'warmth' asked for, table .* has 'heat'; name"):
        TableFiles(ClusteredTable.load(path / "table/train"), replace(manifest.schema, features=features))
    without = replace(manifest, schema=manifest.schema.without(["near"]))
    with pytest.raises(ConfigError, match=r"feature 'tags': weights 'near' asked for, table .* has none; name"):
        TableFiles(ClusteredTable(path / "table/train", without), manifest.schema)


pair = st.tuples(st.integers(0, 3), st.sampled_from([0.5, -1.0, 0.0, -0.0, 3.0]))
row = st.tuples(st.integers(0, 2), st.lists(pair, max_size=4), st.lists(pair, max_size=3), st.integers(0, 49))


@settings(max_examples=20, deadline=None)
@given(st.lists(row, min_size=1, max_size=25), st.booleans(), st.integers(1, 9), st.integers(1, 5), st.booleans())
def test_whatever_the_rows_are(rows: list[Any], window: bool, batch_size: int, keep: int, expand: bool) -> None:
    flat = [(s, [i for i, _ in h], [w for _, w in h], [i for i, _ in g], [w for _, w in g], c) for s, h, g, c in rows]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        manifest = written(path, flat, window, row_group_samples=4)
        transforms = Transforms.parse(manifest.schema, {"history": [{"last_x": keep}]})
        options = {"batch_size": batch_size, "window": 2, "expand": expand, "order": "sessions"}
        found = by_sample(batches(path, manifest, transforms=transforms, **options))
    want = wanted(flat)
    assert found == {n: {**sample, "history": sample["history"][-keep:]} for n, sample in want.items()}
