"""Jobs over two hosts: what is counted at the collectives is what the kernel counts at the interfaces; losses equal."""

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torchrec.optim.keyed import KeyedOptimizerWrapper

from recd_dist.embedding.distribute import TableOptimizer, combine_optimizers, dense_parameters, shard
from recd_dist.embedding.initial_weights import initialize_tables
from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.vocabulary.placement import read_placement
from recd_dist.metrics.traffic import TrafficCounter
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.step_bytes import StepBytes, holder_bytes
from recd_dist.plan.step_rows import StepRows, table_uses
from recd_dist.plan.world import World
from recd_dist.ranks.process_group import Ranks
from recd_dist.table.schema import SAMPLE, Feature, Kind, Schema, Table
from recd_dist.tensors.ikjt import IKJT, GroupLayout

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

HEADERS = 0.03
"""What headers, acknowledgements and sizes may add to the bytes at an interface; 0.003 to 0.010 were seen."""

KEYS = ("clicks", "views", "likes")
SCHEMA = Schema((*(Feature(k, Kind.ids, "user", k) for k in KEYS), Feature("candidate", Kind.ids, SAMPLE, "clicks")))
TABLES = {k: Table(k, 4000, 64) for k in KEYS}
SAMPLES, REPEATS, IDS = 1024, 8, 20

ONE_RANK_A_HOST = ["TW", "RW", "CW"]
TWO_RANKS_A_HOST = ["TW", "RW", "CW", "TWCW", "TWRW", "GRID"]
OF_TORCHREC = ("TW", "RW", "CW")
"""What is offered with dedup=off."""
SUMMED_IN_A_HOST = ("TWRW", "GRID")
"""Their partial sums are added up before they leave a host: one row crosses instead of one for each of its ranks."""


class Model(nn.Module):
    def __init__(self, embeddings: Embeddings) -> None:
        super().__init__()
        self.embeddings = embeddings
        torch.manual_seed(5)
        self.layer = nn.Linear(4 * 64, 1)

    def forward(self, sparse: IKJT) -> torch.Tensor:
        pooled = self.embeddings(sparse).pooled
        logits = self.layer(torch.cat([group.expand() for group in pooled.values()], 1)).squeeze(1)
        return nn.functional.binary_cross_entropy_with_logits(logits, torch.arange(len(logits)).remainder(2).float())


class Tables(nn.Module):
    """Nothing but tables: what is sent are their ids, vectors and gradients."""

    def __init__(self, embeddings: Embeddings) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, sparse: IKJT) -> torch.Tensor:
        return sum((group.values**2).sum() for group in self.embeddings(sparse).pooled.values())


def batch(rank: int, step: int) -> IKJT:
    """Lists of one length; the user's are shared by REPEATS samples."""
    generator = torch.Generator().manual_seed(100 * rank + step)
    num_rows = SAMPLES // REPEATS
    lists = len(KEYS) * num_rows + SAMPLES
    ids = torch.randint(4000, (lists * IDS,), generator=generator, dtype=torch.int32)
    return IKJT(
        (GroupLayout("user", KEYS, num_rows), GroupLayout(SAMPLE, ("candidate",), SAMPLES)),
        SAMPLES,
        ids,
        torch.full((lists,), IDS, dtype=torch.int32),
        torch.arange(SAMPLES, dtype=torch.int32) // REPEATS,
        (*(n * num_rows * IDS for n in range(len(KEYS) + 1)), len(ids)),
    )


def interface_bytes() -> int:
    """Bytes that this host has sent, by its interface, once all of them have arrived.

    A rank leaves a barrier when it has heard from its peers, which says nothing of its own bytes: they may still be
    in a socket. A peer's second barrier follows this rank's first, and that one all bytes sent before.
    """
    dist.barrier()
    dist.barrier()
    from lab import SNMP, TX_BYTES, sent_once

    return sent_once(Path(TX_BYTES).read_text(), Path(SNMP).read_text())


def host_of(rank: int, ranks: Ranks) -> int:
    return rank // ranks.local_world_size


def all_to_all(ranks: Ranks, num_floats: int) -> list[int]:
    """Bytes at the interface of an exchange in which every rank sends num_floats to every rank, and of none."""
    given = torch.zeros(ranks.world_size * num_floats)
    found = []
    for sends in (True, False):
        before = interface_bytes()
        if sends:
            dist.all_to_all_single(torch.empty_like(given), given)
        dist.barrier()  # an exchange returns when the kernel has its bytes, which may still wait for the link
        found.append(interface_bytes() - before)
    return found


def exchanged(ranks: Ranks, sharding: str, send: str, num_steps: int) -> dict[str, Any]:
    """Bytes of some training steps: at this host's interface, at this rank's collectives, between hosts by formula.

    Args:
        ranks: this rank.
        sharding: of every table.
        send: "rows" or "ids" of every table; "samples" is dedup=off.
        num_steps: steps.
    """
    dedup = send != "samples"
    options = {"send": dict.fromkeys(TABLES, send)} if dedup else {"dedup": False}
    embeddings = Embeddings(SCHEMA, TABLES, device="meta", **options)
    chosen = place_tables(embeddings, World(ranks.world_size, ranks.local_world_size), sharding)
    uses, places = table_uses(embeddings), read_placement(chosen)
    model = shard(Tables(embeddings), chosen, ranks)
    initialize_tables(model, seed=1)
    given = [batch(ranks.rank, step) for step in range(num_steps)]
    due, elsewhere = StepBytes(), [host_of(q, ranks) != host_of(ranks.rank, ranks) for q in range(ranks.world_size)]
    for sparse in given:
        rows = StepRows.of_batch(sparse, uses, exact=True)
        for use in uses:
            part = holder_bytes(use, places[use.table], rows, ranks.world_size, dedup=dedup)
            due += StepBytes(*(float(b[elsewhere].sum()) for b in (part.input, part.output, part.backward)))
    if sharding in SUMMED_IN_A_HOST and send == "rows":
        due = replace(due, output=due.output / ranks.local_world_size, backward=due.backward / ranks.local_world_size)
    warm = batch(ranks.rank, 99)
    model(warm if dedup else warm.expand()).backward()  # the first step makes connections
    dist.barrier()
    before = interface_bytes()
    with TrafficCounter() as traffic:
        for sparse in given:
            model(sparse if dedup else sparse.expand()).backward()
        counted = sum(traffic.take().values())
    dist.barrier()
    return {"interface": interface_bytes() - before, "counted": counted, "due": due.total}


def every_exchange(ranks: Ranks, shardings: list[str], num_steps: int) -> dict[str, dict[str, Any]]:
    """By sharding and what is sent, in one job: starting one takes longer than its steps."""
    return {
        f"{sharding} {send}": exchanged(ranks, sharding, send, num_steps)
        for sharding in shardings
        for send in ("rows", "ids", "samples")
        if send != "samples" or sharding in OF_TORCHREC
    }


def steps_of_one_plan(ranks: Ranks, num_steps: int) -> int:
    """Bytes that this rank sends in so many steps, counted at its collectives."""
    return exchanged(ranks, "TW", "rows", num_steps)["counted"]


def losses(ranks: Ranks, sharding: Any, num_steps: int) -> list[float]:
    """Of all ranks together, step by step."""
    embeddings = Embeddings(SCHEMA, TABLES, device="meta")
    chosen = place_tables(embeddings, World(ranks.world_size, ranks.local_world_size), sharding)
    tables = TableOptimizer(lr=0.01)
    model = shard(Model(embeddings), chosen, ranks, tables)
    initialize_tables(model, seed=1)
    dense = KeyedOptimizerWrapper(dense_parameters(model), lambda parameters: torch.optim.SGD(parameters, lr=0.01))
    optimizer = combine_optimizers(model, dense, tables)
    found = []
    for step in range(num_steps):
        optimizer.zero_grad()
        loss = model(batch(ranks.rank, step % 3))
        loss.backward()
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        found.append(float(total) / ranks.world_size)
    return found


def test_an_exchange_of_known_size_is_what_the_interfaces_count(two_hosts: Any) -> None:
    for exchange, nothing in two_hosts.call(all_to_all, 1_250_000):
        assert nothing < 10_000
        assert 5_000_000 <= exchange <= 5_000_000 * (1 + HEADERS)


def test_a_shaped_link_sends_the_same_bytes(network: ModuleType, two_hosts: Any) -> None:
    assert "tbf" not in two_hosts.shapers()
    with network.Lab(num_hosts=2, mbit=100) as slow:
        assert slow.shapers() == ["tbf", "tbf"]
        for exchange, _ in slow.call(all_to_all, 1_250_000):
            assert 5_000_000 <= exchange <= 5_000_000 * (1 + HEADERS)


def test_steps_add_to_an_empty_job_what_was_counted(two_hosts: Any) -> None:
    """Seen from outside: the same job with steps and without."""
    found = []
    for num_steps in (0, 10):
        before = two_hosts.sent_bytes()
        counted = two_hosts.call(steps_of_one_plan, num_steps)
        found.append((counted, [b - a for a, b in zip(before, two_hosts.sent_bytes(), strict=True)]))
    (none, empty), (counted, whole) = found
    assert none == [0, 0]
    for sent, with_steps, without in zip(counted, whole, empty, strict=True):
        assert sent > 1_000_000
        assert with_steps - without == pytest.approx(sent, rel=HEADERS)


@pytest.mark.parametrize(("ranks_per_host", "shardings"), [(1, ONE_RANK_A_HOST), (2, TWO_RANKS_A_HOST)])
def test_every_plan_sends_what_the_formula_says(two_hosts: Any, ranks_per_host: int, shardings: list[str]) -> None:
    found = two_hosts.call(every_exchange, shardings, 4, ranks_per_host=ranks_per_host, timeout_s=240)
    for plan_ in found[0]:
        hosts = [found[n * ranks_per_host][plan_]["interface"] for n in range(2)]
        due = sum(rank[plan_]["due"] for rank in found)
        assert due > 1_000_000, plan_
        assert sum(hosts) == pytest.approx(due, rel=HEADERS), plan_
        if ranks_per_host == 1:
            for interface, rank in zip(hosts, found, strict=True):
                assert interface == pytest.approx(rank[plan_]["counted"], rel=HEADERS), plan_


def test_two_hosts_of_two_ranks_train_what_four_ranks_of_one_host_train(network: ModuleType, two_hosts: Any) -> None:
    sharding = {"default": "TW", "views": "RW", "likes": "CW"}
    apart = two_hosts.call(losses, sharding, 6, ranks_per_host=2)
    with network.Lab(num_hosts=1) as alone:
        together = alone.call(losses, sharding, 6, ranks_per_host=4)
        assert sum(alone.sent_bytes()) < 10_000
    assert apart == together
    assert apart[0][3] < apart[0][0]  # the same batch, learnt once


def component(overrides: list[str], num_hosts: int, num_ranks: int, run_dir: Path) -> tuple[list[list[str]], dict]:
    """What TorchX would run on each host: the bash script of launch/train.py, and the first host's name."""
    from launch.train import train
    from torchx.specs import macros

    found = []
    for host in range(num_hosts):
        role = train(*overrides, j=f"{num_hosts}x{num_ranks}", run=str(run_dir), name="job").roles[0]
        values = macros.Values(img_root="", app_id="job-1", replica_id=str(host), rank0_env="RANK0_HOST")
        role = values.apply(role)
        found.append([role.entrypoint, *role.args])
    return found, {"RANK0_HOST": "host0"}


def test_the_component_trains_over_two_hosts(two_hosts: Any, tiny: list[str], tmp_path: Path) -> None:
    overrides = [*tiny, "batch_size=64", "max_steps=12", "device=cpu"]
    summaries = []
    for hosts, ranks in ((2, 1), (1, 2)):
        run_dir = tmp_path / f"{hosts}x{ranks}"
        commands, env = component(overrides, hosts, ranks, run_dir)
        ended = two_hosts.run(commands, env, timeout_s=180)
        assert [each.code for each in ended] == [0] * hosts, ended
        summaries.append(json.loads((run_dir / "summary.json").read_text()))
    apart, together = summaries
    assert (apart["world_size"], apart["steps"]) == (together["world_size"], together["steps"]) == (2, 12)
    for name in ("loss", "auc", "samples", "sent_bytes"):
        assert apart[name] == pytest.approx(together[name], rel=1e-6), name
