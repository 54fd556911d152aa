"""Checkpoints are bit-exact across world sizes and shardings, whole or absent, and never run foreign code."""

import json
import os
import pickle
import socket
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from recd_dist.checkpoint import checkpoint
from recd_dist.checkpoint.safe_storage import read_metadata
from recd_dist.checkpoint.state import require_same_schema
from recd_dist.errors import DataError
from recd_dist.table.schema import Feature, Kind, Schema

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

SCHEMA = Schema((Feature("item", Kind.id, table="item"), Feature("price", Kind.dense)))


def run_ranks(mode: str, sharding: str, world_size: int, directory: Path) -> list[int]:
    """Runs checkpoint_ranks.py on gloo ranks; returns their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world_size)}
    command = [sys.executable, str(Path(__file__).with_name("checkpoint_ranks.py")), mode, sharding, str(directory)]
    started = [
        subprocess.Popen(command, env=env | {"RANK": str(r), "LOCAL_RANK": str(r), "LOCAL_WORLD_SIZE": str(world_size)})
        for r in range(world_size)
    ]
    return [process.wait(timeout=120) for process in started]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks with a table-wise model save three checkpoints and keep the newest two."""
    directory = tmp_path_factory.mktemp("run") / "checkpoints"
    assert run_ranks("save", "tw", 2, directory) == [0, 0]
    return directory


def answer_of(directory: Path, name: str) -> dict:
    return json.loads((directory.parent / name).read_text())


@pytest.mark.parametrize(("sharding", "world_size"), [("rw", 2), ("tw", 1)])
def test_loads_bit_exact_elsewhere(saved: Path, sharding: str, world_size: int) -> None:
    assert run_ranks("load", sharding, world_size, saved) == [0] * world_size
    before = torch.load(saved.parent / "save-tw-2.pt", weights_only=True)
    after = torch.load(saved.parent / f"load-{sharding}-{world_size}.pt", weights_only=True)
    assert before.keys() == after.keys()
    assert {
        "optimizer/dense.top.weight/exp_avg",
        "optimizer/tables.embedding_bags.a.weight/a.momentum1",
    } < before.keys()
    for name, tensor in before.items():
        assert tensor.abs().sum() > 0, name
        assert torch.equal(tensor, after[name]), name
    answer = answer_of(saved, f"load-{sharding}-{world_size}-rank0.json")
    assert answer["extra"] == {"epoch": 0}
    for rank in range(world_size):  # random states are restored only where as many ranks load as saved
        draws = [
            answer_of(saved, f"{run}-rank{rank}.json")["draws"]
            for run in ("save-tw-2", f"load-{sharding}-{world_size}")
        ]
        assert (draws[0] == draws[1]) == (world_size == 2)


def test_keeps_the_newest(saved: Path) -> None:
    assert sorted(p.name for p in saved.iterdir()) == ["latest", "step-00000002", "step-00000003"]
    assert checkpoint.find_newest(saved) == saved / "step-00000003"
    assert checkpoint.read_description(saved / "step-00000003").world_size == 2


def test_earlier_releases_can_read_the_description(saved: Path) -> None:
    description = json.loads((saved / "step-00000003/checkpoint.json").read_text())
    keys = ["format", "version", "step", "world_size", "schema", "extra", "rank_extra"]
    assert list(description)[: len(keys)] == keys
    assert description["rank_extra"] == [None, None]


def test_full_disk_and_kill_keep_the_older_checkpoint(tmp_path: Path) -> None:
    """Step 1 is saved; the disk is full for rank 1 at step 2; rank 0 is killed while it saves step 3."""
    directory = tmp_path / "checkpoints"
    codes = run_ranks("killed", "tw", 2, directory)
    assert codes[0] == -9
    assert codes[1] != 0
    for rank in (0, 1):
        answer = answer_of(directory, f"killed-rank{rank}.json")
        assert "checkpoint of step 2 could not be written" in answer["error"]
        assert "free or choose another disk" in answer["error"]
        assert answer["left"] == ["latest", "step-00000001"]
    assert sorted(p.name for p in directory.iterdir()) == [".step-00000003.partial", "latest", "step-00000001"]
    assert checkpoint.find_newest(directory) == directory / "step-00000001"
    checkpoint.remove_unfinished(directory)
    assert sorted(p.name for p in directory.iterdir()) == ["latest", "step-00000001"]


# The tests below run in one process, without a process group.


def model_and_optimizer(rows: int = 8, optimizer: type = torch.optim.Adam) -> tuple[nn.Module, object]:
    from torchrec.optim.keyed import KeyedOptimizerWrapper

    torch.manual_seed(rows)
    model = nn.ModuleDict({"item": nn.Embedding(rows, 4), "top": nn.Linear(4, 1)})
    keyed = KeyedOptimizerWrapper(dict(model.named_parameters()), lambda p: optimizer(p, lr=0.1))
    model["top"](model["item"](torch.arange(3))).sum().backward()
    return model, keyed


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A checkpoint of one process."""
    model, optimizer = model_and_optimizer()
    optimizer.step()
    return checkpoint.save(tmp_path / "checkpoints", 5, model, optimizer, SCHEMA)


def test_find_newest_ignores_what_is_not_whole(one: Path) -> None:
    (one.parent / "step-00000009").mkdir()
    (one.parent / "notes").mkdir()
    assert checkpoint.find_newest(one.parent) == one
    assert checkpoint.find_newest(one.parent / "nowhere") is None


def test_saving_a_step_again_replaces_it(one: Path) -> None:
    model, optimizer = model_and_optimizer()
    optimizer.step()
    checkpoint.save(one.parent, 5, model, optimizer, SCHEMA, {"again": True})
    assert checkpoint.read_description(one).extra == {"again": True}
    assert sorted(p.name for p in one.parent.iterdir()) == ["latest", "step-00000005"]


@pytest.mark.parametrize("of", ["directories", "all"])
def test_a_file_system_that_cannot_flush_takes_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    def refuse(descriptor: int) -> None:
        if of == "all" or stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    model, optimizer = model_and_optimizer()
    optimizer.step()
    path = checkpoint.save(tmp_path / "checkpoints", 5, model, optimizer, SCHEMA)
    assert checkpoint.find_newest(tmp_path / "checkpoints") == path
    checkpoint.load(path, *model_and_optimizer())


def test_every_file_of_a_checkpoint_is_on_the_disk_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[str] = set()
    fsync = os.fsync

    def note(descriptor: int) -> None:
        flushed.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    model, optimizer = model_and_optimizer()
    optimizer.step()
    path = checkpoint.save(tmp_path / "checkpoints", 5, model, optimizer, SCHEMA)
    written = {name.strip(".").partition(".json")[0] for name in os.listdir(path)}
    assert {"checkpoint", "metadata", "__0_0.distcp", "rng-00000.pt"} <= written
    assert all(any(name in seen for seen in flushed) for name in written), flushed
    assert {".step-00000005.partial", "checkpoints"} <= flushed


def test_weights_alone_for_evaluation(one: Path) -> None:
    trained, optimizer = model_and_optimizer()
    optimizer.step()
    fresh, _ = model_and_optimizer()
    checkpoint.load(one, fresh)
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), fresh.parameters(), strict=True))


def test_rename_loads_a_table_that_sits_elsewhere(one: Path) -> None:
    trained, optimizer = model_and_optimizer()
    optimizer.step()
    other = nn.ModuleDict({"deep": nn.ModuleDict({"item": nn.Embedding(8, 4)}), "top": nn.Linear(4, 1)})
    checkpoint.load(one, other, rename=lambda name: name.removeprefix("deep."))
    assert torch.equal(other["deep"]["item"].weight, trained["item"].weight)


def test_other_table_size(one: Path) -> None:
    with pytest.raises(DataError, match=r"another model: model/item.weight was \[8, 4\], is \[9, 4\]; use the model"):
        checkpoint.load(one, *model_and_optimizer(rows=9))


def test_other_optimizer(one: Path) -> None:
    with pytest.raises(DataError, match=r"another optimizer: .*exp_avg is only in the checkpoint.* use the optimizer"):
        checkpoint.load(one, *model_and_optimizer(optimizer=torch.optim.Adagrad))


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (Schema((Feature("item", Kind.id, table="item"),)), "feature 'price' is only in the checkpoint"),
        (Schema((*SCHEMA.features, Feature("age", Kind.dense))), "feature 'age' is only in this run"),
        (Schema((Feature("item", Kind.ids, table="item"), SCHEMA["price"])), "feature 'item': kind was id, is ids"),
        (Schema(SCHEMA.features[::-1]), "the features stand in another order"),
        (Schema(SCHEMA.features, ("bought",)), "labels were label, are bought"),
    ],
)
def test_other_schema(one: Path, now: Schema, message: str) -> None:
    with pytest.raises(DataError, match=f"another schema: {message}; use the data"):
        checkpoint.load(one, *model_and_optimizer(), schema=now)


def test_another_label_of_the_same_table(tmp_path: Path) -> None:
    old, new = (Schema(SCHEMA.features, labels) for labels in (("bought", "clicked"), ("clicked", "bought")))
    with pytest.raises(DataError, match=r"data\.label was bought, is clicked; use the data"):
        require_same_schema(tmp_path, old, new, "train without run_from")


def test_how_lists_were_stored_does_not_matter(one: Path) -> None:
    windows = Schema(tuple(replace(f, window=True) for f in SCHEMA.features))
    checkpoint.load(one, *model_and_optimizer(), schema=windows)


class Malicious:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("ran",)


def test_metadata_that_would_run_code_is_refused(one: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (one / ".metadata").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(DataError, match=r"\.metadata: refused: it names posix\.mkdir"):
        checkpoint.load(one, *model_and_optimizer())
    assert not (tmp_path / "ran").exists()


def test_metadata_that_points_outside_is_refused(one: Path) -> None:
    metadata = read_metadata(one)
    next(iter(metadata.storage_data.values())).relative_path = "../../elsewhere.distcp"
    (one / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(DataError, match=r"points to \.\./\.\./elsewhere\.distcp, outside"):
        checkpoint.load(one, *model_and_optimizer())


@pytest.mark.parametrize("damage", [b"", b"\x80\x04garbage", pickle.dumps({"a": 1})])
def test_damaged_metadata(one: Path, damage: bytes) -> None:
    (one / ".metadata").write_bytes(damage)
    with pytest.raises(DataError, match=r"\.metadata: refused"):
        checkpoint.load(one, *model_and_optimizer())


def test_truncated_tensors(one: Path) -> None:
    file = one / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=r"cannot be read .* use an older checkpoint"):
        checkpoint.load(one, *model_and_optimizer())


def test_pickled_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.checkpoint.state_dict_saver import save

    from recd_dist.checkpoint.safe_storage import SafeReader, TensorsOnlyPlanner

    monkeypatch.chdir(tmp_path)
    save({"model/x": Malicious()}, checkpoint_id=tmp_path / "c")
    with pytest.raises(BaseException, match=r"refused|pickled bytes"):
        load({"model/x": "anything"}, storage_reader=SafeReader(tmp_path / "c"), planner=TensorsOnlyPlanner())
    assert not (tmp_path / "ran").exists()


def test_a_description_that_cannot_be_read_is_named(one: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no whole checkpoint here"):
        checkpoint.read_description(tmp_path / "step-00000001")
    (one / "checkpoint.json").write_text("{}")
    with pytest.raises(DataError, match="not a checkpoint's description"):
        checkpoint.read_description(one)
    (one / "checkpoint.json").write_text('{"format": "recd_dist.checkpoint", "version": 99}')
    with pytest.raises(DataError, match="version 99, this release reads"):
        checkpoint.read_description(one)


def test_other_dtype(one: Path) -> None:
    """torch.distributed.checkpoint would cast float32 to bfloat16 without a word."""
    model, _ = model_and_optimizer()
    with pytest.raises(DataError, match=r"item.weight was \[8, 4\] float32, is \[8, 4\] bfloat16"):
        checkpoint.load(one, model.to(torch.bfloat16))


def test_a_new_run_takes_tables_that_have_grown(one: Path) -> None:
    """Only the weights of sharded tables may: a plain module has none."""
    with pytest.raises(DataError, match=r"item.weight was \[8, 4\], is \[9, 4\]; .* or train without run_from"):
        checkpoint.load(one, model_and_optimizer(rows=9)[0], new_run=True)
