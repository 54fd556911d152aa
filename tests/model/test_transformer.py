"""The transformer gives the same logits and gradients with deduplication on and off."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.batches import assert_on_equals_off, expand_batch, heavy_tailed_inverse, random_batch, schema_of

from recd_dist.errors import ConfigError
from recd_dist.model.attention import TargetAttention
from recd_dist.model.transformer import Transformer
from recd_dist.table.schema import Schema
from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged
from recd_dist.tensors.levels import Levels

DIM = 4
SCHEMAS = {
    "pair": schema_of(user="h:ids:item u:id d:dense", sample="c:id:item e:dense"),
    "pairs and others": schema_of(
        user="h:ids:item t:ids u:id", page="g:ids:shop p:id d:dense", sample="c:id:item s:id:shop x:ids e:dense"
    ),
    "no candidate": schema_of(user="h:ids:item", sample="c:id:other"),
    "no sample sparse": schema_of(user="h:ids:item g:ids", sample="e:dense"),
    "history alone": schema_of(user="h:ids:item"),
    "two histories, one candidate": schema_of(user="h:ids:item", page="g:ids:item", sample="c:id:item"),
}


def model_for(schema: Schema, layers: int, max_length: int = 5, causal: bool = False) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(
        schema, DIM, bottom=(5, 6), over=(16, 8), heads=2, max_length=max_length, history_layers=layers, causal=causal
    )
    return model.double()


@pytest.mark.parametrize(("layers", "causal"), [(0, False), (1, False), (2, True)])
@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_on_equals_off(schema: Schema, layers: int, causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    inverses = {g: heavy_tailed_inverse(60, generator) for g in schema.dedup_groups}
    lists = Transformer.sequence_features(schema)
    assert_on_equals_off(
        model_for(schema, layers, causal=causal), schema, *random_batch(schema, inverses, 60, DIM, lists)
    )


@settings(max_examples=25, deadline=None)
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
    lists = Transformer.sequence_features(schema)
    longest = data.draw(st.sampled_from([0, 1, 9]))
    embedded, dense, _ = random_batch(schema, inverses, size, DIM, lists, longest)
    model = model_for(schema, data.draw(st.sampled_from([0, 2])), causal=data.draw(st.booleans()))
    torch.testing.assert_close(
        model(embedded, dense), model(*expand_batch(schema, embedded, dense)), rtol=1e-12, atol=1e-12
    )


def test_target_attention_by_hand() -> None:
    """With one head and identity projections, weights are softmax(candidate . history / sqrt(dim)); empty gives 0."""
    model = TargetAttention(DIM, heads=1).double()
    with torch.no_grad():
        model.query.weight.copy_(torch.eye(DIM))
        model.query.bias.zero_()
        model.key.weight.copy_(torch.eye(DIM))
        model.value.weight.copy_(torch.eye(DIM))
    a, b = torch.tensor([[1.0, 0, 0, 0], [0, 2.0, 0, 0]], dtype=torch.float64)
    inverse = torch.tensor([0, 1, 0], dtype=torch.int32)
    lengths, level = torch.tensor([2, 0], dtype=torch.int32), Levels().find(inverse, 2)
    history = GroupedJagged(torch.stack([a, b]), lengths, inverse, level=level)
    from_slots = model(history, torch.stack([a, a, b]))
    expanded = model(history.expand(), torch.stack([a, a, b]))
    first = torch.softmax(torch.tensor([0.5, 0.0], dtype=torch.float64), 0)
    third = torch.softmax(torch.tensor([0.0, 2.0], dtype=torch.float64), 0)
    expected = torch.stack([first[0] * a + first[1] * b, torch.zeros(DIM), third[0] * a + third[1] * b])
    torch.testing.assert_close(from_slots, expected)
    torch.testing.assert_close(expanded, expected)


def test_only_the_newest_ids_count() -> None:
    schema = SCHEMAS["pair"]
    model = model_for(schema, 1, max_length=2)

    def logits(values: torch.Tensor) -> torch.Tensor:
        history = GroupedJagged(values, torch.tensor([len(values)], dtype=torch.int32), torch.zeros(3).int())
        ones = torch.ones(3, DIM, dtype=torch.float64)
        pooled = {
            "user": Grouped(ones[:1], torch.zeros(3).int(), ("u",), (DIM,)),
            "sample": Grouped(ones, None, ("c",), (DIM,)),
        }
        dense = {"user": Grouped(ones[:1, :1], torch.zeros(3).int()), "sample": Grouped(ones[:, :1])}
        return model(Embedded(pooled, {"h": history}), dense)

    values = torch.randn(4, DIM, dtype=torch.float64)
    torch.testing.assert_close(logits(values), logits(values[2:]))
    assert not torch.allclose(logits(values), logits(values[1:3]))


def test_needs_a_history() -> None:
    with pytest.raises(ConfigError, match=r"needs a list feature in a deduplicated group .* use model=dlrm"):
        Transformer.sequence_features(schema_of(user="u:id", sample="x:ids"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, r"model.heads is 3; it must divide model.dim, which is 4"),
        ({"max_length": 0}, r"model.max_length is 0"),
        ({"history_layers": -1}, r"model.history_layers is -1"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Transformer(SCHEMAS["pair"], DIM, **options)
