"""Checkpoints in a store that cannot rename: whole with checkpoint.json, read where they lie; damaged ones are told."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.table.object_store import Killed, Objects
from torch import nn

from recd_dist.checkpoint import catalog, checkpoint
from recd_dist.checkpoint.soundness import find_damage, find_sound
from recd_dist.checkpoint.stored_tensors import StoredTensors
from recd_dist.cli import main
from recd_dist.table.location import Location, location
from recd_dist.table.schema import Feature, Kind, Schema

pytestmark = [
    pytest.mark.usefixtures("own_logging"),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:No device found"),
]

SCHEMA = Schema((Feature("item", Kind.id, table="item"),))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Location]:
    Objects.reset()
    yield location(f"objects://{tmp_path}/bucket/mine")
    Objects.reset()


def trained() -> tuple[nn.Module, object]:
    from torchrec.optim.keyed import KeyedOptimizerWrapper

    torch.manual_seed(3)
    model = nn.ModuleDict({"item": nn.Embedding(8, 4)})
    optimizer = KeyedOptimizerWrapper(dict(model.named_parameters()), lambda p: torch.optim.Adam(p, lr=0.1))
    model["item"](torch.arange(3)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_saved_and_loaded(store: Location) -> None:
    model, optimizer = trained()
    for step in (1, 2, 3):
        checkpoint.save(store, step, model, optimizer, SCHEMA, {"at": step})
    assert [path.name for path in catalog.list_whole(store)] == ["step-00000002", "step-00000003"]
    assert catalog.read_latest(store) == "step-00000003"
    assert find_sound(store) == store / "step-00000003"
    assert find_damage(store / "step-00000003") is None
    fresh, states = trained()
    nn.init.zeros_(fresh["item"].weight)
    assert checkpoint.load(store / "step-00000003", fresh, states, SCHEMA).extra == {"at": 3}
    assert torch.equal(fresh["item"].weight, model["item"].weight)
    assert torch.equal(StoredTensors(store / "step-00000003").read("model/item.weight"), model["item"].weight)


def test_the_description_comes_last_and_goes_first(store: Location) -> None:
    model, optimizer = trained()
    for step in (1, 2, 3):
        checkpoint.save(store, step, model, optimizer, SCHEMA)
    names = [write.rpartition("mine/")[0].split()[0] + " " + write.rpartition("mine/")[2] for write in Objects.writes]
    first, removed = (
        [n for n in names if "step-00000001" in n and n.startswith("put")],
        [n for n in names if n.startswith("delete")],
    )
    assert first[-1] == "put step-00000001/checkpoint.json"
    assert len(first) == 4
    assert removed[0] == "delete step-00000001/checkpoint.json"
    assert names.index("put latest") == names.index(first[-1]) + 1


@pytest.mark.parametrize("num_writes", [1, 2, 3])
def test_a_save_that_is_killed_is_none(store: Location, num_writes: int) -> None:
    model, optimizer = trained()
    checkpoint.save(store, 1, model, optimizer, SCHEMA)
    Objects.die_at = len(Objects.writes) + num_writes
    with pytest.raises(Killed):
        checkpoint.save(store, 2, model, optimizer, SCHEMA)
    Objects.die_at = None
    assert find_sound(store) == store / "step-00000001"
    assert [path.name for path in catalog.list_unfinished(store)] == ["step-00000002"]
    checkpoint.remove_unfinished(store)
    assert catalog.list_unfinished(store) == []
    checkpoint.save(store, 2, model, optimizer, SCHEMA)
    assert find_sound(store) == store / "step-00000002"


def test_damaged_and_listed(store: Location, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, optimizer = trained()
    for step in (1, 2):
        checkpoint.save(store, step, model, optimizer, SCHEMA)
    file = tmp_path / "bucket/mine/step-00000002/__0_0.distcp"
    file.write_bytes(file.read_bytes()[:-1])
    assert find_sound(store) == store / "step-00000001"
    assert main(["checkpoint", "list", str(store), "--json", str(tmp_path / "list.json")]) == 0
    assert [line["state"].partition(" ")[0] for line in json.loads((tmp_path / "list.json").read_text())] == [
        "whole", "__0_0.distcp",
    ]  # fmt: skip
    assert main(["checkpoint", "verify", str(store)]) == 1
    assert "DAMAGED: __0_0.distcp has" in capsys.readouterr().out
    catalog.remove_all(store)
    assert [path for path in (tmp_path / "bucket").rglob("*") if path.is_file()] == []
