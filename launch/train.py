"""TorchX component for training: where the ranks run, never what they do.

    torchx run -s local_cwd launch/train.py:train -j 1x2 -- data=tiny model=dlrm
    torchx run -s slurm launch/train.py:train -j 4x8 --gpu 8 --run runs/big -- data=ebnerd

Each host runs one ``recd_dist.ranks.launcher``, which checks the input, starts the ranks of the host and reports their
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

NODES_BY_RANKS = re.compile(r"^(?:(?P<least>[1-9]\d*):)?(?P<most>[1-9]\d*)x(?P<ranks>[1-9]\d*)$")


def _is_news(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING and not isinstance(record.msg, specs.AppStatus)


# TorchX frames what the job writes with sixteen lines of its own log. LOGLEVEL=INFO shows them.
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
    """Train a model. What follows -- are Hydra overrides, passed on verbatim; `recd train --help` lists them.

    Config and data are checked before any rank starts. The same command resumes a run that was cut off.

    Args:
        args: Hydra overrides, after --
        j: hosts x ranks on each, as 1x2, or fewest:most hosts x ranks for an elastic job, as 2:4x8
        run: run directory, shared by all hosts; by default the config names it
        image: container image, for schedulers that use one
        name: name of the job
        cpu: CPU cores of a host
        gpu: GPUs of a host
        memMB: memory of a host in MB
        max_restarts: restarts from the last checkpoint, on the same hosts, after a rank has died
        max_retries: submissions of the whole job by the scheduler after it has failed
        rdzv_port: port on the first host where several hosts meet
        env: environment variables, as A=1,B=2
        mounts: container mounts, as type=bind,src=/data,dst=/data,readonly
        python: interpreter; by default that of torchx where the host has it, else python3
    """
    shape = NODES_BY_RANKS.match(j)
    if shape is None:
        raise ComponentValidationException(
            f"-j {j}: wanted hosts x ranks on each, for example 1x2, or fewest:most x ranks, as 2:4x8"
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
    """The bash line of one host. TorchX substitutes ${...} in it, so a dollar of bash or of the user is doubled."""
    if python:
        choice, interpreter = "", _verbatim(python)
    else:
        choice = f'python={_verbatim(sys.executable)}; [ -x "$$python" ] || python=python3; '
        interpreter = '"$$python"'
    command = [interpreter, "-m", "recd_dist.ranks.launcher", "--nnodes", hosts, "--nproc-per-node", str(num_ranks)]
    if max_restarts:
        command += ["--max-restarts", str(max_restarts)]
    if hosts != "1":
        endpoint = f'"$${{{macros.rank0_env}:=localhost}}:{rdzv_port}"'
        command += ["--node", macros.replica_id, "--rdzv-id", macros.app_id, "--rdzv-endpoint", endpoint]
    return f"{choice}exec {' '.join([*command, '--', *map(_verbatim, overrides)])}"


def _verbatim(text: str) -> str:
    return shlex.quote(text).replace("$", "$$")
