"""TorchX component for training: where the ranks run, never what they do.

    torchx run -s local_cwd launch/train.py:train -j 1x2 -- data=tiny model=dlrm
    torchx run -s slurm launch/train.py:train -j 4x8 --gpu 8 --run runs/big -- data=ebnerd
    torchx run -s slurm launch/train.py:train -j 4x8 --gpu 8 --run runs/big --board_port 6006 -- data=ebnerd

Each host runs one ``recd_dist.ranks.launcher``. It checks the input, starts the ranks of its host and reports their
failures. With ``--board_port`` the job has a second role, one host that serves the curves until the training has ended.
"""

from dataclasses import replace

from torchx import specs
from torchx.specs import macros
from torchx.specs.finder import ComponentValidationException

from .host import IMAGE, Place, Shape, Shell, launcher_words, quote, role


def train(
    *args: str,
    j: str = "1x2",
    run: str = "",
    board_port: int = 0,
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
    # Only this job and attempt know the name: one that ended before does not end the board of the next.
    ended = Shell(f"{quote(f'{run}/logs/ended-')}{macros.app_id}$${{SLURM_RESTART_COUNT:+-$$SLURM_RESTART_COUNT}}")
    if board_port:
        options += ["--ended", ended]
    words, ports = launcher_words(shape, rdzv_port, options, args)
    hosts = role("train", words, place, variables, num_replicas=shape.hosts, min_replicas=shape.least, port_map=ports)
    roles = [hosts]
    if board_port:
        words = ["-m", "recd_dist.cli", "board", "--port", str(board_port), "--until", ended, run]
        roles.append(role("board", words, replace(place, cpu=1, gpu=0, memMB=2048), {}))
    return specs.AppDef(name=name, roles=roles)
