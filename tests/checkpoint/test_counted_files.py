"""The files of a checkpoint while they are written."""

import io
from pathlib import Path

import pytest
import torch

from recd_dist.checkpoint.counted_files import CountedFiles


class FillingDisk(io.BytesIO):
    """A file on a disk that has no room for large pieces."""

    def write(self, data: object) -> int:
        if memoryview(data).nbytes > 1 << 16:  # type: ignore[arg-type]
            raise OSError(28, "No space left on device")
        return super().write(data)  # type: ignore[arg-type]


def test_a_full_disk_is_named_and_not_the_torch_error_that_follows_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's writer answers a failing stream with ``enforce fail at inline_container.cc``."""
    monkeypatch.setattr(Path, "open", lambda *_, **__: FillingDisk())
    with (
        pytest.raises(OSError, match="No space left on device"),
        CountedFiles().create_stream(tmp_path / "x", "wb") as stream,
    ):
        torch.save(torch.zeros(1 << 20), stream)


def test_an_error_that_is_not_the_streams_stays(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), CountedFiles().create_stream(tmp_path / "x", "wb"):
        raise RuntimeError("mine")
