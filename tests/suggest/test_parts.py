"""The steps of group discovery one by one: keys from names and data, whole sessions, shifts, curves, cost."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.suggest.planted import planted, source

from recd_dist.errors import DataError
from recd_dist.etl.source import duckdb_sql as engine
from recd_dist.etl.source.inspection import SESSION, TIMESTAMP, inspect
from recd_dist.etl.source.source import Source
from recd_dist.suggest.features import Columns, looks, stream
from recd_dist.suggest.guess_keys import Choice, keyed
from recd_dist.suggest.propose_groups import GROUP_BYTES, SAMPLE_BYTES, cost, cost_in_sample, groups
from recd_dist.suggest.sample import Sampled, sampled
from recd_dist.suggest.savings import clustered_at, in_time_at


def flat(path: Path, **columns: object) -> Source:
    pq.write_table(pa.table(columns), path)
    return Source("mine", str(path), labels=())


def chosen(bare: Source) -> dict[str, Choice]:
    with engine.connect() as connection:
        return {choice.role: choice for choice in keyed(bare, connection).choices}


def read(described: Source, **options: int) -> Sampled:
    with engine.connect() as connection:
        return sampled(inspect(described, connection), connection, **options)


def test_keys_and_label_from_names_and_data(tmp_path: Path) -> None:
    planted(tmp_path / "t.parquet", {"user": (0.9, 1)}, num_samples=1000)
    found = chosen(Source("mine", str(tmp_path / "t.parquet"), labels=()))
    assert {role: choice.column for role, choice in found.items()} == {
        "session": "visit",
        "request": None,
        "timestamp": "time",
        "label": "clicked",
    }
    assert (found["timestamp"].sure, found["timestamp"].why) == ("sure", "a TIMESTAMP column")
    assert found["session"].sure == "likely"
    assert "only 0 and 1" in found["label"].why


def test_a_session_that_has_one_user_is_sure_and_requests_lie_in_it(tmp_path: Path) -> None:
    session = np.repeat(np.arange(50), 8)
    bare = flat(
        tmp_path / "t.parquet",
        customer=session // 3,
        session_id=session,
        impression_id=np.repeat(np.arange(200), 2),
        ts=1_700_000_000 + np.arange(400) * 7,
        converted=np.arange(400) % 9 == 0,
    )
    found = chosen(bare)
    assert (found["session"].column, found["session"].sure) == ("session_id", "sure")
    assert (found["request"].column, found["user"].column) == ("impression_id", "customer")
    assert (found["timestamp"].column, found["label"].column) == ("ts", "converted")
    assert "seconds since 1970" in found["timestamp"].why


def test_without_a_session_the_user_and_without_a_name_the_data_speaks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(100), 10)
    columns = {"a": rng.integers(0, 9, 1000), "b": who * 17 % 31, "c": who * 5 % 23, "d": rng.integers(0, 99, 1000)}
    named = chosen(flat(tmp_path / "t.parquet", user_id=who, **columns))
    assert (named["session"].column, named["session"].sure) == ("user_id", "likely")
    unnamed = chosen(flat(tmp_path / "t.parquet", who=who, **columns))
    assert (unnamed["session"].column, unnamed["session"].sure) == ("who", "guess")
    nothing = chosen(flat(tmp_path / "t.parquet", a=rng.integers(0, 10**9, 1000), d=rng.random(1000)))
    assert nothing["session"].column is None
    assert "data.keys.session=COLUMN" in nothing["session"].why


def test_columns_that_are_no_features_are_left_out(tmp_path: Path) -> None:
    times = pa.array(np.arange(40)).cast(pa.timestamp("us"))
    bare = flat(tmp_path / "t.parquet", visit=np.arange(40) // 4, time=times, until=times, clicked=np.arange(40) % 2)
    with engine.connect() as connection:
        found = keyed(bare, connection)
        assert (found.source.drop, dict(found.left_out)) == (("until",), {"until": "a TIMESTAMP is no feature"})


def test_what_the_config_says_is_kept_and_a_wrong_column_is_named(tmp_path: Path) -> None:
    planted(tmp_path / "t.parquet", {"user": (0.9, 1)}, num_samples=500)
    given = source(tmp_path / "t.parquet")
    assert {role: c.sure for role, c in chosen(given).items()} == {
        "session": "given",
        "timestamp": "given",
        "label": "given",
        "request": "none",
    }
    with pytest.raises(DataError, match="did you mean 'visit'"):
        read(source(tmp_path / "t.parquet", keys={"session": "visitt"}))


def test_a_sample_is_whole_sessions(tmp_path: Path) -> None:
    table = planted(tmp_path / "t.parquet", {"user": (0.9, 1)}, num_samples=6000)
    sample = read(source(tmp_path / "t.parquet"), num_samples=1500)
    sizes = dict(zip(*np.unique(table["visit"].to_numpy(), return_counts=True), strict=True))
    found = dict(zip(*np.unique(sample.samples[SESSION].to_numpy(), return_counts=True), strict=True))
    assert found == {session: sizes[session] for session in found}
    assert 1000 < sample.num_samples <= 1500
    assert (sample.num_total, sample.num_sessions_total) == (6000, len(sizes))
    keys = list(zip(sample.samples[SESSION].to_pylist(), sample.samples[TIMESTAMP].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert sorted(sample.order.tolist()) == list(range(sample.num_samples))


def test_memory_is_bounded_by_leaving_out_sessions(tmp_path: Path) -> None:
    planted(tmp_path / "t.parquet", {"user": (0.9, 2)}, num_samples=6000)
    limit = 400_000  # of 1.8 MB
    sample = read(source(tmp_path / "t.parquet"), max_bytes=limit)
    assert limit / 4 < sample.samples.nbytes <= limit
    assert (sample.is_cut, sample.num_total) == (False, 6000)


def test_a_session_that_is_too_large_is_cut_and_says_so(tmp_path: Path) -> None:
    table = planted(tmp_path / "t.parquet", {"user": (0.9, 2)}, num_samples=30_000)
    pq.write_table(table.set_column(0, "visit", pa.array(np.ones(30_000, np.int64))), tmp_path / "t.parquet")
    sample = read(source(tmp_path / "t.parquet"), max_bytes=400_000)
    assert sample.is_cut
    assert 0 < sample.num_samples < 30_000


def test_rows_without_a_session_are_counted_and_left_out(tmp_path: Path) -> None:
    bare = flat(tmp_path / "t.parquet", visit=[1, None, 1, 2], x=[1, 2, 3, 4], clicked=[0, 1, 0, 1])
    sample = read(Source("mine", bare.path, keys={"session": "visit"}, labels=("clicked",)))
    assert (sample.num_samples, sample.num_total, sample.num_keyless) == (3, 3, 1)


@pytest.mark.parametrize(
    ("rows", "new", "ids"),
    [
        ([[1, 2, 3], [2, 3, 4], [3, 4, 5, 6]], [3, 1, 2], [1, 2, 3, 4, 5, 6]),  # newest last
        ([[3, 2, 1], [4, 3, 2], [6, 5, 4, 3]], [3, 1, 2], [3, 2, 1, 4, 6, 5]),  # newest first
        ([[1, 2], [7, 8], [7, 8]], [2, 2, 0], [1, 2, 7, 8]),
        ([[], [5], [5, 6], []], [0, 1, 1, 0], [5, 6]),
    ],
)
def test_a_stream_holds_what_is_new(rows: list[list[int]], new: list[int], ids: list[int]) -> None:
    column = pa.array(rows, pa.list_(pa.int64()))
    values, counts = stream(column, np.array([False, *[True] * (len(rows) - 1)]))
    assert (counts.tolist(), values.to_pylist()) == (new, ids)


def test_a_new_session_begins_its_own_stream() -> None:
    column = pa.array([[1, 2], [1, 2]], pa.list_(pa.int64()))
    assert stream(column, np.array([False, False]))[1].tolist() == [2, 2]


def test_looks_count_changes_shifts_and_values(tmp_path: Path) -> None:
    history = [[1, 2], [2, 3], [2, 3], [9, 9], [4]]
    bare = flat(tmp_path / "t.parquet", visit=[1, 1, 1, 1, 2], x=[5, 5, 6, 6, 6], history=history, clicked=[0] * 5)
    described = Source("mine", bare.path, keys={"session": "visit"}, labels=("clicked",))
    with engine.connect() as connection:
        inspection = inspect(described, connection)
        columns = Columns(inspection, sampled(inspection, connection))
    x, h = looks(columns)
    assert (x.flags.tolist(), x.num_pairs, x.num_same) == ([True, False, True, False, False], 3, 2)
    assert (h.flags.tolist(), h.stay_rate) == ([True, True, False, True, True], pytest.approx(1 / 3))
    assert (h.num_changes, h.num_shifts, h.num_new) == (2, 1, 2 + 1 + 0 + 2 + 1)
    assert (h.num_values(), h.num_values(h.flags)) == (9, 7)
    # Two rows of ids in `x`, int32; five in `sample`: an id, its look-up and its vector.
    assert cost([x], x.flags) == 5 * SAMPLE_BYTES + 2 * (8 + 4 + 32 + 256)
    assert cost_in_sample([x]) == 5 * (4 + 32 + 256)
    assert cost_in_sample([x]) - cost([x], x.flags) < 5 * GROUP_BYTES
    assert groups([x], columns.new_session) == ()


def test_factor_in_batches_of_the_table_and_in_order_of_time() -> None:
    flags = np.array([1, 0, 0, 1, 0, 0, 0, 0], bool)  # two rows: of three samples, of five
    assert clustered_at(flags, 8) == 8 / 2
    assert clustered_at(flags, 4) == 8 / 3
    assert clustered_at(flags, 2) == 8 / 5  # aa | ab | bb | bb
    assert clustered_at(flags, 16) is None
    order = np.array([0, 3, 6, 1, 2, 4, 5, 7])  # in time: a b b a | b b a b
    assert in_time_at(flags, order, 4, 1.0) == 8 / 4
    assert in_time_at(flags, order, 8, 0.5) == 8 / 4  # half of the sessions: a batch of 8 holds 4 of their samples
    assert in_time_at(flags, order, 2, 1.0) == 8 / 7  # ab | ba | bb | ab


def test_a_sample_of_a_source_whose_group_has_its_own_query(tmp_path: Path) -> None:
    table = planted(tmp_path / "t.parquet", {"user": (0.9, 1)}, num_samples=6000)
    keys = np.unique(table["visit"].to_numpy())
    pq.write_table(pa.table({"visit": keys, "likes": [[int(key)] * 3 for key in keys]}), tmp_path / "likes.parquet")
    likes = {"key": "visit", "sql": f"select * from read_parquet('{tmp_path}/likes.parquet') where visit % 5 > 0"}
    sample = read(source(tmp_path / "t.parquet", groups={"likes": likes}), num_samples=1500)
    ids = sample.rows["likes"]["likes"].to_pylist()
    for places, rows in ((sample.place, sample.samples), (sample.log_place, sample.log)):
        assert rows is not None
        linked = [ids[place] if place >= 0 else None for place in places["likes"].tolist()]
        assert linked == [[key] * 3 if key % 5 else None for key in rows[SESSION].to_pylist()]
    assert sample.log is not None
    times = sample.log[TIMESTAMP].to_pylist()
    assert (len(times) > 4000, times == sorted(times)) == (True, True)
    assert sample.rows["likes"].num_rows < len(keys)
