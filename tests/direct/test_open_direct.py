"""Flat files opened as a table: the samples of a table of the ETL, and what must be said before anything is read."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from tests.direct.conftest import KEYS, flat_table, samples

from recd_dist.cli import main
from recd_dist.errors import ConfigError, DataError
from recd_dist.job.config import load
from recd_dist.job.job import Job, resolve
from recd_dist.reader.loader import Loader

CUT = {"row_group_size": 100}


def contents(job: Job, **options: Any) -> list[tuple[Any, ...]]:
    """Every sample of an epoch in its order: the ids and numbers of each feature, its label and its session."""
    found = []
    loader = Loader(job.table, job.schema, job.tables, **({"batch_size": 64, "order": "table"} | options))
    for batch in loader:
        flat = batch.expand()
        places = [torch.split(flat.sparse.values_of(k), flat.sparse.lengths_of(k).tolist()) for k in flat.sparse.keys]
        dense = flat.dense["sample"].tolist()
        names = [name for group in job.schema.groups for name in job.schema.dense_of(group)]
        for i, label in enumerate(batch.labels[:, 0].tolist()):
            ids = {key: tuple(place[i].tolist()) for key, place in zip(flat.sparse.keys, places, strict=True)}
            ids |= dict(zip(names, dense[i], strict=True))
            found.append((*sorted(ids.items()), label, int(batch.session_ids[i])))
    loader.close()
    return found


def table_job(tmp_path: Path, path: Path, *overrides: str) -> Job:
    """The job that trains on a table which the ETL has made of the files."""
    data = [
        "data=parquet",
        f"data.path={path}",
        f"data.table={tmp_path / 'table'}",
        "data.split=null",
        *KEYS,
        *overrides,
    ]
    assert main(["etl", *data]) == 0
    return resolve(load("train", data))


def by_session(job: Job) -> list[tuple[Any, ...]]:
    """The samples of a job sorted by session; those of one session stay in their order."""
    return sorted(contents(job), key=lambda sample: sample[-1])


@pytest.mark.usefixtures("own_logging")
def test_the_samples_of_a_table_of_the_etl(write, configure, tmp_path):
    """The same groups and table sizes; sample for sample the same values, and in the table's order the same batches."""
    rows = samples()
    path = write(rows, **CUT)
    made, direct = table_job(tmp_path, path), resolve(configure(path))
    assert [(f.name, f.group) for f in made.schema.features] == [(f.name, f.group) for f in direct.schema.features]
    assert made.tables == direct.tables
    assert by_session(made) == by_session(direct)
    order = {session: n for n, session in enumerate(dict.fromkeys(sample[-1] for sample in contents(made)))}
    places = [order[sample[-1]] for sample in contents(direct)]
    in_order = [row for _, row in sorted(zip(places, rows, strict=True), key=lambda pair: pair[0])]
    direct = resolve(configure(write(in_order, "in_order.parquet", **CUT)))
    assert contents(direct) == contents(made) == contents(direct, expand=True)
    assert made.manifest.dedup_factor("history") == pytest.approx(direct.manifest.dedup_factor("history"), rel=0.02)


@pytest.mark.usefixtures("own_logging")
def test_types_become_what_the_etl_makes_of_them(write, configure, tmp_path):
    """Texts in lists, dictionaries, unsigned and small integers, lists of fixed size, large ones, views, nulls."""
    rows = samples(40)
    table = flat_table(rows, history=pa.large_list(pa.int64()), item=pa.int16())
    n = len(rows)
    extra = {
        "words": pa.array([["a", None, "b"] if i % 3 else None for i in range(n)]),
        "tags": pa.array([[str(i // 8), "x"] for i in range(n)], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        "pair": pa.array([[i // 8 % 5, 7] for i in range(n)], pa.list_(pa.int32(), 2)),
        "city": pa.array([["Oslo", "Rome"][i // 20 % 2] for i in range(n)]).dictionary_encode(),
        "big": pa.array([2**63 + i // 10 for i in range(n)], pa.uint64()),
        "near": pa.array([[i // 6, 3] if i % 4 else None for i in range(n)], pa.list_view(pa.int32())),
        "far": pa.array([[i // 5] * (i % 3) for i in range(n)], pa.large_list_view(pa.int64())),
        "names": pa.array([["Ada", str(i // 9)] for i in range(n)], pa.list_view(pa.string_view())),
        "seen_in": pa.array([["web", "app"][i // 12 % 2] for i in range(n)], pa.string_view()),
        "flag": pa.array([bool(i // 15 % 2) for i in range(n)]),
        "maybe": pa.array([None if i % 7 == 0 else i % 50 for i in range(n)], pa.int64()),
        "cost": pa.array([None if i % 9 == 0 else i / 4 for i in range(n)], pa.float32()),
        "taste": pa.array([[0.5 * (i // 9 % 4)] * len(row["history"]) for i, row in enumerate(rows)]),
    }
    for name, column in extra.items():
        table = table.append_column(name, column)
    path = write(table, **CUT)
    options = ["data.features.history.weights=taste", "data.groups.user=[history,city,words,tags,pair]"]
    made, direct = table_job(tmp_path, path, *options), resolve(configure(path, *options))
    kinds = {f.name: f.kind for f in direct.schema.features}
    assert kinds == {f.name: f.kind for f in made.schema.features}
    assert (kinds["maybe"], kinds["big"], kinds["words"]) == ("ids", "id", "ids")
    assert made.tables == direct.tables
    assert by_session(made) == by_session(direct)


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_texts_stored_as_differences(write, configure, tmp_path, encoding):
    """As DuckDB and Spark write them in their newer format; beside a file of dictionaries, in one unit."""
    rows = samples(20)
    half = len(rows) // 2
    write(rows[:half], "a.parquet", use_dictionary=False, column_encoding=dict.fromkeys(("visit", "region"), encoding))
    path = write(rows[half:], "b.parquet").parent
    assert by_session(table_job(tmp_path, path)) == by_session(resolve(configure(path)))


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
def test_timestamps_of_other_units(write, configure, tmp_path, unit):
    """Nanoseconds are a second key of the ETL, for samples of one microsecond; the files are in order already."""
    rows = samples(10)
    rows = [dict(row, at=row["at"] // 10**6 + i) for i, row in enumerate(rows)]
    at = pa.array([row["at"] for row in rows], pa.timestamp("s")).cast(pa.timestamp(unit))
    path = write(flat_table(rows).drop_columns("at").append_column("at", at), **CUT)
    assert by_session(table_job(tmp_path, path)) == by_session(resolve(configure(path)))


def test_dictionaries_in_lists_of_a_large_row_group(write, configure):
    """A row group that is cut into units, whose texts are dictionaries, in lists and alone."""
    n = 20_000
    tags = pa.array([[f"t{i % 97}", f"t{i // 9 % 5000}"] for i in range(n)])
    number = pa.array(range(n))
    table = pa.table({"visit": pc.divide(number, 4), "at": number, "clicked": pc.bit_wise_and(number, 1)})
    table = table.append_column("price", number.cast(pa.float32())).append_column("tags", tags)
    coded = table.set_column(4, "tags", tags.cast(pa.list_(pa.dictionary(pa.int32(), pa.string()))))
    found = [
        contents(resolve(configure(write(one, name))), batch_size=4096)
        for name, one in (("texts.parquet", table), ("codes.parquet", coded))
    ]
    assert len(found[0]) == n
    assert found[0] == found[1]


def test_unclustered_rows_are_found_by_hash(write, configure, caplog):
    rows = samples()
    by_time = sorted(rows, key=lambda row: hash((row["visit"], row["at"])) % 997)
    path = write(by_time, row_group_size=10_000)
    with caplog.at_level(logging.INFO):
        job = resolve(configure(path))
    assert "taken: hash" in caplog.text
    assert "in a table of `recd etl`" in caplog.text
    assert job.table.ways == {"history": "hash"}
    assert job.manifest.dedup_factor("history") > 3
    clustered = resolve(configure(write(rows, "sorted.parquet")))
    assert clustered.table.ways == {"history": "neighbours"}
    assert sorted(map(repr, contents(job))) == sorted(map(repr, contents(clustered)))
    loader = Loader(job.table, job.schema, job.tables, batch_size=64, seed=1)
    rows = [
        (next(g.num_rows for g in batch.sparse.groups if g.name == "history"), len(batch.labels)) for batch in loader
    ]
    loader.close()
    assert sum(size for _, size in rows) > 2.5 * sum(unique for unique, _ in rows), "sessions come together in batches"
    told = resolve(configure(path, "reader.equal_rows=neighbours"))
    assert set(told.table.ways.values()) <= {"neighbours"}


def items_of(job: Job, **options: Any) -> list[int]:
    """The item of each sample of an epoch, in its order."""
    loader = Loader(job.table, job.schema, job.tables, **({"batch_size": 4096, "order": "table"} | options))
    found = [item for batch in loader for item in batch.sparse.values_of("item").tolist()]
    loader.close()
    return found


def test_row_groups_of_one_row_and_large_ones(write, configure):
    """Small ones are joined, and large ones cut; what a large one is cut into stays together in every order."""
    rows = samples(60)
    tiny = resolve(configure(write(rows, "tiny.parquet", row_group_size=1)))
    assert [part.samples.row_groups for part in tiny.manifest.parts] == [(len(rows),)]
    times = 17_000 // len(rows) + 1
    table = pa.concat_tables([flat_table(rows)] * times)
    large = resolve(configure(write(table, "large.parquet", row_group_size=10**6)))
    sizes = large.manifest.parts[0].samples.row_groups
    assert (len(sizes), max(sizes) <= 8192, large.manifest.sequences) == (-(-len(table) // 8192), True, {0})
    items = [row["item"] for row in rows] * times
    assert items_of(tiny) * times == items_of(large) == items
    shuffled = items_of(large, order="sessions", seed=3, window=1)
    assert (shuffled != items, sorted(shuffled) == sorted(items)) == (True, True)


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize(
    "values",
    [
        ["NO", "__HIVE_DEFAULT_PARTITION__", "a%20b", "x%3Dy", "%C3%A9%2F"],
        ["", "b", "100%"],
        ["7", "null", "12"],
        ["01", "2"],
        ["__HIVE_DEFAULT_PARTITION__"],
    ],
)
def test_names_of_folders_mean_what_the_etl_takes_them_for(write, configure, tmp_path, values):
    """Percent signs stand for bytes, two names for a missing value, and numbers with a zero before are texts."""
    for number, value in enumerate(values):
        path = write(samples(8, number), f"country={value}/part.parquet")
    drop = "data.drop=[age,region,history]"
    made, direct = table_job(tmp_path, path.parents[1], drop), resolve(configure(path.parents[1], drop))
    assert [f.kind for f in made.schema.features] == [f.kind for f in direct.schema.features]
    assert sorted(contents(made)) == sorted(contents(direct))


def test_folders_patterns_and_partitions(write, configure):
    rows = samples(90)
    third = len(rows) // 3
    for day in range(3):
        write(rows[day * third : (day + 1) * third], f"day=2026-11-2{day}/part-0.parquet", **CUT)
    folder = write(rows[:1], "x.parquet").parent
    (folder / "x.parquet").unlink()
    (folder / "_SUCCESS").touch()
    whole = resolve(configure(folder, "data.drop=[day]"))
    assert whole.manifest.partitions == ("2026-11-20", "2026-11-21", "2026-11-22")
    assert len(contents(whole)) == 3 * third
    pattern = resolve(configure(f"{folder}/day=*/*.parquet", "data.drop=[day]", "data.partitions=[2026-11-21]"))
    assert contents(pattern) == contents(whole)[third : 2 * third]
    config = configure(folder, "data.drop=[day]", "data.split=\"day = '2026-11-22'\"")
    split = resolve(config)
    assert (split.manifest.num_samples, split.table.of_split("test").manifest.num_samples) == (2 * third, third)


def test_the_share_of_the_last_samples_begins_with_a_session(write, configure):
    rows = samples()
    job = resolve(configure(write(rows, **CUT), "data.split=0.2"))
    test = replace(job, table=job.table.of_split("test"))
    whole = resolve(configure(job.table.path))
    assert contents(job) + contents(test) == contents(whole)
    assert contents(job)[-1][-1] != contents(test)[0][-1]
    assert test.manifest.num_samples == pytest.approx(0.2 * len(rows), abs=12)


def test_a_column_of_the_files_is_left_out(write, configure):
    """Also one that only some files have, and one whose type drifts; a name that no file has is an error."""
    rows = flat_table(samples(20))
    write(rows.append_column("new", pa.array([1] * len(rows))), "a.parquet")
    folder = write(rows.set_column(0, "visit", pa.array(range(len(rows)))), "b.parquet").parent
    job = resolve(configure(folder, "data.drop=[visit,new,price]", "data.keys.session=region"))
    assert {f.name for f in job.schema.features} == {"history", "age", "item"}
    with pytest.raises(DataError, match=r"drop: no column 'prize'; did you mean 'price'\?"):
        resolve(configure(folder, "data.drop=[visit,new,prize]", "data.keys.session=region"))


def test_other_files_are_passed_over_and_counted(write, configure, caplog):
    folder = write(samples(20)).parent
    (folder / "notes.txt").write_text("hello")
    with caplog.at_level(logging.WARNING):
        resolve(configure(folder))
    assert "1 files are no Parquet (such as notes.txt) and are passed over" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.append_column("new", pa.array([1] * len(t))), r"b.parquet: column 'new' is BIGINT, in .*absent"),
        (lambda t: t.drop_columns("item"), r"b.parquet: column 'item' is absent, in .*a.parquet it is USMALLINT"),
        (
            lambda t: t.set_column(0, "visit", pa.array(range(len(t)))),
            r"b.parquet: column 'visit' is BIGINT, in .*a.parquet it is VARCHAR.*data.drop=\[COLUMN\]",
        ),
        (
            lambda t: t.append_column("deep", pa.array([[[1]]] * len(t))),
            r"column 'deep'",
        ),
    ],
)
def test_columns_that_drift_are_named(write, configure, change, message):
    write(samples(20), "a.parquet")
    path = write(change(flat_table(samples(20))), "b.parquet")
    with pytest.raises(DataError, match=message):
        resolve(configure(path.parent))


def test_nested_lists_are_named(write, configure):
    table = flat_table(samples(5))
    path = write(table.append_column("deep", pa.array([[[1]]] * len(table))))
    with pytest.raises(DataError, match=r"column 'deep': a list of BIGINT\[\] is no list of ids"):
        resolve(configure(path))


def test_what_is_no_data(tmp_path, configure, write):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"data.path=.*empty: no files there; the folder is empty"):
        resolve(configure(tmp_path / "empty"))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(
        DataError, match=r"none of its 1 files is Parquet \(such as a.csv\).*recd etl|a.csv: not a readable"
    ):
        resolve(configure(tmp_path / "texts"))
    path = write(samples(5))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        DataError, match=r"flat.parquet: not a readable Parquet file .* still being written, or cut off\?"
    ):
        resolve(configure(path))
    with pytest.raises(DataError, match="without a single row"):
        resolve(configure(write(flat_table(samples(5)).slice(0, 0))))
    with pytest.raises(DataError, match=r"row.*no session id"):
        resolve(configure(write(flat_table([dict(row, visit=None if i else "v") for i, row in enumerate(samples(2))]))))
    with pytest.raises(
        DataError, match=r"label 'clicked' is missing in 1 samples or more; data.policy.unlabelled=keep"
    ):
        resolve(
            configure(write(flat_table([dict(row, clicked=None if i == 3 else 1) for i, row in enumerate(samples(2))])))
        )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("data.samples='select 1'", "data.samples: the direct reader takes the columns of the files as they are"),
        ("data.keys.sample=item", r"data.keys.sample: duplicates .*data.policy.duplicates=keep"),
        (
            "+data.policy.duplicates=drop",
            "data.policy.duplicates=drop: duplicates are found when all samples are sorted",
        ),
        ("data.sample=0.5", "data.sample=0.5"),
        ("+data.groups.user={sql: 'select 1', key: item}", "data.groups.user.sql: rows of another query"),
        ("reader.batches=work", "reader.batches=work: needs a table .* take reader.batches=samples"),
        ("reader.batch_ids=99", "reader.batch_ids=99: needs a table .* take reader.batch_ids=null"),
        ("reader.whole=sessions", "reader.whole=sessions: needs a table .* take reader.whole=null"),
        ("reader.order=time", "reader.order=time: needs a table .* take reader.order=table"),
        ("reader.equal_rows=magic", "reader.equal_rows=magic: unknown"),
        ("data.split='price > 1'", "data.split=price > 1: read directly, it may ask for columns"),
        ("data.reader=drect", "data.reader=drect: unknown; did you mean 'direct'"),
    ],
)
def test_what_needs_the_etl_is_refused_by_name(write, configure, option, message):
    with pytest.raises(ConfigError, match=message):
        resolve(configure(write(samples(5)), option))


def test_gap_sessions_are_refused_by_name(write, configure):
    options = ["data.keys.session=null", "data.keys.user=visit"]
    with pytest.raises(ConfigError, match=r"data.sessions.by=gap: .*name keys.session"):
        resolve(configure(write(samples(5)), *options))


def test_without_a_table_both_ways_are_named(write, configure, tmp_path):
    config = configure(write(samples(5)), "data.reader=auto", f"data.table={tmp_path / 'none'}")
    with pytest.raises(ConfigError, match=r"make it with `recd etl .*; data.reader=direct trains on its Parquet files"):
        resolve(config)


def test_footers_without_statistics_ask_for_sizes(tmp_path, configure):
    rows = [dict(row, visit=f"{row['visit']}-{n}") for n in range(110) for row in samples(120)]
    path = tmp_path / "bare.parquet"
    pq.write_table(flat_table(rows), path, write_statistics=False, row_group_size=8192)
    with pytest.raises(
        ConfigError, match=r"footers say nothing of the ids of 'history'.*data.tables.history.num_embeddings"
    ):
        resolve(configure(path))
    options = [f"data.tables.{table}={{hashed: true, num_embeddings: 512}}" for table in ("history", "item")]
    assert resolve(configure(path, *options)).tables["item"].num_embeddings == 512
