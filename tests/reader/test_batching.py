"""Groups that a job expands are read expanded, each for itself, as ``Batch.expand`` would expand them."""

from dataclasses import replace

import pytest
import torch

from recd_dist.errors import ConfigError
from recd_dist.reader.loader import Loader


def batches(table, schema, **options):
    reader = Loader(table.clustered, schema, table.tables, batch_size=32, window=3, **options)
    try:
        return list(reader)
    finally:
        reader.close()


@pytest.mark.parametrize("groups", [["user"], ["profile"], ["user", "profile"], []])
@pytest.mark.parametrize("expand", [False, True])
def test_groups_in_sample_are_read_expanded(small, groups: list[str], expand: bool) -> None:
    schema = small.schema.expanded(groups)
    found = batches(small, schema, expand=expand)
    for batch, stored in zip(found, batches(small, small.schema), strict=True):
        wanted = stored.expand(groups)
        wanted = wanted.expand() if expand else wanted
        assert batch.sparse.groups == wanted.sparse.groups
        assert batch.dense.keys() == wanted.dense.keys()
        for name in ("values", "lengths", "inverse"):
            assert torch.equal(getattr(batch.sparse, name), getattr(wanted.sparse, name))
        assert all(torch.equal(batch.dense[g], wanted.dense[g]) for g in batch.dense)


def test_keys_and_columns_stand_as_the_schema_says(small) -> None:
    schema = small.schema.expanded(["profile"])
    batch = batches(small, schema)[0]
    assert {g.name: g.keys for g in batch.sparse.groups} == {g: schema.sparse_of(g) for g in schema.groups}
    assert {g: x.shape[1] for g, x in batch.dense.items()} == {"user": 1, "sample": 1}


def test_another_group_than_the_tables_is_refused(small) -> None:
    features = tuple(replace(f, group="profile") if f.name == "age" else f for f in small.schema.features)
    with pytest.raises(ConfigError, match="feature 'age': dense in group 'profile' asked for, table"):
        Loader(small.clustered, replace(small.schema, features=features), small.tables, batch_size=32)
