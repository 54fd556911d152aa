"""The program of an export is that of its layers, for any number of users, candidates and events."""

import io
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.exported.test_exported_model import MODELS, sample_request

from recd_dist.errors import DataError
from recd_dist.exported.dense_program import load_program
from recd_dist.exported.description import read_description
from recd_dist.exported.exported_model import ExportedModel

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]


def shapes_of_requests(scorer: ExportedModel, directory: Path) -> dict[str, list[Any]]:
    given = sample_request(directory)["request"]

    def request(num_events: int, num_candidates: int) -> Any:
        lists = {"history_item": list(range(num_events)), "history_category": [n % 5 for n in range(num_events)]}
        candidates = {name: (values * 40)[:num_candidates] for name, values in given["candidates"].items()}
        return scorer.read({**given["user"], **lists}, candidates)

    return {
        "one of everything": [request(1, 1)],
        "no event": [request(0, 3)],
        "no event and one candidate": [request(0, 1)],
        "no event of some": [request(0, 2), request(5, 3), request(0, 1)],
        "equal users": [request(3, 2), request(3, 4)],
        "one user, many candidates": [request(20, 77)],
        "many users, one candidate": [request(n, 1) for n in range(9)],
        "many of all": [request(n % 23, 1 + n * 7 % 31) for n in range(25)],
    }


@pytest.mark.parametrize("model", MODELS)
def test_it_gives_what_the_layers_give(model: str, exported: Any) -> None:
    directory = exported(f"model={model}")
    layers, program = (ExportedModel.load(directory, engine) for engine in ("layers", "program"))
    for name, requests in shapes_of_requests(layers, directory).items():
        wanted = layers.score(requests)
        for dedup in (True, False):
            for one, other in zip(wanted, program.score(requests, dedup=dedup), strict=True):
                np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5, err_msg=f"{name}, dedup={dedup}")


@pytest.mark.parametrize("model", MODELS)
def test_torch_alone_runs_it(model: str, exported: Any) -> None:
    directory = exported(f"model={model}")
    given = load_file(directory / "sample_request.safetensors")
    scores, logits = given.pop("scores"), given.pop("logits")
    program = torch.export.load(directory / "dense.pt2").module()
    weights = load_file(directory / "dense.safetensors")
    found = program(given, weights)
    torch.testing.assert_close(found[0], scores)
    torch.testing.assert_close(found[1], logits)
    stored = list(sample_request(directory)["scores"].values())
    np.testing.assert_allclose(found[0].T.numpy(), np.array(stored, np.float32), rtol=1e-4, atol=1e-5)

    if model == "hstu":
        return  # whose program wants a user, as torch's batched products tell their layout by
    none = {name: tensor[: name == "steps"] for name, tensor in given.items()}
    assert program(none, weights)[0].shape == (0, 1)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("was_here"),))


def test_a_program_with_a_pickle_is_not_loaded(exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Path(shutil.copytree(exported("model=dlrm"), tmp_path / "export"))
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(directory / "dense.pt2") as old, zipfile.ZipFile(tmp_path / "new", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if "/sample_inputs/" in name:
                torch.save(Evil(), buffer := io.BytesIO())
                content = buffer.getvalue()
            new.writestr(name, content)
    shutil.move(tmp_path / "new", directory / "dense.pt2")
    description = read_description(exported("model=dlrm"))
    with pytest.raises(DataError, match=r"dense.pt2: cannot be loaded"):
        load_program(directory, description)
    assert not (tmp_path / "was_here").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
