"""TorchX component for training: where the ranks run, never what they do.

    torchx run -s local_cwd launch/train.py:train -j 1x2 -- data=tiny model=dlrm
    torchx run -s slurm launch/train.py:train -j 4x8 --gpu 8 --run runs/big -- data=ebnerd
    torchx run -s slurm launch/train.py:train -j 4x8 --gpu 8 --run runs/big --board_port 6006 -- data=ebnerd
    torchx run -s local_cwd launch/train.py:train -j 1x2 --readers 2 -- data=tiny

Each host runs one ``recd_dist.ranks.launcher``. It checks the input, starts the ranks of its host and reports their
failures. With ``--board_port`` the job has a further role, one host that serves the curves until the training ends.
With ``--readers`` it has hosts that read batches for the ranks (``recd reader``) until then. These announce themselves
in a directory of this job below the run's, which all hosts share; ranks look for them there, and find a token there.
"""

from collections.abc import Sequence
from dataclasses import replace

from torchx import specs
from torchx.specs import macros
from torchx.specs.finder import ComponentValidationException

from .host import IMAGE, LISTEN, Place, Shape, Shell, launcher_words, quote, role

_CLI = "recd_dist.cli"


def train(
    *args: str,
    j: str = "1x2",
    run: str = "",
    board_port: int = 0,
    readers: int = 0,
    image: str = IMAGE,
    name: str = "recd",
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 4096,
    max_restarts: int = 0,
    max_retries: int = 0,
    rdzv_port: int = 0,
    env: str = "",
    mounts: list[str] | None = None,
    pod: str = "",
    python: str = "",
) -> specs.AppDef:
    """Train a model. Arguments after -- are Hydra overrides, passed on as they are; `recd train --help` lists them.

    Config and data are checked before any rank starts. The same command resumes a run that was stopped.

    Args:
        args: Hydra overrides, after --
        j: number of hosts x ranks on each, as 1x2; for an elastic job fewest:most hosts x ranks, as 2:4x8
        run: run directory, which all hosts share; by default the config names it
        board_port: also serve the curves of --run at this port of one more host until the training has ended; 0: no
        readers: number of further hosts, without GPUs, that read batches for the ranks; 0: ranks read themselves
        image: container image, for schedulers that use one
        name: name of the job
        cpu: number of CPU cores of a host
        gpu: number of GPUs of a host
        memMB: memory of a host in MB
        max_restarts: how often all ranks start again from the last checkpoint, on the same hosts, after a rank died
        max_retries: how often the scheduler submits the whole job again after it failed
        rdzv_port: port on the first host at which several hosts meet; 0: 29500, on Slurm one made of the job's number
        env: environment variables, as A=1,B=2; a value that itself holds a comma and NAME= in quotes, as
            A="x,y=z"
        mounts: container mounts, as type=bind,src=/data,dst=/data,readonly
        pod: on Kubernetes, a YAML file laid over each pod, such as launch/kubernetes/pod.yaml
        python: Python interpreter; by default the one that runs torchx if the host has it, else python3
    """
    if board_port and not run:
        raise ComponentValidationException(f"--board_port {board_port}: name the run directory too: --run runs/big")
    shape = Shape.of(j)
    place = Place(image, cpu, gpu, memMB, max_retries, env, mounts, pod, python)
    variables = {"RECD_RUN_DIR": run} if run else {}
    options: list[str] = ["--max-restarts", str(max_restarts)] if max_restarts else []
    ended, found = _of_job(run, "ended"), _of_job(run, "readers")
    more = [_board(board_port, ended, run, place)] if board_port else []
    if readers:
        more.append(_readers(readers, ended, found, _data_of(args), place))
        # The user's own reader.num_workers comes later, and counts.
        args = (Shell(f"reader.servers_dir={found}"), f"reader.num_workers={readers}", *args)
    options += ["--ended", ended] if more else []
    words, ports = launcher_words(shape, rdzv_port, options, args)
    hosts = role("train", words, place, variables, num_replicas=shape.hosts, min_replicas=shape.least, port_map=ports)
    return specs.AppDef(name=name, roles=[hosts, *more])


def _board(port: int, ended: Shell, run: str, place: Place) -> specs.Role:
    """The host that serves the curves of a run until a job has ended."""
    words = ["-m", _CLI, "board", "--port", str(port), "--until", ended, run]
    return role("board", words, replace(place, cpu=1, gpu=0, memMB=2048), {})


def _readers(num: int, ended: Shell, found: Shell, data: Sequence[str], place: Place) -> specs.Role:
    """The hosts that read batches until a job has ended, and are found in a directory."""
    words = ["-m", _CLI, "reader", "--announce", found, "--until", ended, "--listen", Shell(f'"$${LISTEN}:0"'), *data]
    return role("readers", words, replace(place, gpu=0), {}, num_replicas=num)


def _of_job(run: str, name: str) -> Shell:
    """A path that only this job and attempt know: what ended before does not end a role of the next."""
    place = f"{run}/logs/{name}-" if run else f"runs/.jobs/{name}-"
    return Shell(f"{quote(place)}{macros.app_id}$${{SLURM_RESTART_COUNT:+-$$SLURM_RESTART_COUNT}}")


def _data_of(overrides: Sequence[str]) -> list[str]:
    """What servers must know of the overrides: which table they read, and where configs lie."""
    chosen = [word for word in overrides if word.lstrip("+~").startswith(("data=", "data.", "hydra.searchpath="))]
    if not any(word.lstrip("+").startswith(("data=", "data.table=")) for word in chosen):
        raise ComponentValidationException("--readers: name the data that they read after --, as -- data=tiny")
    return chosen
