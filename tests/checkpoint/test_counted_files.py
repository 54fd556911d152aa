"""The files of a checkpoint while they are written."""

from pathlib import Path

import pytest
import torch

from recd_dist.checkpoint.counted_files import CountedFiles


def test_a_full_disk_is_named_and_not_the_torch_error_that_follows_from_it() -> None:
    """Torch's writer answers a failing stream with ``enforce fail at inline_container.cc``."""
    with (
        pytest.raises(OSError, match="No space left on device"),
        CountedFiles().create_stream(Path("/dev/full"), "wb") as stream,
    ):
        torch.save(torch.zeros(1 << 20), stream)


def test_an_error_that_is_not_the_streams_stays(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), CountedFiles().create_stream(tmp_path / "x", "wb"):
        raise RuntimeError("mine")
