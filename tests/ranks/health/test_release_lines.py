"""Which releases of torch, TorchRec and fbgemm belong together."""

import importlib.metadata

import pytest

from recd_dist.errors import ConfigError
from recd_dist.ranks.health.release_lines import LINES, installed_versions, require_release_line

CPU = {"torch": "2.13.0+cpu", "torchrec": "1.8.0", "fbgemm-gpu-cpu": "1.8.0"}
CUDA = {"torch": "2.14.1", "torchrec": "1.9.2", "fbgemm-gpu": "1.9.0"}


def test_the_lines() -> None:
    assert [require_release_line(versions).name for versions in (CPU, CUDA)] == ["", "newest"]


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        (CPU | {"torch": "2.14.1"}, "torch 2.14.1, torchrec 1.8.0, fbgemm-gpu-cpu 1.8.0 do not belong together"),
        (CPU | {"torchrec": "1.9.2"}, "torch 2.13.0+cpu, torchrec 1.9.2, fbgemm-gpu-cpu 1.8.0 do not belong together"),
        (CUDA | {"fbgemm-gpu": "1.8.0"}, "install torch 2.13, torchrec 1.8, fbgemm-gpu 1.8, or torch 2.14, torchrec"),
        (CPU | {"fbgemm-gpu": "1.8.0"}, "pip uninstall fbgemm-gpu fbgemm-gpu-cpu"),
        ({"torch": "2.13.0"}, "torchrec, fbgemm-gpu-cpu: not installed; `make env`"),
    ],
)
def test_what_does_not_belong_together_is_named_with_its_remedy(versions: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        require_release_line(versions)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_shim_of_the_cpu_build_is_not_taken_for_the_cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    here = CPU | {"fbgemm-gpu": "1.8.0+cpu"}
    monkeypatch.setattr(importlib.metadata, "version", here.__getitem__)
    assert installed_versions() == CPU


def test_this_environment_is_of_one_line() -> None:
    assert require_release_line() in LINES
