"""Models of histories give the same logits and gradients with deduplication on and off."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.batches import assert_on_equals_off, expand_batch, heavy_tailed_inverse, random_batch, schema_of
from torch import nn

from recd_dist.errors import DataError
from recd_dist.model import activation_unit, attention, hstu_layer
from recd_dist.model.activation_unit import ActivationUnit
from recd_dist.model.din import DIN
from recd_dist.model.hstu import HSTU
from recd_dist.model.model_inputs import Inputs
from recd_dist.model.silu_attention import bucket_of
from recd_dist.model.transformer import Transformer
from recd_dist.table.schema import Schema
from recd_dist.tensors import bands
from recd_dist.tensors.grouped import Embedded, GroupedJagged

DIM = 4
SCHEMAS = {
    "pair": schema_of(user="h:ids:item u:id d:dense", sample="c:id:item e:dense"),
    "pairs and others": schema_of(
        user="h:ids:item t:ids u:id", page="g:ids:shop p:id d:dense", sample="c:id:item s:id:shop x:ids e:dense"
    ),
    "no sample dense": schema_of(user="h:ids:item g:ids", sample="c:id:item"),
    "two histories, one candidate": schema_of(user="h:ids:item", page="g:ids:item", sample="c:id:item"),
}
SIZES = {"bottom": (5, 6), "over": (16, 8), "max_length": 5}
MODELS: dict[str, Callable[[Schema], nn.Module]] = {
    "din": lambda schema: DIN(schema, DIM, unit=6, **SIZES),
    "din, softmax": lambda schema: DIN(schema, DIM, unit=3, softmax=True, **SIZES),
    "transformer": lambda schema: Transformer(schema, DIM, history_layers=1, **SIZES),
    "transformer, causal": lambda schema: Transformer(schema, DIM, history_layers=2, causal=True, **SIZES),
    "hstu, 1 layer": lambda schema: HSTU(schema, DIM, layers=1, **SIZES),
    "hstu, 3 layers": lambda schema: HSTU(schema, DIM, layers=3, heads=1, **SIZES),
}


def model_for(name: str, schema: Schema) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name](schema).double()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_on_equals_off(schema: Schema, name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    inverses = {g: heavy_tailed_inverse(60, generator) for g in schema.dedup_groups}
    model = model_for(name, schema)
    assert_on_equals_off(model, schema, *random_batch(schema, inverses, 60, DIM, model.sequence_features(schema)))


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
    model = model_for(data.draw(st.sampled_from(sorted(MODELS))), schema)
    lists = model.sequence_features(schema)
    longest = data.draw(st.sampled_from([0, 1, 9]))
    embedded, dense, _ = random_batch(schema, inverses, size, DIM, lists, longest)
    expanded = expand_batch(schema, embedded, dense)
    torch.testing.assert_close(model(embedded, dense), model(*expanded), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_the_way_of_devices_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = SCHEMAS["pairs and others"]
    generator = torch.Generator().manual_seed(0)
    inverses = {g: heavy_tailed_inverse(60, generator) for g in schema.dedup_groups}
    model = model_for(name, schema)
    embedded, dense, leaves = random_batch(schema, inverses, 60, DIM, model.sequence_features(schema))
    weights = [*leaves, *model.parameters()]
    on_host = model(embedded, dense)
    grads = torch.autograd.grad(on_host.sum(), weights)
    for module in (activation_unit, attention, hstu_layer):
        monkeypatch.setattr(module, "fits_loops", lambda _: False)
    monkeypatch.setattr(bands, "is_on_host", lambda _: False)
    padded = model(embedded, dense)
    torch.testing.assert_close(padded, on_host, rtol=1e-12, atol=1e-12)
    for one, other in zip(torch.autograd.grad(padded.sum(), weights), grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_models_run_under_autocast(name: str) -> None:
    schema = SCHEMAS["pairs and others"]
    generator = torch.Generator().manual_seed(0)
    inverses = {g: heavy_tailed_inverse(60, generator) for g in schema.dedup_groups}
    model = model_for(name, schema)
    given = random_batch(schema, inverses, 60, DIM, model.sequence_features(schema))[:2]
    model.float()
    single = [_to_float(x) for x in given]
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(*single)
    logits.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(logits.float(), model(*single).float(), rtol=0.1, atol=0.1)


def _to_float(given: Any) -> Any:
    """The same batch in float32."""
    if isinstance(given, Embedded):
        return Embedded(_to_float(given.pooled), _to_float(given.sequences))
    return {k: replace(x, values=x.values.float()) for k, x in given.items()}


def plain_unit(unit: ActivationUnit, history: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
    """The unit as the paper writes it, for one candidate [dim] and its history [n, dim]."""
    c = candidate.expand_as(history)
    hidden = torch.prelu(unit.first(torch.cat([history, c, history - c, history * c], 1)), unit.slope)
    weights = unit.out(hidden)
    return ((weights.softmax(0) if unit.softmax else weights) * history).sum(0)


@pytest.mark.parametrize("softmax", [False, True])
def test_the_activation_unit_is_that_of_the_paper(softmax: bool) -> None:
    torch.manual_seed(0)
    unit = ActivationUnit(DIM, 6, softmax).double()
    lengths = torch.tensor([3, 0, 7], dtype=torch.int32)
    history = GroupedJagged(torch.randn(10, DIM, dtype=torch.float64), lengths)
    candidates = torch.randn(3, DIM, dtype=torch.float64)
    expected = [plain_unit(unit, h, c) for h, c in zip(history.values.split([3, 0, 7]), candidates, strict=True)]
    torch.testing.assert_close(unit(history, candidates), torch.stack(expected), rtol=1e-12, atol=1e-12)


def plain_hstu(tower: nn.Module, history: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
    """One sample's history [n, dim] and candidate [dim] as one sequence, through every layer for every position."""
    x = torch.cat([history, candidate[None]])
    place = torch.arange(len(x))
    distance = place[:, None] - place
    for layer in tower.layers:
        key, value, query, gate = nn.functional.silu(layer.project(layer.norm(x))).chunk(4, 1)
        heads = [t.unflatten(1, (layer.heads, -1)).transpose(0, 1) for t in (query, key, value)]
        scores = heads[0] @ heads[1].mT * layer.scale + layer.position[:, distance.clamp(min=0)]
        seen = (nn.functional.silu(scores) * (distance >= 0)) @ heads[2] / layer.max_length
        x = x + layer.out(layer.norm_seen(seen.transpose(0, 1).flatten(1)) * gate)
    return x[-1]


def test_hstu_is_one_sequence_per_sample() -> None:
    schema = SCHEMAS["pair"]
    model = model_for("hstu, 3 layers", schema)
    tower = model.towers["h"]
    lengths = torch.tensor([4, 0, 5, 1], dtype=torch.int32)
    history = GroupedJagged(torch.randn(10, DIM, dtype=torch.float64), lengths)
    candidates = torch.randn(4, DIM, dtype=torch.float64)
    expected = [plain_hstu(tower, h, c) for h, c in zip(history.values.split([4, 0, 5, 1]), candidates, strict=True)]
    torch.testing.assert_close(tower(history, candidates), torch.stack(expected), rtol=1e-12, atol=1e-12)


BESIDE = schema_of(user="h:ids:item a:ids:act k:ids:kind", sample="c:id:item b:id:kind")


@pytest.mark.parametrize("name", ["din", "hstu", "transformer"])
def test_lists_beside_a_history_are_added_to_its_events(name: str) -> None:
    torch.manual_seed(0)
    classes = {"din": DIN, "hstu": HSTU, "transformer": Transformer}
    options = {"histories": ["h"], "beside": {"h": ["a", "k"]}}
    model = classes[name](BESIDE, DIM, **options, **SIZES).double()
    assert model.sequence_features(BESIDE, **options) == ("h", "a", "k")
    inverse = heavy_tailed_inverse(40, torch.Generator().manual_seed(0))
    embedded, dense, leaves = random_batch(BESIDE, {"user": inverse}, 40, DIM, ("h", "a", "k"))
    lists = embedded.sequences
    even = {n: GroupedJagged(torch.randn_like(lists["h"].values), lists["h"].lengths, inverse) for n in ("a", "k")}
    same = Embedded(embedded.pooled, {"h": lists["h"], **even})
    assert_on_equals_off(model, BESIDE, same, dense, [leaves[0]])
    summed = lists["h"].with_values(sum(x.values for x in (lists["h"], *even.values())))
    zero = {n: x.with_values(torch.zeros_like(x.values)) for n, x in even.items()}
    torch.testing.assert_close(model(same, dense), model(Embedded(embedded.pooled, {"h": summed, **zero}), dense))
    with pytest.raises(DataError, match=r"model\.beside\.h: a row has \d+ ids of 'h' and \d+ of 'a'"):
        model(embedded, dense)


TIMED = schema_of(user="h:ids:item s:ids:time", sample="c:id:item t:id:time e:dense")


@pytest.mark.parametrize("times", [["s"], ["s", "t"]])
def test_hstu_sees_times(times: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The bias is that of the highest bit of the difference; on the host, on devices and expanded."""
    torch.manual_seed(0)
    model = HSTU(TIMED, DIM, times={"h": times}, **SIZES).double()
    assert model.sequence_features(TIMED, times={"h": times}) == ("h",)
    assert model.ids == tuple(times)
    looked_up = TIMED.without(times)
    inverse = heavy_tailed_inverse(50, torch.Generator().manual_seed(0))
    embedded, dense, leaves = random_batch(looked_up, {"user": inverse}, 50, DIM, ("h",))
    lists = embedded.sequences["h"]
    ids = {
        "s": lists.with_values(torch.randint(1000, (len(lists.values),)).sort().values),
        "t": GroupedJagged(torch.randint(1000, 3000, (50,)), torch.ones(50, dtype=torch.int32)),
    }
    given = Embedded(embedded.pooled, embedded.sequences, {n: ids[n] for n in times})
    on = model(given, dense)
    weights = [*leaves, *model.parameters()]
    grads = torch.autograd.grad(on.sum(), weights)
    off = model(given.expand(), expand_batch(looked_up, embedded, dense)[1])
    torch.testing.assert_close(on, off, rtol=1e-12, atol=1e-12)
    for one, other in zip(grads, torch.autograd.grad(off.sum(), weights), strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    monkeypatch.setattr(hstu_layer, "fits_loops", lambda _: False)
    monkeypatch.setattr(bands, "is_on_host", lambda _: False)
    torch.testing.assert_close(model(given, dense), on, rtol=1e-12, atol=1e-12)


def test_buckets_are_highest_bits() -> None:
    given = torch.tensor([-5, 0, 1, 2, 3, 4, 7, 8, 2**31])
    assert bucket_of(given).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 31]


FUSED = schema_of(user="h:ids:item s:ids:time", page="g:ids:item q:ids:time", sample="c:id:item e:dense")


@pytest.mark.parametrize("name", ["hstu", "hstu, by time", "transformer"])
def test_histories_of_two_groups_are_fused(name: str) -> None:
    """On equals off, and equals a history that was fused by hand."""
    torch.manual_seed(0)
    by_time = {"h": ["s"], "g": ["q"]} if name == "hstu, by time" else None
    schema = FUSED.without(["s", "q"])
    options = {**SIZES, "max_length": 9}
    model = (
        Transformer(schema, DIM, history_layers=1, fuse=True, **options)
        if name == "transformer"
        else HSTU(FUSED if by_time else schema, DIM, times=by_time, fuse=True, **options)
    ).double()
    generator = torch.Generator().manual_seed(1)
    inverses = {g: heavy_tailed_inverse(60, generator, mean) for g, mean in (("user", 8.0), ("page", 3.0))}
    embedded, dense, leaves = random_batch(schema, inverses, 60, DIM, ("h", "g"))
    lists = embedded.sequences
    ids = {}
    if by_time:
        ids = {t: lists[h].with_values(torch.randint(99, (len(lists[h].values),))) for h, (t,) in by_time.items()}
    given = Embedded(embedded.pooled, lists, ids)
    weights = [*leaves, *model.parameters()]
    on, off = model(given, dense), model(given.expand(), expand_batch(schema, embedded, dense)[1])
    torch.testing.assert_close(on, off, rtol=1e-12, atol=1e-12)
    for one, other in zip(*(torch.autograd.grad(x.sum(), weights) for x in (on, off)), strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    fused, times = model.fused(Inputs.of(given.expand(), dense))
    first, second = ([x.values.split(x.lengths.tolist()) for x in y] for y in (_expanded(lists), _expanded(ids)))
    at = 0
    for sample, length in enumerate(fused.lengths.tolist()):
        parts = [values[sample] + model.fused.source[n] for n, values in enumerate(first)]
        rows = torch.cat(parts)
        if by_time:
            when = torch.cat([values[sample] for values in second])
            rows = rows[when.argsort(stable=True)]
            assert torch.equal(times.events.values[at : at + length], when.sort().values[-length:] if length else when)
        torch.testing.assert_close(fused.values[at : at + length], rows[len(rows) - length :])
        at += length


def _expanded(lists: dict[str, GroupedJagged]) -> list[GroupedJagged]:
    return [x.expand() for x in lists.values()]
