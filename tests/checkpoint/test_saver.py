"""Checkpoints in the background: what was there when the save began is what is saved, one at a time, errors surface."""

import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from recd_dist.checkpoint import checkpoint, saver, writing
from recd_dist.checkpoint.saver import Saver
from recd_dist.errors import UserError
from recd_dist.table.schema import Feature, Kind, Schema

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

SCHEMA = Schema((Feature("item", Kind.id, table="item"),))


def model_and_optimizer() -> tuple[nn.Module, object]:
    from torchrec.optim.keyed import KeyedOptimizerWrapper

    torch.manual_seed(3)
    model = nn.ModuleDict({"item": nn.Embedding(8, 4)})
    return model, KeyedOptimizerWrapper(dict(model.named_parameters()), lambda p: torch.optim.Adam(p, lr=0.1))


def step(model: nn.Module, optimizer: object) -> None:
    model["item"](torch.arange(3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Saves wait until this is set, after the copy was made."""
    go, write = threading.Event(), writing.write

    def wait_and_write(*arguments: object) -> object:
        assert go.wait(30)
        return write(*arguments)

    monkeypatch.setattr(saver, "write", wait_and_write)
    monkeypatch.setattr(saver, "PATIENCE_S", 0.01)
    return go


def test_what_is_trained_meanwhile_is_not_saved(held: threading.Event, tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    step(model, optimizer)
    before = model["item"].weight.detach().clone()
    with Saver() as saves:
        saves.save(tmp_path / "c", 1, model, optimizer, SCHEMA, {"at": 1})
        step(model, optimizer)
        held.set()
    assert not torch.equal(model["item"].weight, before)
    loaded, states = model_and_optimizer()
    assert checkpoint.load(tmp_path / "c/step-00000001", loaded, states, SCHEMA).extra == {"at": 1}
    assert torch.equal(loaded["item"].weight, before)


def test_one_copy_at_a_time(held: threading.Event, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While step 1 is being written steps 2 and 3 are left out, with one word; step 4 must not be, and waits."""
    model, optimizer = model_and_optimizer()
    step(model, optimizer)
    with Saver() as saves:
        begun = [saves.save(tmp_path, 1, model, optimizer, SCHEMA, may_leave_out=True)]
        begun += [saves.save(tmp_path, s, model, optimizer, SCHEMA, may_leave_out=True) for s in (2, 3)]
        threading.Timer(0.2, held.set).start()
        begun.append(saves.save(tmp_path, 4, model, optimizer, SCHEMA))
        room = {name: value.data_ptr() for name, value in saves._stage._room.items()}
        saves.wait()
        begun.append(saves.save(tmp_path, 5, model, optimizer, SCHEMA))
        assert {name: value.data_ptr() for name, value in saves._stage._room.items()} == room
    assert begun == [True, False, False, True, True]
    assert (saves.counts.num_saved, saves.counts.num_left_out) == (3, 2)
    assert saves.counts.staged_bytes == 3 * 8 * 4 * 4 + 4  # weight, two states of Adam, its number of steps
    assert [r.message for r in caplog.records if "left out" in r.message] == [
        "the checkpoint of step 2 is left out: the one before is still being written; checkpoints are written as "
        "fast as they can be, so a larger checkpoint.every loses nothing"
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-00000004", "step-00000005"]
    assert (tmp_path / "latest").read_text() == "step-00000005\n"


def test_the_error_of_a_save_comes_with_the_next_call(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    step(model, optimizer)
    (tmp_path / "c").write_text("a file in the way")
    saves = Saver()
    saves.save(tmp_path / "c", 1, model, optimizer, SCHEMA)
    saves._thread.join()
    assert saves.has_failed
    with pytest.raises(UserError, match="the checkpoint of step 1 could not be written"):
        saves.save(tmp_path / "c", 2, model, optimizer, SCHEMA)
    assert not saves.has_failed


def test_leaving_waits_for_what_is_being_written(held: threading.Event, tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    step(model, optimizer)
    threading.Timer(0.2, held.set).start()
    with Saver() as saves:
        saves.save(tmp_path, 1, model, optimizer, SCHEMA)
    assert checkpoint.find_newest(tmp_path) == tmp_path / "step-00000001"
    assert saves.latest == tmp_path / "step-00000001"
    assert saves.counts.write_s > 0
