"""Ids that come and go, over ranks: the same rows on any number of ranks, on and off, resumed and not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from recd_dist.checkpoint.stored_tensors import StoredTensors, compare
from recd_dist.embedding.ids.mapped_tables import MappedTables
from recd_dist.embedding.ids.reset_rows import RowReset
from recd_dist.embedding.ids.row_owners import RowOwners
from recd_dist.embedding.initial_weights import draw_rows, local_shards
from recd_dist.embedding.tables import portable_name, table_weights
from recd_dist.job.config import load
from recd_dist.job.preflight import check
from recd_dist.ranks.process_group import Ranks
from recd_dist.table.schema import SAMPLE, Feature, IdRules, Kind, Schema, Table
from recd_dist.tensors.ikjt import IKJT, GroupLayout
from recd_dist.train import build
from recd_dist.train.evaluation import evaluate_run
from recd_dist.train.training import shard_model, start_pipeline, train

SCHEMA = Schema(
    (Feature("a", Kind.ids, "g", "item"), Feature("b", Kind.id, SAMPLE, "item"), Feature("c", Kind.id, SAMPLE, "shop"))
)
TABLES = {"item": Table("item", 4100, 4, mapped=IdRules(3)), "shop": Table("shop", 2100, 4, mapped=IdRules(1, "lru"))}


def batches(num_steps: int = 12, num_samples: int = 240) -> list[list[tuple[list[int], int, int]]]:
    """For each step samples (a, b, c): ids of which some come back, others come once, from all of int64."""
    random = np.random.default_rng(5)
    low, high = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    steps = []
    for step in range(num_steps):
        first = step * 150  # what is popular moves on
        samples = []
        for _ in range(num_samples):
            row = (first + random.zipf(1.3, random.integers(0, 8)) % 2000 - 500).tolist()
            samples.append((row, int(random.integers(low, high)), int(4 * first + random.integers(0, 1500))))
        samples[0] = ([0, -1, low, high, 0, 0], low, -1)
        steps.append(samples)
    return steps


def to_ikjt(samples: list[tuple[list[int], int, int]], expand: bool) -> IKJT:
    """The samples as a batch, in which two neighbours share a row of group g."""
    rows = [samples[i - i % 2][0] for i in range(len(samples))]
    unique = rows[::2]
    values = [v for row in unique for v in row] + [b for _, b, _ in samples] + [c for _, _, c in samples]
    size, num_a = len(samples), sum(map(len, unique))
    batch = IKJT(
        groups=(GroupLayout("g", ("a",), len(unique)), GroupLayout(SAMPLE, ("b", "c"), size)),
        batch_size=size,
        values=torch.tensor(values, dtype=torch.int64),
        lengths=torch.tensor([*map(len, unique), *[1] * (2 * size)], dtype=torch.int32),
        inverse=torch.arange(size, dtype=torch.int32) // 2,
        value_offsets=(0, num_a, num_a + size, num_a + 2 * size),
    )
    return batch.expand() if expand else batch


def map_all(ranks: Ranks | None, expand: bool = False) -> tuple[list[Any], dict[str, Any], dict[str, int]]:
    """Maps the batches, each rank its share; rows of every step, what is kept, and counts."""
    rank, world_size = (ranks.rank, ranks.world_size) if ranks else (0, 1)
    owners = RowOwners(dist.new_group(backend="gloo") if world_size > 1 else None)
    tables = MappedTables(SCHEMA, TABLES, owners)
    tables.begin()
    rows, counts = [], {}
    for step, samples in enumerate(batches(), 1):
        share = len(samples) // world_size
        mapped = tables.give(to_ikjt(samples[rank * share : (rank + 1) * share], expand), step)
        sparse = mapped.sparse if expand else mapped.sparse.expand()
        rows.append({key: sparse.values_of(key).tolist() for key in "abc"})
        rows[-1]["reset"] = {name: sorted(reset.tolist()) for name, reset in mapped.reset.items()}
        for table, change in mapped.changes.items():
            tables.kept[table].apply(change)
            for name, value in vars(mapped.counts[table]).items():
                counts[f"{table}.{name}"] = counts.get(f"{table}.{name}", 0) + value
    kept = {f"{t}.{name}": values for t, k in tables.kept.items() for name, values in k.arrays().items()}
    return rows, kept, counts


@pytest.fixture(scope="module")
def alone() -> tuple[list[Any], dict[str, Any], dict[str, int]]:
    return map_all(None)


@pytest.mark.parametrize("num", ["two_ranks", "four_ranks"])
@pytest.mark.parametrize("expand", [False, True], ids=["on", "off"])
def test_rows_do_not_depend_on_ranks_or_deduplication(alone, request, num: str, expand: bool) -> None:
    parts = request.getfixturevalue(num)(map_all, expand)
    rows, kept, counts = alone
    for step, whole in enumerate(rows):
        for key in "abc":
            assert [v for part in parts for v in part[0][step][key]] == whole[key]
        assert all(part[0][step]["reset"] == whole["reset"] for part in parts)  # every rank hears of all of them
    for name, values in kept.items():
        np.testing.assert_array_equal(np.concatenate([part[1][name] for part in parts]), values, err_msg=name)
    assert {name: sum(part[2][name] for part in parts) for name in counts} == counts
    assert counts["shop.evicted"] > 200
    assert counts["item.unknown"] > 300
    assert 0 < counts["item.admitted"] < counts["shop.admitted"]


def test_on_and_off_are_alike_on_one_rank(alone) -> None:
    rows, kept, counts = map_all(None, expand=True)
    assert rows == alone[0]
    assert counts == alone[2]
    assert all(np.array_equal(values, alone[1][name]) for name, values in kept.items())


# --- training ---

MAPPED = ["data.tables.item={mapped: true, num_embeddings: 250, admit_after: 5}"]


def _train(ranks: Ranks, runs: list[list[str]]) -> list[dict[str, Any]]:
    return [train(load("train", run), ranks) for run in runs]


@pytest.mark.parametrize("plan", ["plan.sharding=column_wise", "plan.sharding=data_parallel"])
def test_on_and_off_train_the_same(two_ranks, tiny: list[str], tmp_path: Path, plan: str) -> None:
    common = [*tiny, *MAPPED, plan, "batch_size=64", "max_steps=12", "optim.dense.eps=1e-4", "optim.tables.eps=1e-4"]
    common += ["model=dlrm", "model.dim=32"]
    on, off = (
        two_ranks(_train, [[*common, f"dedup={dedup}", f"run_dir={tmp_path / dedup}"]])[0][0] for dedup in ("on", "off")
    )
    assert on["ids"] == off["ids"]
    assert on["ids"]["item"]["evicted"] > 100
    assert on["ne"] == pytest.approx(off["ne"], rel=1e-4)
    one, other = (StoredTensors(tmp_path / d / "checkpoints/step-00000012") for d in ("on", "off"))
    for name in one.kinds:
        if name.startswith("model/ids."):
            assert torch.equal(one.read(name), other.read(name)), name
        elif ".tables." in name and name.startswith("model/"):
            torch.testing.assert_close(one.read(name), other.read(name), atol=1e-4, rtol=0)
    assert sum(name.startswith("model/ids.item.") for name in one.kinds) == 5


@pytest.mark.parametrize(
    "options", [["plan=row_wise"], ["plan.sharding=data_parallel", "checkpoint.background=false", "evaluate.every=2"]]
)
def test_a_resumed_run_has_the_bits_of_one_that_was_not_stopped(
    two_ranks, tiny: list[str], tmp_path: Path, options: list[str]
) -> None:
    """Also in the mapping, although batches were mapped ahead when it was saved."""
    common = [*tiny, *MAPPED, *options, "batch_size=64", "model=dlrm"]
    whole, parts = [*common, f"run_dir={tmp_path / 'whole'}"], [*common, f"run_dir={tmp_path / 'parts'}"]
    two_ranks(_train, [[*whole, "max_steps=12"], *([*parts, f"max_steps={end}"] for end in (3, 7, 12))])
    one, other = (StoredTensors(tmp_path / run / "checkpoints/step-00000012") for run in ("whole", "parts"))
    assert not {name: what for name, what, _ in compare(one, other) if what}


def _evaluate(ranks: Ranks, run_dir: Path) -> dict[str, Any]:
    return evaluate_run(load("evaluate", [f"run_dir={run_dir}"]), ranks)


def test_other_numbers_of_ranks_load_it(two_ranks, four_ranks, tiny: list[str], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    common = [*tiny, "data.tables.item={mapped: true, num_embeddings: 4200, admit_after: 3}", f"run_dir={run_dir}"]
    common += ["batch_size=64", "plan=row_wise"]
    two = two_ranks(_train, [[*common, "max_steps=6"]])[0][0]
    four = four_ranks(_evaluate, run_dir)[0]
    assert four["ne"] == pytest.approx(two["ne"], rel=1e-5)
    assert four["ids"]["item"]["rows_used"] == two["ids"]["item"]["rows_used"] > 100
    share = two["ids"]["item"]["unknown_share_evaluated"]
    assert four["ids"]["item"]["unknown_share_evaluated"] == pytest.approx(share)
    four_ranks(_train, [[*common, "max_steps=9"]])
    assert two_ranks(_evaluate, run_dir)[0]["step"] == 9


# --- resets ---

PLACES = {
    "one": {"item": "RW", "category": "{type: CW, ranks: [0, 3]}", "region": "TW", "device": "DP", "position": "TW"},
    "two": {"item": "{type: GRID, hosts: [0, 1]}", "category": "{type: TWCW, ranks: [0, 1]}"},
}
PLACES["two"] |= {"region": "{type: TWRW, host: 1}", "device": "TW", "position": "DP"}


def _reset(ranks: Ranks, overrides: list[str]) -> dict[tuple[str, str], float]:
    """For weights and states of each table how far they were from their beginning, before some rows were reset."""
    job = check(load("train", overrides), ranks.world_size)
    model, optimizer, _ = shard_model(job, ranks)
    loader = build.build_loader(job, ranks, job.transforms.fit(job.table))
    pipeline, batches = start_pipeline(model, optimizer, ranks.device), iter(loader)
    for _ in range(4):
        pipeline.progress(batches)
    loader.close()
    sizes = {name: table.num_embeddings for name, table in job.tables.items()}
    before = {at: part.clone() for at, part in _parts(model, optimizer).items()}
    reset = RowReset(model.module, optimizer, 0, sizes)
    for table, size in sizes.items():
        reset.reset(table, np.arange(0, size, 2))
    found: dict[tuple[str, str], float] = {}
    for (table, what, row, column), now in _parts(model, optimizer).items():
        was, size = before[table, what, row, column], sizes[table]
        chosen = (torch.arange(len(now)) + row) % size % 2 == 0
        wanted = torch.zeros_like(now[chosen])
        if what == "weight":
            wanted = draw_rows(0, table, size, np.flatnonzero(chosen) + row, (column, column + now.shape[1]))
        assert torch.equal(now[chosen], wanted), (table, what)
        assert torch.equal(now[~chosen], was[~chosen]), (table, what)
        gap = float((was[chosen] - wanted).abs().max()) if len(wanted) else 0.0
        found[table, what] = max(gap, found.get((table, what), 0.0))
    return found


def _parts(model: Any, optimizer: Any) -> dict[tuple[str, str, int, int], torch.Tensor]:
    """The parts of tables and states of this rank, by table, what it is, first row and first column."""
    parts = {}
    for table, weight in table_weights(model.module).items():
        parts |= {(table, "weight", row, column): shard for shard, row, column in local_shards(weight)}
    for name, states in optimizer.state_dict()["state"].items():
        if portable_name(name) == name:
            continue
        table = portable_name(name).split(".")[-2]
        for state in states.values():
            if not hasattr(state, "local_shards"):
                parts |= {(table, "state", 0, 0): state.detach()} if state.dim() else {}
                continue
            for shard in state.local_shards():
                row, *column = shard.metadata.shard_offsets
                parts[table, "state", row, column[0] if column else 0] = shard.tensor.detach()
    return parts


@pytest.mark.parametrize(
    ("places", "optimizer"), [("one", "rowwise_adagrad"), ("two", "rowwise_adagrad"), ("two", "adagrad")]
)
def test_rows_are_reset_under_every_sharding(
    four_ranks, tiny: list[str], tmp_path: Path, places: str, optimizer: str
) -> None:
    overrides = [*tiny, "batch_size=32", "model=dlrm", f"optim.tables.name={optimizer}", f"run_dir={tmp_path / 'run'}"]
    overrides += [f"plan.tables.{table}={place}" for table, place in PLACES[places].items()]
    found = four_ranks(_reset, overrides)
    for table in PLACES[places]:
        for what, least in (("weight", 0.01), ("state", 1e-12)):
            assert max(part.get((table, what), 0) for part in found) > least, (table, what)
