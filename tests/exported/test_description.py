"""What an export says of itself, and damage that is found before anything is scored."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from recd_dist.errors import ConfigError, DataError
from recd_dist.exported.description import DESCRIPTION, FORMAT, read_description, verify
from recd_dist.exported.exported_model import ExportedModel

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture
def copy(exported: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported("model=dlrm"), tmp_path / "export"))


def change(directory: Path, **changes: Any) -> None:
    path = directory / DESCRIPTION
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_it_comes_back_as_it_was_written(copy: Path) -> None:
    description = read_description(copy)
    value = json.loads((copy / DESCRIPTION).read_text())
    assert json.loads(json.dumps(description.to_json())) == value
    assert set(description.files) == {path.name for path in copy.iterdir()} - {DESCRIPTION}
    assert description.metrics["auc"]["label"].keys() == {"run", "export"}
    assert verify(copy) == description


def test_a_newer_format_is_refused(copy: Path) -> None:
    change(copy, format=FORMAT + 1)
    with pytest.raises(ConfigError, match=f"format {FORMAT + 1} of exported models, this release reads {FORMAT}"):
        ExportedModel.load(copy)


@pytest.mark.parametrize("name", ["tables.safetensors", "dense.safetensors", "dense.pt2"])
def test_a_file_that_is_cut_missing_or_changed_is_named(name: str, copy: Path) -> None:
    whole = (copy / name).read_bytes()
    for content, message in (
        (whole[:-1], "the export is not whole"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "its checksum is another"),
    ):
        (copy / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: .*{message}"):
            ExportedModel.load(copy)
    (copy / name).unlink()
    with pytest.raises(DataError, match=f"{name}: missing"):
        ExportedModel.load(copy)


def test_a_description_that_is_no_json_is_damaged(copy: Path) -> None:
    (copy / DESCRIPTION).write_text("{")
    with pytest.raises(DataError, match="damaged"):
        ExportedModel.load(copy)


def test_a_directory_without_one_is_no_export(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no exported model"):
        ExportedModel.load(tmp_path)
