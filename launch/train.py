"""TorchX component for training: where the ranks run, never what they do.

    torchx run -s local_cwd launch/train.py:train -j 1x2 -- data=tiny model=dlrm
    torchx run -s slurm launch/train.py:train -j 4x8 --gpu 8 --run runs/big -- data=ebnerd

Each host runs one ``recd_dist.ranks.launcher``. It checks the input, starts the ranks of its host and reports their
failures.
"""

import logging
import os
import re
import shlex
import sys
from collections.abc import Sequence

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
    shape = _HOSTS_BY_RANKS.match(j)
    if shape is None:
        raise ComponentValidationException(
            f"-j {j}: give the number of hosts x ranks on each, for example 1x2, or fewest:most hosts x ranks, as 2:4x8"
        )
    num_hosts, num_ranks = int(shape["most"]), int(shape["ranks"])
    return specs.AppDef(
        name=name,
        roles=[
            specs.Role(
                name="train",
                image=image,
                min_replicas=int(shape["least"]) if shape["least"] else None,
                num_replicas=num_hosts,
                entrypoint="bash",
                args=["-c", _host_script(args, j.partition("x")[0], num_ranks, max_restarts, rdzv_port, python)],
                env={**({"RECD_RUN_DIR": run} if run else {}), "PYTHONUNBUFFERED": "1", **(env or {})},
                port_map={"rendezvous": rdzv_port} if num_hosts > 1 else {},
                resource=specs.resource(cpu=cpu, gpu=gpu, memMB=memMB),
                max_retries=max_retries,
                mounts=specs.parse_mounts(mounts) if mounts else [],
            )
        ],
    )


def _host_script(
    overrides: Sequence[str], hosts: str, num_ranks: int, max_restarts: int, rdzv_port: int, python: str
) -> str:
    """The bash command of one host. TorchX replaces ${...} in it, so a dollar for bash or from the user is doubled."""
    if python:
        choice, interpreter = "", _quote(python)
    else:
        choice = f'python={_quote(sys.executable)}; [ -x "$$python" ] || python=python3; '
        interpreter = '"$$python"'
    command = [interpreter, "-m", "recd_dist.ranks.launcher", "--nnodes", hosts, "--nproc-per-node", str(num_ranks)]
    if max_restarts:
        command += ["--max-restarts", str(max_restarts)]
    if hosts != "1":
        endpoint = f'"$${{{macros.rank0_env}:=localhost}}:{rdzv_port}"'
        command += ["--node", macros.replica_id, "--rdzv-id", macros.app_id, "--rdzv-endpoint", endpoint]
    return f"{choice}exec {' '.join([*command, '--', *map(_quote, overrides)])}"


def _quote(text: str) -> str:
    return shlex.quote(text).replace("$", "$$")
