"""Two towers: the same scores and gradients with deduplication on and off, items once, and what is refused."""

from dataclasses import replace

import pytest
import torch
from tests.model.batches import assert_on_equals_off, expand_batch, heavy_tailed_inverse, random_batch, schema_of
from torch.utils.flop_counter import FlopCounterMode

from recd_dist.errors import ConfigError
from recd_dist.model.models import build_named_model, id_features
from recd_dist.model.tower_choice import find_towers
from recd_dist.model.two_tower import TwoTower
from recd_dist.table.schema import Schema
from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged
from recd_dist.tensors.shared import Shared

DIM = 4
SCHEMA = schema_of(
    user="history:ids:item categories:ids:category age:dense",
    page="place:id hour:dense",
    sample="item:id category:id position:id price:dense score:dense",
)
SMALL = {"query_tower": (6,), "item_tower": (5,), "vector": 3}


def build(schema: Schema = SCHEMA, num_tasks: int = 1, **options: object) -> TwoTower:
    torch.manual_seed(0)
    model = build_named_model("two_tower", schema, DIM, num_tasks, **{**SMALL, **options}).double()
    for parameter in model.parameters():  # no ReLU is dead for all samples
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize": False, "temperature": 1.0},
        {"item": ["item", "price"]},
        {"query": ["history", "hour", "score"], "item_tower": []},
        {"item": ["place"], "query": ["history", "age", "position"]},
    ],
)
def test_on_equals_off(options: dict) -> None:
    chosen = find_towers(SCHEMA, options.get("query"), options.get("item"))
    used = SCHEMA.without([f.name for f in SCHEMA.features if f.name not in (*chosen.query, *chosen.item)])
    generator = torch.Generator().manual_seed(0)
    inverses = {g: heavy_tailed_inverse(60, generator) for g in used.dedup_groups}
    embedded, dense, leaves = random_batch(used, inverses, 60, DIM)
    assert_on_equals_off(build(used, num_tasks=2, **options), used, embedded, dense, leaves)


def a_batch_of_items() -> tuple[Schema, Embedded, dict[str, Grouped], torch.Tensor]:
    """Eight samples of three items, whose vectors are rows of one matrix."""
    schema = schema_of(user="history:ids:item", sample="item:id category:id")
    schema = Schema(tuple(replace(f, table="item") for f in schema.features))
    embedded, dense, _ = random_batch(schema, {"user": torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])}, 8, DIM)
    item = torch.tensor([5, 7, 5, 5, 9, 7, 5, 7])
    table = torch.randn(10, DIM, dtype=torch.float64, requires_grad=True)
    pooled = torch.cat([table[item], table[item % 2]], 1)
    lengths = torch.ones(8, dtype=torch.int32)
    ids = {n: GroupedJagged(of, lengths) for n, of in (("item", item), ("category", item % 2))}
    sample = Grouped(pooled, None, ("item", "category"), (DIM, DIM))
    return schema, Embedded({**embedded.pooled, "sample": sample}, {}, ids), dense, table


def test_an_item_is_computed_once_and_gradients_are_those_of_every_sample() -> None:
    schema, embedded, dense, table = a_batch_of_items()
    model = build(schema, item=["item", "category"])

    towers = model.towers(embedded, dense)
    off = model.towers(*expand_batch(schema, embedded, dense))

    assert isinstance(towers.item, Shared)
    assert len(towers.item.values) == 3
    assert isinstance(off.item, torch.Tensor)
    for one, other in zip(towers.plain(), off.plain(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad(t.scores(1).square().sum(), table, retain_graph=True)[0] for t in (towers, off)]
    assert grads[0].abs().max() > 0
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_towers_multiply_unique_rows_alone() -> None:
    schema, embedded, dense, _ = a_batch_of_items()
    model = build(schema, item=["item", "category"])
    with FlopCounterMode(display=False) as counter:
        model.towers(embedded, dense)
    assert counter.get_total_flops() == 2 * (2 * (DIM * 6 + 6 * 3) + 3 * (2 * DIM * 5 + 5 * 3))


def test_vectors_have_length_one_over_the_temperature() -> None:
    schema, embedded, dense, _ = a_batch_of_items()
    query, item = build(schema, item=["item"], temperature=0.5).towers(embedded, dense).plain()
    torch.testing.assert_close(query.norm(dim=1), torch.full((8,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(item.norm(dim=1), torch.ones(8, dtype=torch.float64))


def test_features_that_no_tower_takes_are_not_looked_up() -> None:
    assert find_towers(SCHEMA).item == ("item", "category")
    assert find_towers(SCHEMA).query == ("history", "categories", "age", "place", "hour")
    assert id_features("two_tower", SCHEMA) == ("position",)
    assert id_features("two_tower", SCHEMA, {"item": ["item"], "query": ["history"]}) == (
        "categories",
        "place",
        "category",
        "position",
    )


def test_a_group_that_a_job_expands_still_is_the_query() -> None:
    assert find_towers(SCHEMA.expand(["user", "page"])) == find_towers(SCHEMA)


ONE_ID = schema_of(user="age:dense", sample="item:id price:dense")


def test_the_only_id_of_the_samples_is_the_item() -> None:
    assert find_towers(ONE_ID).item == ("item",)


@pytest.mark.parametrize(
    ("schema", "options", "message"),
    [
        (SCHEMA, {"item": ["itm"]}, r"model.item: no feature 'itm'; did you mean 'item'\?"),
        (SCHEMA, {"item": ["history"]}, r"the first feature names the item, and 'history' is no single id"),
        (SCHEMA, {"item": []}, r"needs the features of an item.*model.item=\[place\]"),
        (SCHEMA, {"query": ["age", "item"], "item": ["item"]}, "model.query: 'item' is in model.item, too"),
        (SCHEMA, {"query": []}, "needs a query"),
        (SCHEMA, {"item": ["item", "item"]}, "a feature is named twice"),
        (schema_of(sample="item:id"), {}, "needs a query: a feature of a deduplicated group"),
        (schema_of(user="a:id", sample="b:id c:id"), {}, r"write model.item=\[...\].*the samples have b, c"),
        (schema_of(user="a:id", sample="b:ids"), {}, "the samples have no single id"),
        (SCHEMA, {"temperature": 0.0}, "model.temperature is 0.0"),
        (SCHEMA, {"vector": 0}, r"model.vector is \[0\]"),
        (SCHEMA, {"item_tower": [4, 0]}, r"model.item_tower is \[4, 0\]"),
    ],
)
def test_mistakes(schema: Schema, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_named_model("two_tower", schema, DIM, **options)
