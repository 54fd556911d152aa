"""Models of pooled vectors give the same logits and gradients with deduplication on and off, whatever the levels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.batches import assert_on_equals_off, expand_batch, heavy_tailed_inverse, random_batch, schema_of
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from recd_dist.errors import ConfigError
from recd_dist.model.cross import CrossLayers
from recd_dist.model.factorization import add_pair_products
from recd_dist.model.model_inputs import Inputs, Vectors
from recd_dist.model.models import build_named_model
from recd_dist.table.schema import Schema
from recd_dist.tensors.levels import Levels
from recd_dist.tensors.shared import Columns, Shared

DIM = 4
SCHEMAS = {
    "mixed": schema_of(user="u1:id u2:ids ud:dense", page="p1:id pd:dense pe:dense", sample="c:id d:dense x:ids"),
    "one group": schema_of(user="u1:id u2:ids u3:id", sample="c:id d:dense"),
    "no dense": schema_of(user="u1:id u2:ids", sample="c:id"),
    "dense in groups only": schema_of(user="u1:id a:dense", page="b:dense", sample="c:id"),
    "no sample features": schema_of(user="u1:id u2:ids a:dense"),
    "sample only": schema_of(sample="c:id x:ids d:dense"),
    "interleaved": Schema(schema_of(s="a:id", sample="b:id d:dense").features + schema_of(s="c:id e:dense").features),
}
LAYERS = {"bottom": (5, 6), "over": (16, 8)}
EXPERTS = {"bottom": (5, 6), "expert": (7, 6), "tower": (5,)}
MODELS: dict[str, tuple[str, dict]] = {
    "dcn_v2": ("dcn_v2", {**LAYERS, "rank": 3}),
    "dcn_v2, full": ("dcn_v2", {**LAYERS, "rank": 0, "cross_layers": 2}),
    "deepfm": ("deepfm", LAYERS),
    "wide_deep": ("wide_deep", LAYERS),
    "mmoe": ("mmoe", {**EXPERTS, "experts": 3}),
    "ple": ("ple", EXPERTS),
}


def build(name: str, schema: Schema, num_tasks: int) -> nn.Module:
    torch.manual_seed(0)
    model, options = MODELS[name]
    built = build_named_model(model, schema, DIM, **options, num_tasks=num_tasks).double()
    for parameter in built.parameters():  # no ReLU is dead for all samples
        nn.init.normal_(parameter, std=0.3)
    return built


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_on_equals_off(name: str, schema: Schema) -> None:
    generator = torch.Generator().manual_seed(0)
    inverses = {g: heavy_tailed_inverse(60, generator) for g in schema.dedup_groups}
    model = build(name, schema, num_tasks=2)
    embedded, dense, leaves = random_batch(schema, inverses, 60, DIM)

    assert model(embedded, dense).shape == (60, 2)
    assert_on_equals_off(model, schema, embedded, dense, leaves)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_on_equals_off_for_any_inverse(data: st.DataObject) -> None:
    schema = SCHEMAS[data.draw(st.sampled_from(sorted(SCHEMAS)))]
    size = data.draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    mean = data.draw(st.sampled_from([1.0, 1.5, 4.0, 20.0]))
    inverses = {}
    for group in schema.dedup_groups:
        inverse = heavy_tailed_inverse(size, generator, mean)
        inverses[group] = inverse[torch.randperm(size, generator=generator)] if data.draw(st.booleans()) else inverse
    model = build(data.draw(st.sampled_from(sorted(MODELS))), schema, num_tasks=data.draw(st.integers(1, 3)))
    embedded, dense, _ = random_batch(schema, inverses, size, DIM)

    torch.testing.assert_close(
        model(embedded, dense), model(*expand_batch(schema, embedded, dense)), rtol=1e-12, atol=1e-12
    )


def test_pair_products_by_hand() -> None:
    vectors = torch.randn(5, 4, 3, dtype=torch.float64)
    by_hand = sum(vectors[:, i] * vectors[:, j] for i in range(4) for j in range(i))

    found = add_pair_products([Vectors(("a", "b", "c", "d"), vectors.flatten(1))], 3)

    torch.testing.assert_close(found, by_hand, rtol=1e-12, atol=1e-12)


def test_cross_layers_by_hand() -> None:
    columns = torch.randn(5, 6, dtype=torch.float64)
    cross = CrossLayers(6, 2, rank=2).double()
    by_hand = columns
    for down, up in cross.layers:
        by_hand = columns * (by_hand @ down.weight.T @ up.weight.T + up.bias) + by_hand

    torch.testing.assert_close(cross(columns), by_hand, rtol=1e-12, atol=1e-12)


def test_the_first_cross_layer_multiplies_columns_where_they_are_unique() -> None:
    level = Levels().find(torch.tensor([0, 0, 0, 1, 1, 1], dtype=torch.int32), 2)
    assert level is not None
    columns = Columns([Shared(torch.randn(2, 5), level), torch.randn(6, 3)])

    in_place = {torch.ops.aten.addmm_: lambda _, rows, weight, out_shape=None, **__: 2 * rows[0] * rows[1] * weight[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        CrossLayers(8, 2, rank=4)(columns)

    products = (2 * 5 + 6 * 3) * 4 + 6 * 4 * 8 + (6 * 8 * 4 + 6 * 4 * 8)
    assert counter.get_total_flops() == 2 * products


def test_columns_are_taken_in_the_order_of_names() -> None:
    values = torch.arange(24.0).view(2, 12)
    inputs = Inputs({"sample": Vectors(("a", "b", "c"), values)}, {}, {}, 2)

    found = inputs.columns(["b", "c", "a"])

    assert isinstance(found, Tensor)
    assert found.tolist() == torch.cat([values[:, 4:], values[:, :4]], 1).tolist()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dcn_v2", {"cross_layers": 0}, "model.cross_layers is 0; it must be at least 1"),
        ("dcn_v2", {"rank": -1}, "model.rank is -1; it must be at least 1, or 0 for full matrices"),
        ("deepfm", {"bottom": []}, r"model.bottom is \[\]; it needs at least one width"),
        ("wide_deep", {"dropout": 1.0}, "model.dropout is 1.0"),
        ("mmoe", {"experts": 0}, "model.experts is 0; it must be at least 1"),
        ("mmoe", {"tower": [4, 0]}, r"model.tower is \[4, 0\]"),
        ("ple", {"task_experts": 0}, "model.task_experts is 0"),
        ("ple", {"expert_layers": 0}, "model.expert_layers is 0"),
    ],
)
def test_options_out_of_range(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_named_model(name, SCHEMAS["mixed"], DIM, **options)
