"""TorchX components for training and prediction: where the ranks run, never what they do.

    torchx run -s local_cwd launch/train.py:train -j 1x2 -- data=tiny model=dlrm
    torchx run -s slurm launch/train.py:train -j 4x8 --gpu 8 --run runs/big -- data=ebnerd
    torchx run -s slurm launch/train.py:predict -j 4x8 --gpu 8 -- run_dir=runs/big out=s3://bucket/scores

Each host runs one ``recd_dist.ranks.launcher``. It checks the input, starts the ranks of its host and reports their
failures.
"""

import logging
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchx import specs
from torchx.specs import macros
from torchx.specs.finder import ComponentValidationException

_HOSTS_BY_RANKS = re.compile(r"^(?:(?P<least>[1-9]\d*):)?(?P<most>[1-9]\d*)x(?P<ranks>[1-9]\d*)$")


def _is_news(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING and not isinstance(record.msg, specs.AppStatus)


# TorchX writes sixteen lines of its own log around what the job writes. LOGLEVEL=INFO shows them.
if "LOGLEVEL" not in os.environ:
    for name in ("torchx.cli.cmd_run", "torchx.runner.api", "torchx.schedulers.local_scheduler"):
        logging.getLogger(name).addFilter(_is_news)


def train(
    *args: str,
    j: str = "1x2",
    run: str = "",
    image: str = "recd_dist:cpu",
    name: str = "recd",
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 4096,
    max_restarts: int = 0,
    max_retries: int = 0,
    rdzv_port: int = 29500,
    env: dict[str, str] | None = None,
    mounts: list[str] | None = None,
    python: str = "",
) -> specs.AppDef:
    """Train a model. Arguments after -- are Hydra overrides, passed on as they are; `recd train --help` lists them.

    Config and data are checked before any rank starts. The same command resumes a run that was stopped.

    Args:
        args: Hydra overrides, after --
        j: number of hosts x ranks on each, as 1x2; for an elastic job fewest:most hosts x ranks, as 2:4x8
        run: run directory, which all hosts share; by default the config names it
        image: container image, for schedulers that use one
        name: name of the job
        cpu: number of CPU cores of a host
        gpu: number of GPUs of a host
        memMB: memory of a host in MB
        max_restarts: how often all ranks start again from the last checkpoint, on the same hosts, after a rank died
        max_retries: how often the scheduler submits the whole job again after it failed
        rdzv_port: port on the first host at which several hosts meet
        env: environment variables, as A=1,B=2
        mounts: container mounts, as type=bind,src=/data,dst=/data,readonly
        python: Python interpreter; by default the one that runs torchx if the host has it, else python3
    """
    return _app(
        _Job("train", name, args, {"RECD_RUN_DIR": run} if run else {}, max_restarts, rdzv_port, python),
        j,
        env,
        image=image,
        resource=specs.resource(cpu=cpu, gpu=gpu, memMB=memMB),
        max_retries=max_retries,
        mounts=specs.parse_mounts(mounts) if mounts else [],
    )


def predict(
    *args: str,
    j: str = "1x2",
    image: str = "recd_dist:cpu",
    name: str = "recd-predict",
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 4096,
    max_retries: int = 0,
    rdzv_port: int = 29500,
    env: dict[str, str] | None = None,
    mounts: list[str] | None = None,
    python: str = "",
) -> specs.AppDef:
    """Write keys and scores of a split. Arguments after -- are overrides; `recd predict --help` lists them.

    Args:
        args: overrides, after --
        j: number of hosts x ranks on each, as 1x2; run_dir and out lie where all hosts see them
        image: container image, for schedulers that use one
        name: name of the job
        cpu: number of CPU cores of a host
        gpu: number of GPUs of a host
        memMB: memory of a host in MB
        max_retries: how often the scheduler submits the whole job again after it failed
        rdzv_port: port on the first host at which several hosts meet
        env: environment variables, as A=1,B=2
        mounts: container mounts, as type=bind,src=/data,dst=/data,readonly
        python: Python interpreter; by default the one that runs torchx if the host has it, else python3
    """
    return _app(
        _Job("predict", name, args, {}, 0, rdzv_port, python, ("--checked", "--module", "recd_dist.train.prediction")),
        j,
        env,
        image=image,
        resource=specs.resource(cpu=cpu, gpu=gpu, memMB=memMB),
        max_retries=max_retries,
        mounts=specs.parse_mounts(mounts) if mounts else [],
    )


@dataclass(frozen=True)
class _Job:
    """What the ranks of a job do, and how the launchers of its hosts start them."""

    role: str
    name: str
    overrides: Sequence[str]
    env: Mapping[str, str]
    max_restarts: int
    rdzv_port: int
    python: str
    launcher: Sequence[str] = ()


def _app(job: _Job, j: str, env: Mapping[str, str] | None, **role: Any) -> specs.AppDef:
    """A job on hosts x ranks; ``role`` holds what a scheduler must know of a host."""
    shape = _HOSTS_BY_RANKS.match(j)
    if shape is None:
        raise ComponentValidationException(
            f"-j {j}: give the number of hosts x ranks on each, for example 1x2, or fewest:most hosts x ranks, as 2:4x8"
        )
    num_hosts = int(shape["most"])
    return specs.AppDef(
        name=job.name,
        roles=[
            specs.Role(
                name=job.role,
                min_replicas=int(shape["least"]) if shape["least"] else None,
                num_replicas=num_hosts,
                entrypoint="bash",
                args=["-c", _host_script(job, j.partition("x")[0], int(shape["ranks"]))],
                env={**job.env, "PYTHONUNBUFFERED": "1", **(env or {})},
                port_map={"rendezvous": job.rdzv_port} if num_hosts > 1 else {},
                **role,
            )
        ],
    )


def _host_script(job: _Job, hosts: str, num_ranks: int) -> str:
    """The bash command of one host. TorchX replaces ${...} in it, so a dollar for bash or from the user is doubled."""
    if job.python:
        choice, interpreter = "", _quote(job.python)
    else:
        choice = f'python={_quote(sys.executable)}; [ -x "$$python" ] || python=python3; '
        interpreter = '"$$python"'
    command = [interpreter, "-m", "recd_dist.ranks.launcher", "--nnodes", hosts, "--nproc-per-node", str(num_ranks)]
    command += job.launcher
    if job.max_restarts:
        command += ["--max-restarts", str(job.max_restarts)]
    if hosts != "1":
        endpoint = f'"$${{{macros.rank0_env}:=localhost}}:{job.rdzv_port}"'
        command += ["--node", macros.replica_id, "--rdzv-id", macros.app_id, "--rdzv-endpoint", endpoint]
    return f"{choice}exec {' '.join([*command, '--', *map(_quote, job.overrides)])}"


def _quote(text: str) -> str:
    return shlex.quote(text).replace("$", "$$")
