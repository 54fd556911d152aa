"""A checkpoint of dedup=on loads into dedup=off under another sharding, and back, bit for bit."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from recd_dist.checkpoint import checkpoint
from recd_dist.checkpoint.state import flatten
from recd_dist.embedding.distribute import dense_parameters
from recd_dist.embedding.tables import portable_name
from recd_dist.errors import DataError
from recd_dist.ranks.process_group import Ranks

OPTIONS = {"sequence_features": ["clicks"]}


def _import_judge() -> ModuleType:
    """The model of judge.py, whose tables serve several groups."""
    spec = importlib.util.spec_from_file_location("judge", Path(__file__).with_name("judge.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _shards(model: Any, optimizer: Any) -> list[tuple[str, list[int], np.ndarray]]:
    """This rank's pieces of the state: name in the checkpoint, offsets, values."""
    pieces = []
    for name, value in flatten(model.state_dict(), optimizer.state_dict(), portable_name).items():
        if hasattr(value, "local_shards"):
            pieces += [(name, list(s.metadata.shard_offsets), s.tensor.numpy().copy()) for s in value.local_shards()]
        else:
            pieces.append((name, [0] * value.dim(), value.numpy().copy()))
    return pieces


def _train_and_save(ranks: Ranks, directory: Path, weighted: bool, dedup: bool, sharding: Any) -> list:
    judge = _import_judge()
    model, optimizer = judge.build_model(ranks, dedup, sharding, "rowwise_adagrad", OPTIONS, weighted)
    for batch in judge.batches(ranks.rank, 3, 9 + 5 * ranks.rank, weighted=weighted):
        optimizer.zero_grad()
        model(batch if dedup else batch.expand())[0].backward()
        optimizer.step()
    checkpoint.save(directory, 3, model, optimizer, judge.schema_of(weighted), rename=portable_name)
    return _shards(model, optimizer)


def _load(ranks: Ranks, path: Path, weighted: bool, dedup: bool, sharding: Any) -> Any:
    judge = _import_judge()
    model, optimizer = judge.build_model(ranks, dedup, sharding, "rowwise_adagrad", OPTIONS, weighted)
    try:
        checkpoint.load(path, model, optimizer, judge.schema_of(weighted), rename=portable_name)
    except DataError as error:
        return str(error)
    return _shards(model, optimizer)


def _parameter_names(ranks: Ranks, dedup: bool) -> tuple[list[str], list[str]]:
    """Names of the dense parameters, and names in checkpoints of the parameters of the combined optimizer."""
    plan = {"default": "RW", "city": "DP", "flag": "TW"}
    model, optimizer = _import_judge().build_model(ranks, dedup, plan, "rowwise_adagrad", OPTIONS)
    return sorted(dense_parameters(model)), [portable_name(name) for name in optimizer.params]


def whole(ranks: list[list]) -> dict[str, np.ndarray]:
    sizes: dict[str, list[int]] = {}
    for name, offsets, tensor in (piece for rank in ranks for piece in rank):
        end = [o + n for o, n in zip(offsets, tensor.shape, strict=True)]
        sizes[name] = [max(a, b) for a, b in zip(sizes.get(name, end), end, strict=True)]
    tables = {name: np.full(size, np.nan, np.float32) for name, size in sizes.items()}
    for name, offsets, tensor in (piece for rank in ranks for piece in rank):
        tables[name][tuple(slice(o, o + n) for o, n in zip(offsets, tensor.shape, strict=True))] = tensor
    return tables


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [((True, "TW"), (False, "RW")), ((False, {"city": "DP", "item": "RW"}), (True, {"city": "DP"}))],
)
def test_loads_across_dedup_and_sharding(
    two_ranks, tmp_path: Path, before: tuple, after: tuple, weighted: bool
) -> None:
    saved = whole(two_ranks(_train_and_save, tmp_path, weighted, *before))
    loaded = whole(two_ranks(_load, tmp_path / "step-00000003", weighted, *after))
    assert saved.keys() == loaded.keys()
    assert "optimizer/tables.embeddings.tables.item.weight/item.momentum1" in saved
    for name, tensor in saved.items():
        np.testing.assert_array_equal(tensor, loaded[name], err_msg=name)


def test_loads_from_hosts(four_ranks, tmp_path: Path) -> None:
    """Rows split inside a host, then over all ranks."""
    saved = whole(four_ranks(_train_and_save, tmp_path, False, True, {"default": "TW", "item": "TWRW", "tag": "TWRW"}))
    again = {"default": "TW", "item": "RW", "tag": "TW"}
    loaded = whole(four_ranks(_load, tmp_path / "step-00000003", False, True, again))
    for name, tensor in saved.items():
        np.testing.assert_array_equal(tensor, loaded[name], err_msg=name)


@pytest.mark.parametrize(("before", "after"), [({"city": "DP"}, "TW"), ("RW", {"city": "DP", "item": "DP"})])
def test_a_table_stops_being_replicated_or_begins(two_ranks, tmp_path: Path, before: Any, after: Any) -> None:
    saved = whole(two_ranks(_train_and_save, tmp_path, False, True, before))
    loaded = whole(two_ranks(_load, tmp_path / "step-00000003", False, True, after))
    assert saved.keys() == loaded.keys()
    for name, tensor in saved.items():
        np.testing.assert_array_equal(tensor, loaded[name], err_msg=name)


def test_weights_that_were_trained_are_not_left_out(two_ranks, tmp_path: Path) -> None:
    two_ranks(_train_and_save, tmp_path, True, True, "TW")
    for error in two_ranks(_load, tmp_path / "step-00000003", False, True, "TW"):
        assert "a checkpoint of another schema: feature 'history': weights was history_weights, is None;" in error


@pytest.mark.parametrize("dedup", [True, False])
def test_every_parameter_has_one_optimizer(two_ranks, dedup: bool) -> None:
    results = two_ranks(_parameter_names, dedup)
    head = ["head.layer.bias", "head.layer.weight"]
    assert [dense for dense, _ in results] == [head, head]
    fused = {f"tables.embeddings.tables.{t}.weight" for t in ("item", "article", "device", "tag", "place")}
    flag = "tables.embeddings.tables.flag.weight"  # on one of the ranks
    on_all = {*fused, "replicated_tables.embeddings.tables.city.weight", *(f"dense.{name}" for name in head)}
    assert sorted((sorted(names) for _, names in results), key=len) == [sorted(on_all), sorted({*on_all, flag})]
