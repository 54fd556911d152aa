"""Damaged checkpoints are found, named and passed over; what is removed halfway is never taken for a whole one."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from recd_dist.checkpoint import catalog, checkpoint
from recd_dist.checkpoint.soundness import find_damage, find_sound, require_sound
from recd_dist.errors import DataError
from recd_dist.table.schema import Feature, Kind, Schema

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

SCHEMA = Schema((Feature("item", Kind.id, table="item"),))


def save(directory: Path, *steps: int) -> None:
    from torchrec.optim.keyed import KeyedOptimizerWrapper

    model = nn.ModuleDict({"item": nn.Embedding(8, 4)})
    optimizer = KeyedOptimizerWrapper(dict(model.named_parameters()), lambda p: torch.optim.Adam(p, lr=0.1))
    model["item"](torch.arange(3)).sum().backward()
    optimizer.step()
    for step in steps:
        checkpoint.save(directory, step, model, optimizer, SCHEMA, {"at": step}, keep=9)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save(tmp_path, 1, 2, 3)
    return tmp_path


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


DAMAGES = [
    (lambda c: flip(c / "__0_0.distcp", 1000), r"__0_0.distcp is damaged: its checksum is \w{8}, \w{8} was written"),
    (lambda c: cut(c / "__0_0.distcp"), r"__0_0.distcp has [\d,]+ bytes, [\d,]+ were written"),
    (lambda c: (c / "rng-00000.pt").unlink(), "rng-00000.pt is missing"),
    (lambda c: flip(c / ".metadata", -30), r"\.metadata"),
    (lambda c: flip(c / "checkpoint.json", 60), r"checkpoint\.json"),
    (lambda c: (c / "checkpoint.json").unlink(), "not whole any more, and .*latest names it"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES)
def test_a_damaged_one_is_passed_over(saved: Path, caplog: pytest.LogCaptureFixture, damage, said: str) -> None:
    assert find_sound(saved) == saved / "step-00000003"
    damage(saved / "step-00000003")
    assert find_sound(saved) == saved / "step-00000002"
    (message,) = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert message.startswith(str(saved / "step-00000003"))
    assert message.endswith(f"taking {saved / 'step-00000002'} instead")
    assert re.search(said, message), message


def test_a_changed_value_in_the_description_is_found(saved: Path) -> None:
    file = saved / "step-00000003/checkpoint.json"
    file.write_text(file.read_text().replace('"at": 3', '"at": 2'))
    assert find_damage(saved / "step-00000003") == (
        "checkpoint.json: damaged, its checksum is another one; use an older checkpoint"
    )


def test_two_damaged_ones(saved: Path) -> None:
    for step in (2, 3):
        flip(saved / f"step-{step:08d}/__0_0.distcp", 1000)
    assert find_sound(saved) == saved / "step-00000001"


def test_none_is_sound(saved: Path) -> None:
    for step in (1, 2, 3):
        flip(saved / f"step-{step:08d}/__0_0.distcp", 1000)
    with pytest.raises(DataError, match=r"step-00000003: __0_0.distcp is damaged: .*; no older checkpoint is sound"):
        find_sound(saved)
    with pytest.raises(DataError, match=r"step-00000002: __0_0.distcp is damaged: .*; use another checkpoint"):
        require_sound(saved / "step-00000002")


def test_all_gone_but_the_name_of_the_newest(saved: Path) -> None:
    for step in (1, 2, 3):
        shutil.rmtree(saved / f"step-{step:08d}")
    with pytest.raises(DataError, match=r"step-00000003: not whole any more, .* begin anew with resume=false"):
        find_sound(saved)
    assert find_sound(saved / "elsewhere") is None


def test_a_checkpoint_of_an_earlier_release_has_no_checksums(saved: Path) -> None:
    path = saved / "step-00000003"
    header = json.loads((path / "checkpoint.json").read_text())
    for key in ("files", "written", "crc32"):
        del header[key]
    (path / "checkpoint.json").write_text(json.dumps(header))
    assert find_damage(path) is None
    file = path / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:100])
    assert find_damage(path).startswith("__0_0.distcp has 100 bytes, ")


def test_what_is_removed_halfway_is_not_whole(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # killed before the first file is gone
    catalog.remove_checkpoint(saved / "step-00000001")
    assert [p.name for p in catalog.list_whole(saved)] == ["step-00000002", "step-00000003"]
    assert [p.name for p in catalog.list_unfinished(saved)] == [".step-00000001.removed.partial"]


def test_files_of_others_are_left_alone(saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    (saved / "step-00000004").write_text("a stray file with a checkpoint's name")
    (saved / "step-x").mkdir()
    save(saved, 4)
    assert catalog.find_newest(saved) == saved / "step-00000004"
    assert catalog.read_latest(saved) == "step-00000004"
    assert (saved / "notes.txt").read_text() == "mine"
    assert not list(saved.glob(".*"))
