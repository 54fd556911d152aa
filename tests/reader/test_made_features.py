"""Features made from others: declared as a config does it, and read as batches of unique rows."""

from dataclasses import replace

import numpy as np
import pytest

from recd_dist.errors import ConfigError
from recd_dist.reader.made_features import MadeFeatures
from recd_dist.reader.transform import Transforms
from recd_dist.table.column import Column
from recd_dist.table.schema import Kind, Schema, Table

from .conftest import batches, loader
from .test_slow_transforms import slow_cross

OPTIONS = {
    "tags": {"transforms": [{"first_x": 1}]},  # not made
    "tag_x_candidate": {"transforms": [{"cross": {"of": ["tags", "candidate"], "n": 40}}]},
    "country_x_tags": {"transforms": [{"cross": {"of": ["country", {"tags": [{"first_x": 1}]}], "n": 30}}]},
    "country_x_age": {
        "transforms": [{"cross": {"of": ["country", {"age": [{"bucketize": [30, 50]}]}], "n": 90}}],
        "table": "mine",
    },
    "first": {"transforms": [{"copy": "history"}, {"first_x": 1}]},
    "ages": {"kind": "id", "transforms": [{"copy": "age"}, {"bucketize": [30, 50]}]},
    "age_log": {"transforms": [{"copy": "age"}, "log", "min_max"]},
    "is": {"transforms": [{"one_hot": {"of": "candidate", "values": [3, 7]}}]},
    "old": {"transforms": [{"one_hot": {"of": {"age": [{"bucketize": [50]}]}, "num": 2}}]},
}
MADE = (
    "tag_x_candidate",
    "country_x_tags",
    "country_x_age",
    "first",
    "ages",
    "age_log",
    "is_3",
    "is_7",
    "old_0",
    "old_1",
)


def made(small):
    return MadeFeatures.of(OPTIONS, small.schema)


def test_what_a_config_declares(small):
    found = made(small)
    assert tuple(f.name for f in found.features) == MADE
    assert [(f.kind, f.group, f.table) for f in found.features] == [
        (Kind.ids, "sample", "tag_x_candidate"),
        (Kind.ids, "sample", "country_x_tags"),
        (Kind.id, "sample", "mine"),  # of two groups
        (Kind.ids, "user", "item"),  # a copy looks up the table of what it copies
        (Kind.id, "user", "ages"),
        (Kind.dense, "user", None),
        *[(Kind.dense, "sample", None)] * 2,
        *[(Kind.dense, "user", None)] * 2,
    ]
    assert found.names["is"] == ("is_3", "is_7")
    assert found.features[2].made_from == ("country", "age")


def wanted(sample):
    """What each made feature holds for a sample, computed by hand."""
    country, bucket = sample.country, (sample.age >= 30) + (sample.age >= 50)
    return {
        "tag_x_candidate": [slow_cross((t, sample.candidate), 40) for t in sample.tags],
        "country_x_tags": [slow_cross((country, t), 30) for t in sample.tags[:1]],
        "country_x_age": [slow_cross((country, bucket), 90)],
        "first": sample.history[:1],
        "ages": [bucket],
        "is_3": float(sample.candidate == 3),
        "is_7": float(sample.candidate == 7),
        "old_0": float(sample.age < 50),
        "old_1": float(sample.age >= 50),
    }


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("how", ["deduplicated", "read expanded", "expanded group", "inputs left out"])
def test_batches_hold_what_is_made(small, how, num_workers):
    found = made(small)
    stored = small.schema.without(["tags", "age", "country"]) if how == "inputs left out" else small.schema
    schema = Schema((*stored.features, *found.features), stored.labels)
    schema = schema.expand(["user"]) if how == "expanded group" else schema
    transforms = Transforms.parse(schema, found.specs, small.schema).fit(small.clustered)
    again = Transforms.parse(schema, transforms.to_json(), small.schema)
    assert again == transforms
    sizes = {"tag_x_candidate": 40, "country_x_tags": 30, "mine": 90, "ages": 3}
    limits = {"tag_x_candidate": 40, "country_x_tags": 30, "country_x_age": 90, "ages": 3}
    assert {n: limit for n, limit in transforms.id_limits().items() if n in limits} == limits
    tables = small.tables | {name: Table(name, size, 4) for name, size in sizes.items()}
    options = {"transforms": again, "expand": how == "read expanded", "num_workers": num_workers}
    seen = 0
    for batch in batches(small, schema=schema, tables=tables, **options):
        whole = batch.expand()
        dense = whole.dense["sample"]
        names = [f.name for g in (*schema.dedup_groups, "sample") for f in schema.of_group(g) if not f.is_sparse]
        for row, number in enumerate(batch.sample_ids.tolist()):
            for name, value in wanted(small.samples[number]).items():
                if isinstance(value, float):
                    assert dense[row, names.index(name)] == value, name
                else:
                    ends = np.cumsum(whole.sparse.lengths_of(name).numpy())
                    ids = whole.sparse.values_of(name).tolist()[ends[row] - len(value) : ends[row]]
                    assert (whole.sparse.lengths_of(name)[row], ids) == (len(value), value), name
            seen += 1
    assert seen == len(small.samples)


def test_min_max_of_a_made_feature_is_fitted_over_the_table(small):
    specs = {"age_log": OPTIONS["age_log"]["transforms"]}
    features = tuple(f for f in made(small).features if f.name == "age_log")
    fitted = Transforms.parse(Schema(features), specs, small.schema).fit(small.clustered)
    logs = np.log1p([s.age for s in small.samples])
    arguments = fitted.steps["age_log"][2].arguments
    np.testing.assert_allclose([arguments["min"], arguments["max"]], [logs.min(), logs.max()], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transforms": [{"cross": {"of": ["tags"], "n": 9}}]}, "crosses two features or more"),
        ({"transforms": [{"cross": {"of": ["tags", "candidate"]}}]}, r"wanted {of: \[FEATURE, FEATURE\], n: ROWS}"),
        ({"transforms": [{"cross": {"of": ["tags", "candidat"], "n": 9}}]}, "no feature 'candidat'; did you mean"),
        (
            {"transforms": [{"cross": {"of": ["tags", "age"], "n": 9}}]},
            r"'age' holds numbers; make ids of them by {age: ",
        ),
        ({"transforms": [{"copy": "age"}, {"hash": 3}]}, "'hash' works on id and ids, the feature is dense"),
        ({"kind": "id", "transforms": [{"copy": "age"}]}, "its transforms make dense, the feature is id; put a buck"),
        ({"transforms": [{"copy": ["age", "tags"]}]}, "wanted one feature"),
        ({"transforms": [{"copy": {"age": ["standardize"]}}]}, "'standardize' of 'age' needs its numbers here"),
        ({"transforms": [{"one_hot": {"of": "candidate"}}]}, "wanted {of: FEATURE, num: NUMBER}"),
        ({"transforms": [{"one_hot": {"of": "candidate", "values": [1, 1]}}]}, "wanted {of: FEATURE, num: NUMBER}"),
        ({"transforms": [{"copy": "tags"}], "weights": "w"}, "weights: only features of the table have it"),
        ({"transforms": [{"copy": "tags"}], "kind": "idd"}, "no kind 'idd'; did you mean"),
    ],
)
def test_mistakes(small, options, message):
    with pytest.raises(ConfigError, match=f"feature 'x': .*{message}"):
        MadeFeatures.of({"x": options}, small.schema)


def test_a_made_feature_has_a_name_of_its_own(small):
    with pytest.raises(ConfigError, match="feature 'tags': the table has a feature of this name"):
        MadeFeatures.of({"tags": {"transforms": [{"copy": "candidate"}]}}, small.schema)


def test_only_the_first_transform_makes(small):
    with pytest.raises(ConfigError, match="'copy' makes a feature from others; it stands first"):
        Transforms.parse(small.schema, {"tags": [{"first_x": 1}, {"copy": "tags"}]})


def test_unknown_values_are_counted(small, tmp_path):
    (tmp_path / "v.txt").write_text("\n".join(map(str, range(5))))
    transforms = Transforms.parse(small.schema, {"tags": [{"vocabulary": str(tmp_path / "v.txt")}]})
    assert transforms.id_limits() == {"tags": 6}
    reader = loader(small, transforms=transforms, order="table")
    assert {i for b in reader for i in b.sparse.values_of("tags").tolist()} == set(range(6))
    assert reader.counts == {"tags: not in its vocabulary": sum(t >= 5 for s in small.samples for t in s.tags)}
    reader.close()


def test_fill_mends_numbers_before_they_are_refused(small, monkeypatch):
    from recd_dist.reader import table_files

    read = table_files.TableFiles.read

    def read_with_nan(self, row_group):
        decoded = read(self, row_group)
        prices = decoded.columns["price"].values.copy()
        prices[0] = np.nan
        return replace(decoded, columns={**decoded.columns, "price": Column(prices)})

    monkeypatch.setattr(table_files.TableFiles, "read", read_with_nan)
    transforms = Transforms.parse(small.schema, {"price": [{"fill": -1}]})
    prices = np.concatenate([b.dense["sample"][:, 0] for b in batches(small, transforms=transforms)])
    assert (prices == -1).sum() > 0
    assert np.isfinite(prices).all()
