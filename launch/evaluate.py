"""TorchX component for `recd evaluate`: the quality of a trained run on a split of its table, in one process.

torchx run -s local_cwd launch/evaluate.py:evaluate -- runs/tiny-dlrm
torchx run -s slurm launch/evaluate.py:evaluate --memMB 64000 -- runs/big split=train --json runs/big/train.json
"""

from torchx import specs

from .host import IMAGE, Place, role


def evaluate(
    *args: str,
    image: str = IMAGE,
    name: str = "recd-evaluate",
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 4096,
    max_retries: int = 0,
    env: str = "",
    mounts: list[str] | None = None,
    pod: str = "",
    python: str = "",
) -> specs.AppDef:
    """Evaluate a trained run. Arguments after -- are its directory and overrides; `recd evaluate --help` lists them.

    Args:
        args: the directory of the run, overrides and flags of recd evaluate, after --
        image: container image, for schedulers that use one
        name: name of the job
        cpu: number of CPU cores
        gpu: number of GPUs
        memMB: memory in MB
        max_retries: how often the scheduler submits the job again after it failed
        env: environment variables, as A=1,B=2; a value that itself holds a comma and NAME= in quotes, as
            A="x,y=z"
        mounts: container mounts, as type=bind,src=/data,dst=/data,readonly
        pod: on Kubernetes, a YAML file laid over each pod, such as launch/kubernetes/pod.yaml
        python: Python interpreter; by default the one that runs torchx if the host has it, else python3
    """
    place = Place(image, cpu, gpu, memMB, max_retries, env, mounts, pod, python)
    return specs.AppDef(name=name, roles=[role("evaluate", ["-m", "recd_dist.cli", "evaluate", *args], place, {})])
