"""A function of the user's own: imported by its path where it is trusted, and its result checked."""

import sys

import numpy as np
import pytest

from recd_dist.errors import ConfigError, DataError
from recd_dist.ranks.trusted_code import TRUSTED
from recd_dist.reader.transform import Transforms
from recd_dist.table.column import Column

from .conftest import batches

MODULE = """
from dataclasses import replace
import numpy as np

def add(column, by=1):
    return replace(column, values=column.values + by)

def drop_odd(column):
    kept = column.values % 2 == 0
    ends = np.concatenate([[0], np.cumsum(kept)])[column.offsets]
    return replace(column, values=column.values[kept], offsets=ends)

def lose_a_row(column):
    return replace(column, values=column.values[1:])

def as_floats(column):
    return replace(column, values=column.values * 0.5)

def as_list(column):
    return column.values.tolist()

def torn(column):
    return replace(column, offsets=column.offsets + 1)

def unpaired(column):
    return replace(column, values=column.values[:-1], offsets=np.minimum(column.offsets, len(column.values) - 1))

def fails(column):
    return column.lengths + undefined
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "my_transforms.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(TRUSTED, "my_transforms")
    yield "my_transforms"
    sys.modules.pop("my_transforms", None)


def parse(small, *specs, feature="tags"):
    return Transforms.parse(small.schema, {feature: list(specs)})


def test_a_function_runs_with_its_arguments(small, package):
    transforms = parse(small, {"apply": f"{package}:add", "by": 3, "limit": 10}, {"apply": f"{package}:drop_odd"})
    assert Transforms.parse(small.schema, transforms.to_json()) == transforms
    assert transforms.id_limits() == {}  # the second says nothing of its ids
    assert parse(small, {"apply": f"{package}:add", "limit": 10}).id_limits() == {"tags": 10}
    column = Column(np.array([1, 2, 5]), np.array([0, 2, 2, 3]))
    first, second = transforms.steps["tags"]
    from recd_dist.reader.transform_steps import apply_steps

    made = apply_steps([first, second], column)
    assert (made.values.tolist(), made.offsets.tolist()) == ([4, 8], [0, 1, 1, 2])


def test_it_runs_where_batches_are_read(small, package):
    transforms = parse(small, {"apply": f"{package}:drop_odd"})
    found = batches(small, transforms=transforms, order="table")
    seen = [i for b in found for i in b.sparse.values_of("tags").tolist()]
    assert seen == [t for s in small.samples for t in s.tags if t % 2 == 0]


@pytest.mark.parametrize(
    ("feature", "name", "error", "message"),
    [
        ("candidate", "lose_a_row", DataError, "it returns 2 rows for 3; mend the function"),
        ("candidate", "as_floats", DataError, "its values are float64, wanted int32 or int64"),
        ("candidate", "as_list", DataError, "it returns list, wanted a Column"),
        ("tags", "torn", DataError, "its offsets go from 1 to 4, wanted to rise from 0 to the number of values, 3"),
        ("tags", "unpaired", DataError, "it returns 3 weights for 2 values"),
        (
            "tags",
            "fails",
            ConfigError,
            r"fails with NameError: name 'undefined' is not defined \(my_transforms.py:\d+\)",
        ),
    ],
)
def test_results_that_do_not_fit(small, package, feature, name, error, message):
    from recd_dist.reader.transform_steps import apply_steps

    (step,) = parse(small, {"apply": f"{package}:{name}"}, feature=feature).steps[feature]
    weights = np.ones(3, np.float32)
    column = Column(np.array([1, 2, 5]), *([np.array([0, 2, 3]), weights] if feature == "tags" else []))
    with pytest.raises(error, match=f"transform 'apply: my_transforms:{name}'.*{message}"):
        apply_steps([step], column)


def test_a_limit_that_ids_do_not_keep(small, package):
    from recd_dist.reader.transform_steps import apply_steps

    (step,) = parse(small, {"apply": f"{package}:add", "limit": 3}).steps["tags"]
    with pytest.raises(DataError, match="its values go from 2 to 6, the config says limit: 3"):
        apply_steps([step], Column(np.array([1, 5]), np.array([0, 2])))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"apply": "my_transforms.add"}, "names no function; write apply: my_package.my_module:function"),
        ({"apply": "my_transforms:ad"}, "my_transforms has no function 'ad'"),
        ({"apply": "my_transforms:add", "bye": 3}, "but got an unexpected keyword argument 'bye'"),
        ({"apply": "other.place:add"}, f"start the job with {TRUSTED}=other in its environment"),
        ({"apply": "my_transforms:add", "limit": 0}, "limit: wanted a whole number above 0, found 0"),
        ({"apply": 3}, "wanted {apply: 'my_package.my_module:function'"),
    ],
)
def test_what_cannot_be_named(small, package, spec, message):
    with pytest.raises(ConfigError, match=message):
        parse(small, spec)
