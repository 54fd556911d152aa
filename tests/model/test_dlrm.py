"""DLRM gives the same logits and gradients with deduplication on and off."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.batches import assert_on_equals_off, expand_batch, heavy_tailed_inverse, random_batch, schema_of

from recd_dist.errors import ConfigError
from recd_dist.model.dlrm import DLRM
from recd_dist.table.schema import Schema
from recd_dist.tensors.grouped import Embedded, Grouped

DIM = 4
SCHEMAS = {
    "mixed": schema_of(user="u1:id u2:ids ud:dense", page="p1:id pd:dense pe:dense", sample="c:id d:dense x:ids"),
    "one group": schema_of(user="u1:id u2:ids u3:id", sample="c:id d:dense"),
    "no dense": schema_of(user="u1:id u2:ids", sample="c:id"),
    "no sparse": schema_of(user="a:dense b:dense", sample="d:dense"),
    "dense in groups only": schema_of(user="u1:id a:dense", page="b:dense", sample="c:id"),
    "no sample features": schema_of(user="u1:id u2:ids a:dense"),
    "one feature": schema_of(user="u1:id"),
    "one sample feature": schema_of(sample="c:id"),
    "sample only": schema_of(sample="c:id x:ids d:dense"),
    "interleaved": Schema(schema_of(s="a:id", sample="b:id d:dense").features + schema_of(s="c:id e:dense").features),
}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_on_equals_off(schema: Schema) -> None:
    generator = torch.Generator().manual_seed(0)
    inverses = {g: heavy_tailed_inverse(60, generator) for g in schema.dedup_groups}
    torch.manual_seed(0)
    model = DLRM(schema, DIM, bottom=(5, 6), over=(16, 8), num_tasks=3).double()
    assert_on_equals_off(model, schema, *random_batch(schema, inverses, 60, DIM))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_on_equals_off_for_any_inverse(data: st.DataObject) -> None:
    names = data.draw(st.sampled_from(sorted(SCHEMAS)))
    schema = SCHEMAS[names]
    size = data.draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    mean = data.draw(st.sampled_from([1.0, 1.5, 4.0, 20.0]))
    inverses = {}
    for group in schema.dedup_groups:
        inverse = heavy_tailed_inverse(size, generator, mean)
        inverses[group] = inverse[torch.randperm(size, generator=generator)] if data.draw(st.booleans()) else inverse
    torch.manual_seed(0)
    model = DLRM(schema, DIM, bottom=(5,), over=(9,)).double()
    embedded, dense, _ = random_batch(schema, inverses, size, DIM)
    torch.testing.assert_close(
        model(embedded, dense), model(*expand_batch(schema, embedded, dense)), rtol=1e-12, atol=1e-12
    )


def test_table_of_another_width_is_named() -> None:
    schema = SCHEMAS["one sample feature"]
    pooled = {"sample": Grouped(torch.zeros(3, 8), None, ("c",), (8,))}
    with pytest.raises(ConfigError, match=r"feature 'c' has vectors of width 8, this model's are 4 wide"):
        DLRM(schema, DIM)(Embedded(pooled, {}), {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bottom": ()}, r"model.bottom is \[\]"),
        ({"over": (4, 0)}, r"model.over is \[4, 0\]"),
        ({"dropout": 1.0}, r"model.dropout is 1.0"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DLRM(SCHEMAS["mixed"], DIM, **options)
