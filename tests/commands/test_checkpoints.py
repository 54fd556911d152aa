"""``recd checkpoint``: what it prints, writes as JSON and ends with."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from recd_dist.checkpoint import checkpoint
from recd_dist.cli import main
from recd_dist.errors import DataError
from recd_dist.table.schema import Feature, Kind, Schema

pytestmark = [
    pytest.mark.usefixtures("own_logging"),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:No device found"),
]

SCHEMA = Schema((Feature("item", Kind.id, table="item"), Feature("price", Kind.dense)), ("click",))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 1 and 2 and a best one, whose weights are known."""
    from torchrec.optim.keyed import KeyedOptimizerWrapper

    model = nn.ModuleDict({"item": nn.Embedding(8, 4), "top": nn.Linear(4, 1)})
    optimizer = KeyedOptimizerWrapper(dict(model.named_parameters()), lambda p: torch.optim.Adagrad(p, lr=0.5))
    extra = {"config": "batch_size: 64", "quality": {"ne": 0.91, "auc": 0.7}}
    for step in (1, 2):
        nn.init.constant_(model["item"].weight, float(step))
        checkpoint.save(tmp_path / "run/checkpoints", step, model, optimizer, SCHEMA, {"config": "batch_size: 64"})
    checkpoint.save(tmp_path / "run/best", 1, model, optimizer, SCHEMA, extra)
    return tmp_path / "run"


def test_list(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoints/step-00000001/rng-00000.pt").unlink()
    assert main(["checkpoint", "list", str(run), "--json", str(run / "list.json")]) == 0
    shown = capsys.readouterr().out
    assert "ne 0.9100, auc 0.7000" in shown
    lines = {
        Path(line["path"]).relative_to(run).as_posix(): line for line in json.loads((run / "list.json").read_text())
    }
    assert {name: (line["step"], line["state"], line["latest"]) for name, line in lines.items()} == {
        "checkpoints/step-00000001": (1, "rng-00000.pt is missing", False),
        "checkpoints/step-00000002": (2, "whole", True),
        "best/step-00000001": (1, "whole", True),
    }
    newest = lines["checkpoints/step-00000002"]
    files = [path for path in (run / "checkpoints/step-00000002").iterdir() if path.name != "checkpoint.json"]
    assert newest["bytes"] == sum(path.stat().st_size for path in files)
    assert (newest["world_size"], newest["quality"]) == (1, None)
    assert newest["time"].endswith("+00:00")


def test_show(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "show", str(run), "--config", "--json", str(run / "show.json")]) == 0
    shown = capsys.readouterr().out
    assert f"{run / 'checkpoints/step-00000002'}: step 2, 1 ranks" in shown
    assert f"torch {torch.__version__}" in shown
    assert "batch_size: 64" in shown
    tensors = json.loads((run / "show.json").read_text())["tensors"]
    assert {"name": "model/item.weight", "shape": [8, 4], "dtype": "float32", "parts": 1} in tensors


def test_verify(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "verify", str(run)]) == 0
    assert capsys.readouterr().out.count(": sound\n") == 3
    file = run / "checkpoints/step-00000001/__0_0.distcp"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert main(["checkpoint", "verify", str(run), "--json", str(run / "verify.json")]) == 1
    assert "step-00000001: DAMAGED: __0_0.distcp is damaged: its checksum" in capsys.readouterr().out
    assert [bool(line["damage"]) for line in json.loads((run / "verify.json").read_text())] == [True, False, False]
    assert main(["checkpoint", "verify", str(run / "checkpoints/step-00000002")]) == 0


def test_diff(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "diff", str(run), str(run / "best")]) == 0  # the best one was saved from the last state
    assert "0 of " in capsys.readouterr().out
    first = run / "checkpoints/step-00000001"
    assert main(["checkpoint", "diff", str(first), str(run), "--json", str(run / "diff.json")]) == 1
    shown = capsys.readouterr().out
    assert "32 of 32 numbers differ" in shown
    tensors = {t["tensor"]: t for t in json.loads((run / "diff.json").read_text())["tensors"]}
    assert tensors["model/item.weight"]["max_abs"] == 1.0
    assert tensors["model/top.weight"] == {"tensor": "model/top.weight", "difference": None, "max_abs": 0.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst", "runs"], "recd checkpoint lst: unknown; did you mean 'list'?"),
        (["diff", "a"], "recd checkpoint diff: takes CHECKPOINT CHECKPOINT"),
        (["show", "nowhere"], "nowhere: no checkpoint there; name the directory of a run"),
        (["list", "nowhere"], "nowhere: no checkpoint there"),
        (["verify", "nowhere"], "nowhere: no checkpoint there"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"recd: error: {message}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("words", [["diff", "{run}", "{run}/best"], ["convert", "{run}", "{run}/w.safetensors"]])
def test_a_damaged_one_is_not_passed_on(run: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    file = next((run / "checkpoints/step-00000002").glob("*.distcp"))
    data = bytearray(file.read_bytes())
    place = data.index(torch.full((8, 4), 2.0).numpy().tobytes())  # inside the weights: the size stays
    data[place] ^= 1
    file.write_bytes(data)
    assert main(["checkpoint", *(word.format(run=run) for word in words)]) == 2
    said = capsys.readouterr().err
    assert f"{file.name}" in said
    assert "checksum" in said
    assert not list(run.glob("*.safetensors"))


def test_convert(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    out = run / "model.safetensors"
    assert main(["checkpoint", "convert", str(run), str(out), "--optimizer"]) == 0
    held = safetensors.load_file(out)
    assert held["item.weight"].tolist() == [[2.0] * 4] * 8
    assert held["optimizer/item.weight/sum"].shape == (8, 4)
    assert not list(run.glob(".*"))
    (run / "plain").touch()
    assert out.stat().st_mode == (run / "plain").stat().st_mode
    assert main(["checkpoint", "convert", str(run), str(out), "--part", "1MB"]) == 0
    assert set(safetensors.load_file(out)) == {"item.weight", "top.weight", "top.bias"}
    assert main(["checkpoint", "convert", str(run), str(run / "nowhere/x.safetensors")]) == 2
    assert main(["checkpoint", "convert", str(run), str(out), "--part", "4XB"]) == 2
    assert "name a file that ends with .safetensors" in capsys.readouterr().err


def test_parts_of_an_export(run: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    from recd_dist.checkpoint.export import export

    files = export(run / "checkpoints/step-00000002", run / "model.safetensors", 130)
    assert [file.name for file in files] == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
    ]  # fmt: skip
    index = json.loads(files[-1].read_text())
    assert index["metadata"]["total_size"] == 4 * (8 * 4 + 4 + 1)
    assert {name for file in files[:-1] for name in safetensors.load_file(file)} == set(index["weight_map"])


def test_an_export_that_cannot_be_written_whole(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    from recd_dist.checkpoint.export import export

    write, written = safetensors.save_file, []

    def save_first(held: object, at: Path, metadata: object) -> None:
        if written:
            raise OSError("No space left on device")
        written.append(at)
        write(held, at, metadata)

    monkeypatch.setattr(safetensors, "save_file", save_first)
    with pytest.raises(DataError, match=r"model-00002-of-00002.safetensors: cannot be written \(No space left"):
        export(run / "checkpoints/step-00000002", run / "model.safetensors", 130)
    assert [path.name for path in run.iterdir() if path.is_file()] == []


def test_an_export_to_a_directory_that_is_read_only(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("safetensors.torch")
    from recd_dist.checkpoint.export import export

    def refuse(self: Path, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(DataError, match=r"model.safetensors: cannot be written \(.*Read-only file system\)"):
        export(run / "checkpoints/step-00000002", run / "model.safetensors", 1000)
