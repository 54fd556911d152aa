"""Counted bytes equal the formula in each direction, for unique rows and, with dedup off, for expanded ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.embedding.distribute import shard
from recd_dist.embedding.initial_weights import initialize_tables
from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.vocabulary.names import Codecs
from recd_dist.embedding.vocabulary.placement import read_placement
from recd_dist.metrics.traffic import TrafficCounter
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.step_bytes import step_bytes
from recd_dist.plan.step_rows import StepRows, TableUse, table_uses
from recd_dist.plan.world import World
from recd_dist.ranks.process_group import Ranks
from recd_dist.table.schema import Feature, Kind, Schema, Table
from recd_dist.tensors.deduplicate import deduplicate
from recd_dist.tensors.ikjt import IKJT

SCHEMA = Schema(
    (
        Feature("history", Kind.ids, "user", "item"),
        Feature("clicks", Kind.ids, "user", "article"),
        Feature("candidate", Kind.id, "sample", "item"),
        Feature("target", Kind.id, "sample", "article"),
    )
)
TABLES = {"item": Table("item", 4000, 16), "article": Table("article", 4000, 8)}


def schema_of(weighted: list[str]) -> Schema:
    """The schema, in which the named features have weights."""
    return Schema(
        tuple(replace(f, weights=f"{f.name}_weights" if f.name in weighted else None) for f in SCHEMA.features)
    )


def batch(rank: int, ids: torch.dtype, weighted: bool) -> IKJT:
    """400 samples of at least 40 users, lists of 20 ids, ids spread evenly over the tables."""
    random = np.random.default_rng(rank)
    users = np.sort(random.integers(0, 40 + 10 * rank, 400))
    lists = {f: {u: random.integers(0, 4000, 20).tolist() for u in set(users.tolist())} for f in ("history", "clicks")}
    rows = [lists[f][u] for f in ("history", "clicks") for u in users.tolist()]
    rows += [[int(i)] for i in random.integers(0, 4000, 800)]
    values = torch.tensor([i for row in rows for i in row], dtype=ids)
    kjt = KeyedJaggedTensor(
        ["history", "clicks", "candidate", "target"],
        values,
        weights=values / 4000 if weighted else None,
        lengths=torch.tensor([len(row) for row in rows], dtype=torch.int32),
    )
    return deduplicate(kjt, {"user": ["history", "clicks"]})


def count_bytes(
    ranks: Ranks,
    sharding: object,
    sequences: list[str],
    dedup: bool,
    ids: torch.dtype,
    send: str | None = None,
    codecs: Codecs | None = None,
    weighted: list[str] | None = None,
    exchange: str = "direct",
) -> dict[str, object]:
    weighted = weighted or []
    options = {"sequence_features": sequences, "dedup": dedup, "send": {"article": send} if send else None}
    options |= {"codecs": codecs, "exchange": exchange}
    embeddings = Embeddings(schema_of(weighted), TABLES, device="meta", **options)
    plan = place_tables(embeddings, World(ranks.world_size, ranks.local_world_size), sharding)
    uses = table_uses(embeddings, ranks.local_world_size)
    model = shard(Outer(embeddings), plan, ranks)
    initialize_tables(model, 0)
    sparse = batch(ranks.rank, ids, bool(weighted))
    with TrafficCounter() as counter:
        out = model(sparse if dedup else sparse.expand())
        values = [g.values for g in out.pooled.values()] + [s.values for s in out.sequences.values()]
        sum((v * v).sum() for v in values).backward()
        num_collectives = counter.num_collectives
        sent = counter.take()
    step = StepRows.of_batch(sparse, uses, exact=True)
    first = ranks.rank - ranks.local_rank
    mates = [batch(q, ids, bool(weighted)) for q in range(first, first + ranks.local_world_size)]
    of_mates = [StepRows.of_batch(m, uses, exact=True) for m in mates]
    host_rows = {f: sum(mate.rows[f] for mate in of_mates) for f in step.rows}
    step = replace(step, host_rows=host_rows, host_ids=ids_of_host(of_mates, uses))
    want = step_bytes(uses, read_placement(plan), step, ranks.world_size, dedup=dedup, rank=ranks.rank)
    formula = {"input": want.input, "output": want.output, "backward": want.backward}
    return {"sent": sent, "formula": formula, "num_collectives": num_collectives}


def ids_of_host(steps: list[StepRows], uses: list[TableUse]) -> dict[str, torch.Tensor]:
    """For each table what a host asks for: the ids of all its rows, or each id once where vectors travel."""
    joined = {u.table: torch.cat([step.ids[u.table] for step in steps]) for u in uses}
    alone = {u.table for u in uses if u.send == "ids" or u.is_sequence}
    return {t: torch.unique(v) if t in alone else v for t, v in joined.items()}


class Outer(torch.nn.Module):
    def __init__(self, embeddings: Embeddings) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, sparse: IKJT) -> object:
        return self.embeddings(sparse)


def check(results: list[dict[str, object]], tolerance: float) -> None:
    for direction in ("input", "output", "backward"):
        sent = sum(r["sent"][direction] for r in results)
        formula = sum(r["formula"][direction] for r in results)
        assert formula > 10_000
        assert sent == pytest.approx(formula, rel=tolerance), direction


@pytest.mark.parametrize("ids", [torch.int32, torch.int64])
@pytest.mark.parametrize("sequences", [[], ["clicks"]])
@pytest.mark.parametrize("sharding", ["TW", "RW", "CW", "TWCW"])
def test_unique_rows_send_what_the_formula_says(
    two_ranks, sharding: str, sequences: list[str], ids: torch.dtype
) -> None:
    """Bytes are equal but for the padding of a chunk, in four collectives, whatever is sent."""
    sharding = {"default": sharding, "article": "CW"} if sharding == "TWCW" else sharding
    results = two_ranks(count_bytes, sharding, sequences, True, ids)
    check(results, 1e-3)
    assert all(r["num_collectives"] == 4 for r in results)
    assert all(r["sent"]["splits"] <= 100 for r in results)


@pytest.mark.parametrize("sharding", ["TW", "RW", "TWRW", "GRID"])
def test_hosts_of_several_ranks(four_ranks, sharding: str) -> None:
    check(four_ranks(count_bytes, sharding, [], True, torch.int32), 1e-3)


@pytest.mark.parametrize("send", [None, "ids"])
@pytest.mark.parametrize("sequences", [[], ["clicks"]])
@pytest.mark.parametrize("sharding", ["TW", "RW", "CW", {"default": "GRID", "article": "RW"}])
def test_what_travels_inside_the_host_first(four_ranks, sharding: object, sequences: list[str], send: str) -> None:
    results = four_ranks(count_bytes, sharding, sequences, True, torch.int32, send, None, None, "by_host")
    check(results, 1e-3)


def test_codecs_are_for_the_way_between_hosts(four_ranks) -> None:
    codecs = Codecs("fp16", "bf16")
    check(four_ranks(count_bytes, "RW", ["clicks"], True, torch.int32, "ids", codecs, ["history"], "by_host"), 1e-3)


@pytest.mark.parametrize("sequences", [[], ["clicks"]])
@pytest.mark.parametrize("sharding", ["TW", "RW", "CW"])
def test_expanded_rows_send_what_the_formula_says(two_ranks, sharding: str, sequences: list[str]) -> None:
    """TorchRec's own exchange. The formula spreads ids evenly over a table; the batch draws them at random."""
    check(two_ranks(count_bytes, sharding, sequences, False, torch.int32), 0.02)


@pytest.mark.parametrize("sharding", ["TW", "RW"])
def test_each_distinct_id_is_sent_once(two_ranks, sharding: str) -> None:
    once = two_ranks(count_bytes, sharding, ["clicks"], True, torch.int32, "ids")
    often = two_ranks(count_bytes, sharding, ["clicks"], True, torch.int32, "rows")
    check(once, 1e-3)
    check(often, 1e-3)
    for direction in ("input", "output", "backward"):
        assert sum(r["sent"][direction] for r in once) < sum(r["sent"][direction] for r in often)


@pytest.mark.parametrize(("forward", "backward"), [("fp16", "fp32"), ("bf16", "fp16"), ("int8", "bf16")])
@pytest.mark.parametrize("sharding", ["TW", "RW", "CW"])
def test_codecs_send_what_they_say(two_ranks, sharding: str, forward: str, backward: str) -> None:
    codecs = Codecs(forward, backward)
    results = two_ranks(count_bytes, sharding, ["clicks"], True, torch.int32, None, codecs)
    check(results, 1e-3)
    plain = two_ranks(count_bytes, sharding, ["clicks"], True, torch.int32)
    assert sum(r["sent"]["output"] for r in results) < 0.7 * sum(r["sent"]["output"] for r in plain)


WEIGHTS = [["history"], ["clicks"], ["history", "clicks"]]


@pytest.mark.parametrize("weighted", WEIGHTS, ids="-".join)
@pytest.mark.parametrize("sequences", [[], ["clicks"]])
@pytest.mark.parametrize("sharding", ["TW", "RW", "CW"])
def test_weights_are_in_the_formula(two_ranks, sharding: str, sequences: list[str], weighted: list[str]) -> None:
    """Weights travel with the ids of weighted tables in the same four collectives, but not to un-pooled tables."""
    results = two_ranks(count_bytes, sharding, sequences, True, torch.int32, None, None, weighted)
    check(results, 1e-3)
    assert all(r["num_collectives"] == 4 for r in results)
    check(two_ranks(count_bytes, sharding, sequences, False, torch.int32, None, None, weighted), 0.02)
    plain = two_ranks(count_bytes, sharding, sequences, True, torch.int32)
    more = sum(r["sent"]["input"] for r in results) - sum(r["sent"]["input"] for r in plain)
    assert more > 1000 if set(weighted) - set(sequences) else more == 0


@pytest.mark.parametrize("sharding", ["TW", "RW", "TWRW", "GRID"])
def test_weights_on_hosts_of_several_ranks(four_ranks, sharding: str) -> None:
    check(four_ranks(count_bytes, sharding, [], True, torch.int32, None, None, ["history"]), 1e-3)


@pytest.mark.parametrize("sharding", ["TW", "RW"])
def test_weights_do_not_travel_where_ids_do(two_ranks, sharding: str) -> None:
    results = two_ranks(count_bytes, sharding, [], True, torch.int32, "ids", None, ["clicks"])
    check(results, 1e-3)
    plain = two_ranks(count_bytes, sharding, [], True, torch.int32, "ids")
    assert [r["sent"] for r in results] == [r["sent"] for r in plain]
