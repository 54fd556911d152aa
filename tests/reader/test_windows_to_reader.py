"""Windows and weights through the ETL, the files, the reader and SQL: what comes out is what went in."""

import tempfile
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recd_dist.errors import DataError
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.reader.loader import Loader
from recd_dist.reader.made_features import MadeFeatures
from recd_dist.reader.order import RowGroup
from recd_dist.reader.table_files import TableFiles
from recd_dist.reader.transform import Transforms
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.flat import flat_view
from recd_dist.table.schema import Table
from recd_dist.table.stats.table_stats import measure_table

KEYS = {"session": "session", "timestamp": "t"}
LIST, WEIGHT = pa.list_(pa.int64()), pa.list_(pa.float32())


def logs(num_sessions: int = 60, seed: int = 0) -> pa.Table:
    """Sessions whose history shifts by one now and then, oldest first; `recent` the same newest first, weighted."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[object]] = {n: [] for n in ("session", "t", "clicked", "history", "recent", "heat", "device")}
    for session in range(num_sessions):
        stream = rng.integers(0, 2**40, 100).tolist()
        at = 0
        for t in range(rng.integers(1, 12)):
            at += int(rng.random() < 0.4)
            window = stream[at : at + 20]
            values = (
                session,
                t,
                float(rng.random() < 0.3),
                window,
                window[::-1],
                [i % 7 / 7 for i in window[::-1]],
                t % 3,
            )
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
    types = {"history": LIST, "recent": LIST, "heat": WEIGHT, "clicked": pa.float32()}
    table = pa.table({n: pa.array(v, types.get(n, pa.int64())) for n, v in rows.items()})
    return table.take(rng.permutation(table.num_rows))


def source(path: Path, raw: pa.Table, **features: dict[str, object]) -> Source:
    pq.write_table(raw, path / "raw.parquet")
    given = {"history": {"table": "item"}, "recent": {"table": "item", "weights": "heat"}}
    given = {name: options | features.get(name, {}) for name, options in given.items()}
    groups = {"user": ["history", "recent", "device"]}
    return Source.from_dict(
        {"path": str(path / "raw.parquet"), "keys": KEYS, "labels": ["clicked"], "groups": groups, "features": given}
    )


def flat(table: Path, dialect: str = "duckdb") -> list[tuple[object, ...]]:
    wanted = "session_id, timestamp, clicked, history, recent, heat, device"
    return duckdb.sql(f"select {wanted} from ({flat_view(table, dialect)}) order by 1, 2").fetchall()


def raw_rows(raw: pa.Table) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in raw.sort_by([("session", "ascending"), ("t", "ascending")]).to_pylist()]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The same logs with windows, as the data choose them, and without."""
    path = tmp_path_factory.mktemp("windows")
    raw, off = logs(), {"window": False}
    made = etl(source(path, raw), path / "on", row_group_samples=20, shard_bytes=20_000, progress=False)["train"]
    etl(source(path, raw, history=off, recent=off), path / "off", row_group_samples=20, progress=False)
    return path, raw, made


def test_histories_that_shift_are_stored_as_windows(tables):
    path, _, made = tables
    assert [(f.name, f.window, f.weights) for f in made.schema.features] == [
        ("history", True, None),
        ("recent", True, "heat"),
        ("device", False, None),
    ]
    assert len(made.parts) > 2
    part = made.parts[1]
    rows = pq.read_table(path / "on/train" / part.groups["user"].path)
    streams = pq.read_table(path / "on/train" / part.streams["user"].path)
    assert rows.column_names == [
        "row",
        "stream",
        "history_start",
        "history_length",
        "recent_start",
        "recent_length",
        "device",
    ]
    assert streams.column_names == ["stream", "history", "recent", "heat"]
    assert not any(field.nullable for field in (*rows.schema, *streams.schema))
    assert streams["stream"].to_pylist() == [(part.number << 40) + i for i in range(streams.num_rows)]
    assert part.streams["user"].path == "user.stream/part-00001.parquet"
    assert len(part.streams["user"].row_groups) == len(part.samples.row_groups) > 1
    off = pq.read_table(path / "off/train/user")
    stored = sum(len(i) for i in pq.read_table(path / "on/train/user.stream")["history"].to_pylist())
    assert stored < 0.4 * sum(len(i) for i in off["history"].to_pylist())


def test_the_flat_view_joins_the_streams(tables):
    path, raw, _ = tables
    assert flat(path / "on/train") == flat(path / "off/train") == raw_rows(raw)


@pytest.mark.parametrize("weights", [False, True])
def test_the_reader_gives_the_same_columns(tables, weights):
    path, raw, made = tables
    on = TableFiles(ClusteredTable.load(path / "on/train"), made.schema if weights else made.schema.without(["heat"]))
    rows = {(r[0], r[1]): r for r in raw_rows(raw)}
    seen = 0
    for number, part in enumerate(made.parts):
        times = pq.read_table(path / "on/train" / part.samples.path)["timestamp"].to_pylist()
        first = 0
        for index, size in enumerate(part.samples.row_groups):
            read = on.read(RowGroup(number, index, seen))
            for i, session in enumerate(read.session_ids.tolist()):
                expected = rows[session, times[first + i]]
                at = read.row_of_sample["user"][i]
                for name, ids, heat in (("history", expected[3], None), ("recent", expected[4], expected[5])):
                    column = read.columns[name].to_lists()
                    piece = slice(column.offsets[at], column.offsets[at + 1])
                    assert column.values[piece].tolist() == ids
                    assert (column.weights is None) == (heat is None or not weights)
                    if column.weights is not None:
                        assert column.weights[piece].tolist() == np.float32(heat).tolist()
            first, seen = first + size, seen + size
    assert seen == raw.num_rows


@pytest.mark.parametrize("options", [{}, {"num_workers": 1}, {"order": "table"}])
@pytest.mark.parametrize("kept", [("history", "recent"), ("recent",)])
def test_windows_stay_windows_in_a_batch(tables, kept, options):
    path, _, made = tables
    sizes = {"item": Table("item", 1000, 4, hashed=True), "device": Table("device", 3, 4)}
    whole, shared = (
        Loader(ClusteredTable.load(path / "on/train"), made.schema, sizes, batch_size=64, windows=windows, **options)
        for windows in ((), kept)
    )
    try:
        pairs = list(zip(whole, shared, strict=True))
    finally:
        whole.close()
        shared.close()
    for a, b in pairs:
        assert a.sparse.windows == ()
        assert b.sparse.windows == kept
        lists = b.sparse.lists()
        for name in ("values", "lengths", "inverse", "weights"):
            assert torch.equal(getattr(lists, name), getattr(a.sparse, name))
    assert sum(b.sparse.num_values("recent") for _, b in pairs) < 0.4 * sum(
        a.sparse.num_values("recent") for a, _ in pairs
    )


def test_windows_become_lists_where_single_ids_are_left_out(tables):
    path, _, made = tables
    sizes = {"item": Table("item", 2**39, 4), "device": Table("device", 3, 4)}
    table, options = ClusteredTable.load(path / "on/train"), {"batch_size": 64, "on_bad_id": "drop"}
    loader = Loader(table, made.schema, sizes, windows=("history",), **options)
    lists = Loader(ClusteredTable.load(path / "off/train"), made.schema, sizes, **options)
    try:
        for batch in loader:
            assert batch.sparse.windows == ()
            assert batch.sparse.values.max() < 2**39
        list(lists)
    finally:
        loader.close()
        lists.close()
    assert loader.counts == lists.counts


def test_streams_are_not_opened_for_other_features(tables, tmp_path):
    path, _, made = tables
    files = TableFiles(ClusteredTable.load(path / "on/train"), made.schema.without(["history", "recent"]))
    assert set(files.read(RowGroup(0, 0, 0)).columns) == {"device"}
    assert not any("stream" in name for name in files._open_files)


def copied(table: Path, to: Path) -> Path:
    for file in table.rglob("*.*"):
        if file.is_file():
            (to / file.relative_to(table)).parent.mkdir(parents=True, exist_ok=True)
            (to / file.relative_to(table)).write_bytes(file.read_bytes())
    return to


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, r"user.stream/part-00000.parquet: no such file, though the manifest names it"),
        (
            lambda p: p.write_bytes(p.read_bytes()[:-9]),
            r"part-00000.parquet: [\d,]+ bytes, [\d,]+ were written: the file was",
        ),
    ],
)
def test_streams_missing_or_cut(tables, tmp_path, spoil, message):
    table = copied(tables[0] / "on/train", tmp_path)
    spoil(table / "user.stream/part-00000.parquet")
    for act in (TableFiles.check_sizes, lambda files: files.read(RowGroup(0, 0, 0))):
        with pytest.raises(DataError, match=message):
            act(TableFiles(ClusteredTable.load(table)))


def test_windows_that_leave_their_stream(tables, tmp_path):
    table = copied(tables[0] / "on/train", tmp_path)
    made = tables[2]
    one, other = made.parts[0], made.parts[1]
    crossed = replace(one, streams=other.streams)
    files = TableFiles(ClusteredTable(table, replace(made, parts=(crossed, *made.parts[1:]))))
    with pytest.raises(DataError, match=r"'stream' goes from .* the files do not belong together"):
        files.read(RowGroup(0, 0, 0))


def test_windows_are_refused_where_they_cannot_be(tmp_path):
    raw = logs(5)
    made = source(tmp_path, raw)
    for name, message in (("device", "only lists of ids have windows"), ("recent", "is in no group")):
        options = {"path": made.path, "keys": KEYS, "labels": ["clicked"], "groups": {"user": ["history", "device"]}}
        asked = Source.from_dict(options | {"features": {name: {"window": True}}, "drop": ["heat"]})
        with pytest.raises(DataError, match=f"features.{name}.window: .*{message}"):
            etl(asked, tmp_path / "out", progress=False)


row = st.fixed_dictionaries(
    {
        "session": st.integers(0, 2),
        "clicked": st.just(0.0),
        "history": st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(0, 2)), max_size=4)),
        "recent": st.lists(
            st.tuples(st.one_of(st.none(), st.integers(0, 2)), st.sampled_from([0.5, None, 1.0])), max_size=4
        ),
        "device": st.integers(0, 1),
    }
)


@settings(max_examples=30, deadline=None)
@given(st.lists(row, min_size=1, max_size=30), st.booleans())
def test_whatever_the_rows_are(rows, window):
    types = {"session": pa.int64(), "t": pa.int64(), "clicked": pa.float32(), "device": pa.int64()}
    schema = pa.schema(types | {"history": LIST, "recent": LIST, "heat": WEIGHT})
    flat_rows = [r | {"t": i, "recent": [a for a, _ in r["recent"]]} for i, r in enumerate(rows)]
    for flat_row, r in zip(flat_rows, rows, strict=True):
        flat_row["heat"] = [b for _, b in r["recent"]]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        options = {"window": window}
        made = source(path, pa.Table.from_pylist(flat_rows, schema), history=options, recent=options)
        manifest = etl(made, path / "out", row_group_samples=4, shard_bytes=400, progress=False)["train"]
        found = flat(path / "out/train")
    kept = [[(a, b or 0.0) for a, b in r["recent"] if a is not None] for r in rows]
    assert found == sorted(
        (r["session"], i, 0.0, [x for x in r["history"] or [] if x is not None], [a for a, _ in k], [b for _, b in k],
         r["device"])
        for i, (r, k) in enumerate(zip(rows, kept, strict=True))
    )  # fmt: skip
    assert manifest.features["recent"].num_null == sum(a is None for r in rows for a, _ in r["recent"]) + sum(
        b is None and a is not None for r in rows for a, b in r["recent"]
    )


def test_weights_of_another_length_name_row_and_lengths(tmp_path):
    raw = logs(3)
    heat = raw["heat"].to_pylist()
    heat[4] = heat[4][1:]
    raw = raw.set_column(raw.column_names.index("heat"), "heat", pa.array(heat, WEIGHT))
    with pytest.raises(DataError, match=r"row 4: feature 'recent' has 20 ids and 19 weights in 'heat'"):
        etl(source(tmp_path, raw), tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "heart"}, "no column 'heart' in the samples query; did you mean 'heat'"),
        ({"weights": "device"}, "'device' is BIGINT, no list of numbers"),
        ({"weights": "history"}, "'history' is the weights of 'recent', no feature"),
    ],
)
def test_weights_that_cannot_be(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        etl(source(tmp_path, logs(3), recent=options), tmp_path / "out", progress=False)


def test_stats_count_the_bytes_of_streams(tables):
    path, _, made = tables
    stats = measure_table(path / "on/train")
    user = next(g for g in stats.groups if g.name == "user")
    features = {f.name: f for f in stats.features}
    sizes = {"user": 0, "recent": 0}
    for part in made.parts:
        for entry in (part.groups["user"], part.streams["user"]):
            metadata = pq.ParquetFile(path / "on/train" / entry.path).metadata
            for i in range(metadata.num_row_groups):
                for j in range(metadata.num_columns):
                    column = metadata.row_group(i).column(j)
                    sizes["user"] += column.total_compressed_size
                    if column.path_in_schema.split(".")[0] in ("recent", "recent_start", "recent_length", "heat"):
                        sizes["recent"] += column.total_compressed_size
    assert (user.num_bytes, features["recent"].num_bytes) == (sizes["user"], sizes["recent"])
    assert features["recent"].id_bytes == 8
    assert features["recent"].num_stored == made.features["recent"].num_values_unique


@pytest.mark.parametrize("expand", [False, True])
def test_transforms_of_windows_are_those_of_lists(tables, expand):
    """Cut, filled and hashed as windows, and crossed: what batches hold is what lists give."""
    specs = {
        "history": [{"last_x": 5}, {"modulus": 1000}],
        "recent": [{"first_x": 3}, {"hash": 1000}],
        "both": [{"cross": {"of": [{"history": [{"last_x": 1}]}, "device"], "n": 500}}],
        "first": [{"copy": "history"}, {"first_x": 1}, {"fill": 7}, {"hash": 1000}],
    }
    path, _, _ = tables
    found = []
    for name in ("on", "off"):
        table = ClusteredTable.load(path / name / "train")
        stored = table.manifest.schema
        assert stored["history"].window == (name == "on")
        options = {n: {"transforms": specs[n], "table": "item"} for n in ("both", "first")}
        schema = replace(stored, features=(*stored.features, *MadeFeatures.of(options, stored).features))
        transforms = Transforms.parse(schema, specs, stored)
        sizes = {"item": Table("item", 1000, 4), "device": Table("device", 3, 4)}
        loader = Loader(table, schema, sizes, transforms, batch_size=50, order="table", expand=expand)
        with closing(loader):
            whole = [batch.expand() for batch in loader]
        columns = [b.session_ids.tolist() for b in whole], *([lists_of(b.sparse, key) for b in whole] for key in specs)
        found.append(
            sorted(zip(*(chain.from_iterable(column) for column in columns), strict=True))
        )  # parts differ in order
    assert found[0] == found[1]
    assert any(len(history) == 5 for _, history, *_ in found[0])


def lists_of(sparse, key):
    values, ends = sparse.values_of(key).tolist(), sparse.lengths_of(key).cumsum(0).tolist()
    return [values[a:b] for a, b in zip([0, *ends], ends, strict=False)]
