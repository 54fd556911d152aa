"""A part: each row group can be read alone, long sessions are cut, and the same samples give the same bytes."""

import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.source.inspection import REQUEST, ROW_KEY, SESSION, TIMESTAMP, link_column
from recd_dist.etl.write.part_result import PartResult
from recd_dist.etl.write.stored_types import list_type
from recd_dist.etl.write.table_form import TableForm
from recd_dist.etl.write.windows_and_encodings import choose_windows_and_encodings
from recd_dist.etl.write.write_one_part import write_part
from recd_dist.table.schema import Feature, Kind, Schema

SCHEMA = Schema(
    (
        Feature("history", Kind.ids, "user", "item", weights="heat"),
        Feature("age", Kind.dense, "user"),
        Feature("device", Kind.id, "request", "device"),
        Feature("item", Kind.id, "sample", "item"),
    )
)
TYPES = {"history": list_type(pa.int32()), "age": pa.float32(), "device": pa.int64(), "item": pa.int32()}


def shard(session: np.ndarray, seed: int = 0) -> pa.Table:
    """Samples in random order; a session's history shifts by one every third sample."""
    rng = np.random.default_rng(seed)
    time = np.arange(len(session))
    history = [[int(s) * 1000 + int(t) // 3 + i for i in range(12)] for s, t in zip(session, time, strict=True)]
    table = pa.table(
        {
            SESSION: session,
            REQUEST: time // 2,
            TIMESTAMP: time,
            "label": pa.array((time % 2).astype(np.float32)),
            "history": pa.array(history, pa.list_(pa.int64())),
            "heat": pa.array([[i % 5 / 5 for i in h] for h in history], pa.list_(pa.float32())),
            "age": pa.array((session % 7).astype(np.float32)),
            "device": session // 2,
            "item": rng.integers(0, 100, len(session)),
        }
    )
    return table.take(rng.permutation(len(session)))


def clustered_order(samples: pa.Table) -> np.ndarray:
    return np.lexsort([samples[name].to_numpy() for name in (REQUEST, TIMESTAMP, SESSION)])


def form(window: bool = True, row_group_samples: int = 30, lookups: dict[str, Lookup] | None = None) -> TableForm:
    features = tuple(Feature(**{**vars(f), "window": window and f.name == "history"}) for f in SCHEMA.features)
    return TableForm(Schema(features), TYPES, lookups or {}, row_group_samples, "zstd")


def write(path: Path, samples: pa.Table, form: TableForm, number: int = 3) -> tuple[PartResult, list[int]]:
    done: list[int] = []
    order = clustered_order(samples)
    return write_part(samples, order, form, path, number, 1000, done.append, "2026-11-25"), done


SESSIONS = np.sort(np.random.default_rng(1).integers(0, 25, 300))


@pytest.mark.parametrize("window", [True, False])
def test_any_row_group_is_read_alone(tmp_path, window):
    samples = shard(SESSIONS)
    result, done = write(tmp_path, samples, form(window))
    files = result.part
    assert (files.number, set(files.streams)) == (3, {"user"} if window else set())
    assert done == list(files.samples.row_groups)
    assert min(done) > 15
    assert max(done) <= 30
    expected = {row["__timestamp"]: row for row in samples.to_pylist()}
    for index in range(len(done)):
        alone = {
            name: pq.ParquetFile(tmp_path / entry.path).read_row_group(index)
            for name, entry in {"samples": files.samples, **files.groups}.items()
        }
        history = "user.history, user.heat"
        joins = 'from samples join "user" as user on user_row = user.row join request on request_row = request.row'
        if window:
            alone["streams"] = pq.ParquetFile(tmp_path / files.streams["user"].path).read_row_group(index)
            sliced = "list_slice(streams.{}, history_start + 1, history_start + history_length)"
            history = ", ".join(sliced.format(name) for name in ("history", "heat"))
            joins += " join streams using (stream)"
        with duckdb.connect() as connection:
            for name, table in alone.items():
                connection.register(name, table)
            rows = connection.sql(f"select timestamp, {history}, age, device, item, label {joins}").fetchall()
        assert len(rows) == done[index]
        for time, *values in rows:
            row = expected[time]
            assert values == [row[n] for n in ("history", "heat", "age", "device", "item", "label")]


def test_the_same_samples_are_the_same_bytes_in_whatever_order_they_came(tmp_path):
    samples = shard(SESSIONS)
    chosen = choose_windows_and_encodings(form(False), samples, clustered_order(samples))
    assert chosen.schema["history"].window
    assert set(chosen.encodings) == {"samples", "user", "user.stream", "request"}
    parts = []
    for name, table in (("one", samples), ("two", samples.take(np.random.default_rng(5).permutation(300)))):
        again = choose_windows_and_encodings(form(False), table, clustered_order(table))
        assert (again.schema, again.encodings) == (chosen.schema, chosen.encodings)
        parts.append(write(tmp_path / name, table, again)[0].part)
    assert parts[0] == parts[1]


def test_a_session_too_long_for_a_row_group_is_cut(tmp_path):
    session = np.repeat([1, 2, 3], [20, 250, 10])
    result, done = write(tmp_path, shard(session), form(row_group_samples=12))
    assert done == [20, 96, 96, 58, 10]  # 8 x 12 = 96
    assert (result.part.num_samples, result.part.num_sessions, result.part.num_requests) == (280, 3, 140)
    assert (result.part.partition, result.part.first_sample) == ("2026-11-25", 1000)
    assert result.features["age"].num_pairs == 280 - 5  # neighbours in a session and in a row group
    ids = pq.read_table(tmp_path / "samples")["sample_id"].to_pylist()
    assert ids == list(range(1000, 1280))


def test_results_come_back_from_json(tmp_path):
    result, _ = write(tmp_path, shard(SESSIONS), form())
    again = PartResult.from_json(json.loads(json.dumps(result.to_json(), allow_nan=False)))
    assert again.part == result.part
    assert again.features == result.features
    assert {name: one.stats() for name, one in again.ids.items()} == {n: one.stats() for n, one in result.ids.items()}
    again.ids["item"].merge(result.ids["item"])
    assert again.ids["item"].stats() == result.ids["item"].stats()


def test_statistics_are_those_of_the_samples_with_or_without_windows(tmp_path):
    samples = shard(SESSIONS)
    one, other = (write(tmp_path / str(window), samples, form(window))[0] for window in (True, False))
    assert one.features == other.features
    assert {n: i.stats() for n, i in one.ids.items()} == {n: i.stats() for n, i in other.ids.items()}
    assert one.features["history"].num_values_expanded == 300 * 12
    ids = {i for row in samples["history"].to_pylist() for i in row} | set(samples["item"].to_pylist())
    assert one.ids["item"].stats().num_distinct == len(ids)


def test_rows_of_another_key_that_are_equal_are_stored_once(tmp_path):
    rows = pa.table({ROW_KEY: [10, 11, 12], "history": [[1, 2], [1, 2], [3]], "heat": [[0.5, 1.0]] * 2 + [[0.0]],
                     "age": pa.array([1, 1, 1], pa.float32())})  # fmt: skip
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        lookup = Lookup.of_query("user", connection, "select * from rows", tmp_path / "rows.arrow")
    samples = shard(np.repeat([1, 2], 4)).select([SESSION, REQUEST, TIMESTAMP, "label", "device", "item"])
    times = samples[TIMESTAMP].to_numpy()
    place = np.array([0, 0, 1, 2, 2, 0, -1, -1])[times]
    samples = samples.append_column(link_column("user"), pa.array(place))
    result, _ = write(tmp_path, samples, form(False, lookups={"user": lookup}))
    assert pq.read_table(tmp_path / "user")["history"].to_pylist() == [[1, 2], [3], [1, 2], []]
    assert np.array(pq.read_table(tmp_path / "samples")["user_row"]).tolist() == [
        (3 << 40) + i for i in (0, 0, 0, 1, 1, 2, 3, 3)
    ]
    assert result.features["history"].num_null == 2
    assert result.features["history"].num_same == 6 - 3  # six pairs of neighbours, changes after samples 2, 4 and 5


def test_a_single_id_that_is_missing_is_refused(tmp_path):
    samples = shard(SESSIONS)
    item = samples["item"].to_pylist()
    number = samples[TIMESTAMP].to_pylist().index(7)
    item[number] = None
    samples = samples.set_column(samples.column_names.index("item"), "item", pa.array(item, pa.int64()))
    with pytest.raises(DataError, match="samples query, the sample of session 0 at 7: feature 'item' is missing"):
        write(tmp_path, samples, form())


def test_ids_wider_than_their_column_are_refused(tmp_path):
    samples = shard(SESSIONS)
    item = pa.array(samples["item"].to_numpy() + 2**40)
    samples = samples.set_column(samples.column_names.index("item"), "item", item)
    with pytest.raises(DataError, match=r"feature 'item': ids reach .* they are stored as int32"):
        write(tmp_path, samples, form())


@pytest.mark.parametrize("window", [True, False])
def test_a_group_with_its_own_query_over_many_row_groups(tmp_path, window):
    keys = np.arange(60)
    history = [[int(k) // 6 * 1000 + int(k) % 6 + i for i in range(12)] for k in keys]
    columns = {ROW_KEY: keys, "history": history, "heat": [[0.5] * 12] * 60, "age": pa.array([1] * 60, pa.float32())}
    with duckdb.connect() as connection:
        connection.register("rows", pa.table(columns))
        lookup = Lookup.of_query("user", connection, "select * from rows", tmp_path / "rows.arrow")
    samples = shard(SESSIONS).select([SESSION, REQUEST, TIMESTAMP, "label", "device", "item"])
    place = samples[TIMESTAMP].to_numpy() // 5
    samples = samples.append_column(link_column("user"), pa.array(place))
    result, done = write(tmp_path, samples, form(window, lookups={"user": lookup}))
    files = result.part
    assert len(files.groups["user"].row_groups) == len(done) > 5
    rows = pq.read_table(tmp_path / "user")
    assert rows["row"].to_pylist() == [(3 << 40) + i for i in range(rows.num_rows)]
    assert rows.num_rows == sum(files.groups["user"].row_groups)
    lists = rows["history"].to_pylist() if not window else None
    if window:
        streams = pq.read_table(tmp_path / "user.stream")
        assert streams["stream"].to_pylist() == [(3 << 40) + i for i in range(streams.num_rows)]
        assert streams.num_rows == sum(files.streams["user"].row_groups)
        whole = streams["history"].to_pylist()
        places = zip(*(rows[n].to_pylist() for n in ("stream", "history_start", "history_length")), strict=True)
        lists = [whole[s - (3 << 40)][a : a + n] for s, a, n in places]
    found = pq.read_table(tmp_path / "samples").select(["timestamp", "user_row"]).to_pylist()
    assert [lists[row["user_row"] - (3 << 40)] for row in found] == [history[row["timestamp"] // 5] for row in found]
