import pytest

from recd_dist.errors import ConfigError
from recd_dist.job.table_sizes import infer_tables
from recd_dist.table.manifest import IdStats, Manifest
from recd_dist.table.schema import Feature, IdRules, Kind, Schema, Table

SCHEMA = Schema((Feature("history", Kind.ids, "user", "item"), Feature("candidate", Kind.id, "sample", "item")))


def tables(stats: IdStats, **options):
    manifest = Manifest("t", "train", SCHEMA, 0, 0, 0, {}, {}, {"item": stats}, ())
    return infer_tables(manifest, SCHEMA, {"item": options} if options else {}, dim=8)


@pytest.mark.parametrize(
    ("stats", "table"),
    [
        (IdStats(0, 999, 900), Table("item", 1000, 8)),
        (IdStats(0, 4599, 900), Table("item", 4600, 8)),  # 4 * 900 + 1000
        (IdStats(0, 4600, 900), Table("item", 1856, 8, hashed=True)),  # 1800 rounded up to a multiple of 64
        (IdStats(-1, 5, 3), Table("item", 64, 8, hashed=True)),
        (IdStats(0, -1, 0), Table("item", 1, 8)),  # no id at all
        (IdStats(0, 2**62, 10**6), Table("item", 2_000_000, 8, hashed=True)),
    ],
)
def test_inferred(stats, table):
    assert tables(stats) == {"item": table}


@pytest.mark.parametrize(
    ("options", "table"),
    [
        ({"mapped": True}, Table("item", 1152, 8, mapped=IdRules())),  # a quarter more than 900, in steps of 64
        ({"mapped": True, "num_embeddings": 10}, Table("item", 10, 8, mapped=IdRules())),
        (
            {"mapped": True, "num_embeddings": 9, "admit_after": 3, "evict": "age", "max_age": 50},
            Table("item", 9, 8, mapped=IdRules(3, "age", 50)),
        ),
        ({"mapped": False}, Table("item", 1000, 8)),
        ({"num_embeddings": 1200}, Table("item", 1200, 8)),
        ({"dim": 16}, Table("item", 1000, 16)),
        ({"num_embeddings": 10, "hashed": True}, Table("item", 10, 8, hashed=True)),
        ({"num_embeddings": None, "dim": None, "hashed": None}, Table("item", 1000, 8)),
    ],
)
def test_given(options, table):
    assert tables(IdStats(0, 999, 900), **options) == {"item": table}


def test_transforms_that_bound_every_feature_bound_the_table():
    manifest = Manifest("t", "train", SCHEMA, 0, 0, 0, {}, {}, {"item": IdStats(-5, 10**9, 10**6)}, ())
    bounded = infer_tables(manifest, SCHEMA, {}, 8, limits={"history": 100, "candidate": 300})
    assert bounded == {"item": Table("item", 300, 8)}
    assert infer_tables(manifest, SCHEMA, {}, 8, limits={"history": 100})["item"].hashed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mapped": "x"}, r"mapped=x: wanted true or false"),
        ({"admit_after": 2}, r"admit_after=2: counts for mapped tables only; add data.tables.item.mapped=true"),
        ({"mapped": True, "hashed": True}, r"tables.item: hashed and mapped; keep mapped=true"),
        ({"mapped": True, "num_embeddings": 1}, r"num_embeddings=1: a mapped table keeps one row for unknown ids"),
        ({"mapped": True, "admit_after": 0}, r"admit_after=0: wanted a whole number above 0"),
        ({"mapped": True, "evict": "lfu"}, r"evict=lfu: unknown"),
        ({"mapped": True, "evict": "age"}, r"evict=age: after how many steps\? Add data.tables.item.max_age="),
        ({"mapped": True, "max_age": 5}, r"max_age=5: counts with evict=age, found evict=lru; add .*evict=age"),
    ],
)
def test_options_of_mapped_tables_that_do_not_fit(options, message):
    with pytest.raises(ConfigError, match=message):
        tables(IdStats(-7, 2**62, 900), **options)


def test_ids_that_were_hashed_before_are_not_mapped():
    manifest = Manifest("t", "train", SCHEMA, 0, 0, 0, {}, {}, {"item": IdStats(0, 9, 9)}, ())
    with pytest.raises(ConfigError, match=r"mapped=true: the transforms of 'history' bring its ids into \[0, 100\)"):
        infer_tables(manifest, SCHEMA, {"item": {"mapped": True}}, 8, limits={"history": 100})


def test_too_small():
    message = r"tables.item.num_embeddings=10: ids go up to 999; set num_embeddings=1000 or more, or .*hashed=true"
    with pytest.raises(ConfigError, match=message):
        tables(IdStats(0, 999, 900), num_embeddings=10)


def test_negative_ids_want_hashing():
    with pytest.raises(ConfigError, match=r"tables.item: ids go down to -3; set data.tables.item.hashed=true"):
        tables(IdStats(-3, 9, 9), num_embeddings=10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, r"tables.item.dim=0: wanted a whole number"),
        ({"num_embeddings": "many"}, r"num_embeddings=many: wanted a whole number"),
        ({"num_embedings": 3}, r"tables.item.num_embedings: unknown option; did you mean 'num_embeddings'"),
        ({"hashed": "no"}, r"tables.item.hashed=no: wanted true or false"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        tables(IdStats(0, 9, 9), **options)


def test_unknown_table():
    manifest = Manifest("t", "train", SCHEMA, 0, 0, 0, {}, {}, {}, ())
    with pytest.raises(ConfigError, match=r"tables.itme: no feature looks it up; did you mean 'item'"):
        infer_tables(manifest, SCHEMA, {"itme": {"dim": 3}}, dim=8)


def test_tables_of_dropped_features_may_be_named():
    manifest = Manifest("t", "train", SCHEMA, 0, 0, 0, {}, {}, {}, ())
    dense = Schema((Feature("price", Kind.dense),))
    assert infer_tables(manifest, dense, {"item": {"dim": 3}}, dim=8) == {}


TIMES = Schema((Feature("seen", Kind.ids, "user", "seen"), Feature("now", Kind.id, "sample", "seen")))


@pytest.mark.parametrize(
    ("stats", "options", "rows"),
    [
        (IdStats(0, 9, 3), {}, 2**31 - 1),
        (IdStats(0, 1_764_000_000, 300), {}, 2**31 - 1),  # seconds: sparse, and ids would be hashed
        (IdStats(0, 1_764_000_000_000, 300), {}, 1_764_000_000_001),
        (IdStats(0, 9, 3), {"num_embeddings": 10}, 10),
    ],
)
def test_times_are_never_hashed(stats: IdStats, options: dict[str, int], rows: int) -> None:
    manifest = Manifest("t", "train", TIMES, 0, 0, 0, {}, {}, {"seen": stats}, ())
    found = infer_tables(manifest, TIMES, {"seen": options}, 8, times=("seen", "now"))
    assert found == {"seen": Table("seen", rows, 8)}


@pytest.mark.parametrize(
    ("stats", "options", "times", "message"),
    [
        (IdStats(0, 9, 3), {"hashed": True}, ("seen", "now"), r"seen\.hashed=true: 'seen' is a time .*leave it out"),
        (IdStats(0, 9, 3), {"mapped": True}, ("seen", "now"), r"seen\.mapped=true: 'seen' is a time .*leave it out"),
        (IdStats(-4, 9, 3), {}, ("seen", "now"), r"'seen' is a time .* goes down to -4; .*an earlier start"),
        (IdStats(0, 10**9, 3), {}, ("now",), r"'now' is a time .* is hashed; .*data\.features\.now\.table=now"),
    ],
)
def test_times_that_could_not_stay_what_they_are(
    stats: IdStats, options: dict[str, bool], times: tuple[str, ...], message: str
) -> None:
    manifest = Manifest("t", "train", TIMES, 0, 0, 0, {}, {}, {"seen": stats}, ())
    with pytest.raises(ConfigError, match=message):
        infer_tables(manifest, TIMES, {"seen": options}, 8, times=times)
