"""What TorchX does on the way to a scheduler that one would not guess; docs/surprises.md says what we do about it."""

from pathlib import Path

import pytest
from torchx import specs
from torchx.runner.config import DEFAULT_CONFIG_DIRS, apply
from torchx.schedulers.slurm_scheduler import SlurmOpts, SlurmReplicaRequest
from torchx.util.types import to_dict


def role(**env: str) -> specs.Role:
    return specs.Role("r", "image", entrypoint="e", env=env, resource=specs.Resource(cpu=1, gpu=0, memMB=1024))


def test_the_torchxconfig_of_the_home_directory_beats_that_of_the_project(tmp_path: Path) -> None:
    for name in ("home", "project"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".torchxconfig").write_text(f"[slurm]\npartition = of_{name}\n")
    options: dict[str, specs.CfgVal] = {}
    apply("slurm", options, dirs=[str(tmp_path / "home"), str(tmp_path / "project")])
    assert options["partition"] == "of_home"
    assert [str(Path.home()), str(Path.cwd())] == DEFAULT_CONFIG_DIRS


def test_a_comma_ends_a_variable_on_slurm() -> None:
    """``srun --export=ALL,A=1,2,B=3`` sets A to 1: Slurm takes every comma for the end of a variable."""
    request = SlurmReplicaRequest.from_role("n", role(A="1,2", B="3"), SlurmOpts(partition=None), nomem=False)
    assert "--export=ALL,A=1,2,B=3" in request.materialize()[1]


def test_torchx_reads_dicts_in_its_own_way() -> None:
    assert to_dict("A=abc==") == {"A": "abc"}
    assert to_dict("A=it's,B=that's") == {"A": "it's,B=that's"}


def test_kubernetes_is_asked_for_a_gigabyte_less() -> None:
    pytest.importorskip("kubernetes")
    from torchx.schedulers.kubernetes_scheduler import role_to_pod

    resources = role_to_pod("n", role(), service_account=None).spec.containers[0].resources
    assert resources.requests == {"cpu": "900m", "memory": "0M"}
    assert resources.limits == {"cpu": "1000m", "memory": "1024M"}
