"""TorchX component for the ETL: `recd etl` on the host that a scheduler chooses.

    torchx run -s local_cwd launch/etl.py:etl -- data=tiny
    torchx run -s slurm launch/etl.py:etl --cpu 32 --memMB 128000 -- data=ebnerd data.path=/data/ebnerd

The ETL uses the cores and the memory of this one host.
"""

from torchx import specs

from .host import IMAGE, Place, role


def etl(
    *args: str,
    image: str = IMAGE,
    name: str = "recd-etl",
    cpu: int = 2,
    memMB: int = 4096,
    max_retries: int = 0,
    env: str = "",
    mounts: list[str] | None = None,
    pod: str = "",
    python: str = "",
) -> specs.AppDef:
    """Turn raw logs into a clustered table. Arguments after -- are Hydra overrides; `recd etl --help` lists them.

    Args:
        args: Hydra overrides, after --
        image: container image, for schedulers that use one
        name: name of the job
        cpu: number of CPU cores
        memMB: memory in MB
        max_retries: how often the scheduler submits the job again after it failed
        env: environment variables, as A=1,B=2; a value that itself holds a comma and NAME= in quotes, as
            A="x,y=z"
        mounts: container mounts, as type=bind,src=/data,dst=/data,readonly
        pod: on Kubernetes, a YAML file laid over each pod, such as launch/kubernetes/pod.yaml
        python: Python interpreter; by default the one that runs torchx if the host has it, else python3
    """
    place = Place(image, cpu, 0, memMB, max_retries, env, mounts, pod, python)
    return specs.AppDef(name=name, roles=[role("etl", ["-m", "recd_dist.cli", "etl", *args], place, {})])
