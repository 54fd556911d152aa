"""A directory is replaced in one step, whatever the file system can do, and nothing of the old one stays."""

from pathlib import Path

import pytest

from recd_dist.files import whole_directory as module
from recd_dist.files.whole_directory import put_in_place


def write_table(path: Path, text: str) -> Path:
    (path / "train").mkdir(parents=True)
    (path / "train" / "manifest.json").write_text(text)
    return path


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


@pytest.mark.parametrize("can_exchange", [True, False])
def test_replacing(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(module, "_exchange", lambda *_: False)
    out = write_table(tmp_path / "out", "old")
    (out / "train" / "extra").touch()
    put_in_place(write_table(tmp_path / "work" / "table", "new"), out)
    assert (out / "train" / "manifest.json").read_text() == "new"
    assert names(out / "train") == {"manifest.json"}
    assert names(tmp_path / "work") == set()


def test_a_link_to_a_directory_stays_a_link(tmp_path):
    real = write_table(tmp_path / "disk" / "real", "old")
    (tmp_path / "out").symlink_to(real)
    put_in_place(write_table(tmp_path / "work" / "table", "new"), tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (real / "train" / "manifest.json").read_text() == "new"
