"""A checkpoint of four ranks loads on 1, 2, 3 and 6, every table under every sharding type, with optimizer states.

Seven tables, each under another sharding type, are filled with numbers that say where they belong. After the load every
table lies under the next type, and every number must be where it belongs, bit for bit. Only row-wise states of tables
that are split by columns in another way are converted; these must be what docs/checkpoints.md says.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchrec.optim.keyed import KeyedOptimizerWrapper

from recd_dist.checkpoint import checkpoint, state
from recd_dist.checkpoint.safe_storage import read_metadata
from recd_dist.checkpoint.saver import Saver
from recd_dist.checkpoint.staging import parts_of
from recd_dist.checkpoint.state import flatten, initialize_state
from recd_dist.embedding.distribute import TableOptimizer, combine_optimizers, dense_parameters, shard
from recd_dist.embedding.tables import Embeddings, portable_name
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.world import World
from recd_dist.ranks.process_group import Ranks
from recd_dist.table.schema import Feature, Kind, Schema, Table

TYPES = ("TW", "RW", "CW", "TWCW", "TWRW", "GRID", "DP")
OPTIMIZERS = ("sgd", "adagrad", "rowwise_adagrad")
ROWS, DIM = 50, 24
NAMES = [f"t{n}" for n in range(len(TYPES))]
SCHEMA = Schema(tuple(Feature(f"f{n}", Kind.ids, "sample", name) for n, name in enumerate(NAMES)))

Part = tuple[str, tuple[int, ...], np.ndarray]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        tables = {name: Table(name, ROWS + 3 * n, DIM) for n, name in enumerate(NAMES)}
        self.embeddings = Embeddings(SCHEMA, tables, device="meta")
        self.head = nn.Linear(DIM, 1)


def build(ranks: Ranks, optimizer: str, turn: int) -> tuple[Any, Any]:
    """The model with table n under type n + turn, and the optimizer with all its states."""
    four = {"type": "CW", "ranks": [3, 0, 1, 2]} if ranks.world_size > 3 else "CW"  # 8, 8, 4 and 4 columns
    types = [TYPES[(n + turn) % len(TYPES)] for n in range(len(NAMES))]
    wanted = {name: four if kind == "CW" else kind for name, kind in zip(NAMES, types, strict=True)}
    model = Model()
    plan = place_tables(model.embeddings, World(ranks.world_size, ranks.local_world_size), wanted)
    tables = TableOptimizer(optimizer, lr=0.1)
    sharded = shard(model, plan, ranks, tables)
    dense = KeyedOptimizerWrapper(dense_parameters(sharded), lambda params: torch.optim.Adam(params, lr=0.1))
    combined = combine_optimizers(sharded, dense, tables)
    initialize_state(combined)
    return sharded, combined


def tensors_of(model: Any, optimizer: Any) -> dict[str, Any]:
    return flatten(model.state_dict(), optimizer.state_dict(), portable_name)


def parts(model: Any, optimizer: Any) -> list[Part]:
    return [
        (name, tuple(offsets), part.detach().numpy().copy())
        for name, value in tensors_of(model, optimizer).items()
        for offsets, part in parts_of(value)
    ]


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A number for each place of a tensor, which no other place has; below 2**24, so that float32 holds it."""
    return (sum(map(ord, name)) % 97 * 10_000 + np.arange(np.prod(shape, dtype=int))).reshape(shape).astype(np.float32)


def save(ranks: Ranks, directory: Path, optimizer: str, in_background: bool) -> list[Part]:
    model, states = build(ranks, optimizer, 0)
    with torch.no_grad():
        for name, value in tensors_of(model, states).items():
            whole = torch.from_numpy(numbers(name, tuple(value.size())))
            for offsets, part in parts_of(value):
                part.copy_(whole[tuple(slice(o, o + n) for o, n in zip(offsets, part.shape, strict=True))])
    if in_background:
        with Saver() as saver:
            saver.save(directory, 7, model, states, SCHEMA, rename=portable_name)
    else:
        checkpoint.save(directory, 7, model, states, SCHEMA, rename=portable_name)
    return parts(model, states)


def save_as_before(ranks: Ranks, directory: Path, optimizer: str) -> list[Part]:
    """Saves as earlier releases did: states of the data-parallel table under torch's names."""
    names = state.shared_name, state.shared_shape
    state.shared_name, state.shared_shape = (lambda name: name), (lambda value: value)
    try:
        save(ranks, directory, optimizer, False)
        metadata = read_metadata(directory / "step-00000007")
        assert "optimizer/replicated_tables.embeddings.tables.t6.weight/sum" in metadata.state_dict_metadata
        model, states = build(ranks, optimizer, 0)
    finally:
        state.shared_name, state.shared_shape = names
    checkpoint.load(directory / "step-00000007", model, states, SCHEMA, rename=portable_name)
    return parts(model, states)


def load(ranks: Ranks, path: Path, optimizer: str, turns: list[int]) -> list[list[Part]]:
    found = []
    for turn in turns:
        model, states = build(ranks, optimizer, turn)
        checkpoint.load(path, model, states, SCHEMA, rename=portable_name)
        found.append(parts(model, states))
    return found


# --- in the process of the tests ---


def join(ranks: list[list[Part]]) -> tuple[dict[str, np.ndarray], dict[str, list[tuple[int, int]]]]:
    """Whole tensors, and the columns of each table's shards as (first, number)."""
    sizes: dict[str, list[int]] = {}
    columns: dict[str, set[tuple[int, int]]] = {}
    for name, offsets, part in (p for rank in ranks for p in rank):
        end = [o + n for o, n in zip(offsets, part.shape, strict=True)]
        sizes[name] = [max(a, b) for a, b in zip(sizes.get(name, end), end, strict=True)]
        if ".tables." in name and part.ndim == 2:
            columns.setdefault(name.split(".tables.")[-1].split(".")[0], set()).add((offsets[1], part.shape[1]))
    whole = {name: np.full(size, np.nan, np.float32) for name, size in sizes.items()}
    for name, offsets, part in (p for rank in ranks for p in rank):
        whole[name][tuple(slice(o, o + n) for o, n in zip(offsets, part.shape, strict=True))] = part
    return whole, {table: sorted(blocks) for table, blocks in columns.items()}


def converted(state: np.ndarray, was: list[tuple[int, int]], now: list[tuple[int, int]]) -> np.ndarray:
    """A number a row and column shard, for other column shards: the mean by columns."""
    by_block = state.reshape(len(was), -1).astype(np.float64)
    shared = [[max(0, min(f + w, g + v) - max(f, g)) / w for g, v in was] for f, w in now]
    return (np.array(shared) @ by_block).ravel()


def compare(saved: list[list[Part]], loaded: list[list[Part]]) -> int:
    """Compares all tensors; returns how many were converted."""
    (before, was), (after, now) = join(saved), join(loaded)
    assert before.keys() == after.keys()
    num_converted = 0
    for name, tensor in after.items():
        table = name.split(".tables.")[-1].split(".")[0]
        if name.startswith("optimizer/") and table in was and tensor.ndim == 1 and was[table] != now[table]:
            np.testing.assert_allclose(tensor, converted(before[name], was[table], now[table]), rtol=1e-6)
            num_converted += 1
        else:
            np.testing.assert_array_equal(tensor, before[name], err_msg=name)
    return num_converted


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_four_ranks_then_two(four_ranks, two_ranks, tmp_path: Path, optimizer: str) -> None:
    saved = four_ranks(save, tmp_path, optimizer, True)
    names = join(saved)[0]
    assert sum(name.endswith(".momentum1") for name in names) == (0 if optimizer == "sgd" else len(TYPES))
    turns = [1, 4]  # under 1 the data-parallel table becomes table-wise, and the grid one data-parallel
    found = [list(rank) for rank in zip(*two_ranks(load, tmp_path / "step-00000007", optimizer, turns), strict=True)]
    num_converted = [compare(saved, each) for each in found]
    assert (sum(num_converted) > 0) == (optimizer == "rowwise_adagrad")


@pytest.mark.parametrize("optimizer", ["adagrad", "rowwise_adagrad"])
def test_an_earlier_release_gave_data_parallel_tables_names_of_their_own(
    two_ranks, tmp_path: Path, optimizer: str
) -> None:
    saved = two_ranks(save_as_before, tmp_path, optimizer)
    name = "optimizer/tables.embeddings.tables.t6.weight/t6.momentum1"
    given = numbers("optimizer/replicated_tables.embeddings.tables.t6.weight/sum", join(saved)[0][name].shape)
    np.testing.assert_array_equal(join(saved)[0][name], given)
    for each in zip(*two_ranks(load, tmp_path / "step-00000007", optimizer, [1, 2, 3]), strict=True):
        compare(saved, list(each))


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "local_world_size"), [(1, 1), (2, 2), (3, 3), (6, 2)])
def test_four_ranks_then_any_number(four_ranks, tmp_path: Path, world_size: int, local_world_size: int) -> None:
    pool = type(four_ranks)(world_size, local_world_size)
    try:
        for optimizer in OPTIMIZERS:
            saved = four_ranks(save, tmp_path / optimizer, optimizer, False)
            turns = list(range(len(TYPES)))
            loaded = pool(load, tmp_path / optimizer / "step-00000007", optimizer, turns)
            for each in zip(*loaded, strict=True):
                compare(saved, list(each))
    finally:
        pool.stop()
