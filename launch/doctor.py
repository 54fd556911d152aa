"""TorchX component for `recd doctor`: the hosts of a job look at themselves and at each other, and end.

torchx run -s local_cwd launch/doctor.py:doctor -j 1x2 -- data=tiny
torchx run -s slurm launch/doctor.py:doctor -j 2x8 --gpu 8 -- data=ebnerd
"""

from torchx import specs
from torchx.specs import macros

from .host import FIRST_PORT, IMAGE, MEETING_PORT, Place, Shape, Shell, role


def doctor(
    *args: str,
    j: str = "1x2",
    image: str = IMAGE,
    name: str = "recd-doctor",
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 4096,
    max_retries: int = 0,
    rdzv_port: int = 0,
    env: str = "",
    mounts: list[str] | None = None,
    pod: str = "",
    python: str = "",
) -> specs.AppDef:
    """Look whether the hosts of a job can run it. Arguments after -- are those of `recd train`, or none.

    The first host shows the findings of all. Each job does the quick part of this by itself before it starts.

    Args:
        args: overrides of the job, after --
        j: number of hosts x ranks on each, as 1x2
        image: container image, for schedulers that use one
        name: name of the job
        cpu: number of CPU cores of a host
        gpu: number of GPUs of a host
        memMB: memory of a host in MB
        max_retries: how often the scheduler submits the whole job again after it failed
        rdzv_port: port on the first host at which several hosts meet; 0: 29500, on Slurm one made of the job's number
        env: environment variables, as A=1,B=2; a value that itself holds a comma and NAME= in quotes, as
            A="x,y=z"
        mounts: container mounts, as type=bind,src=/data,dst=/data,readonly
        pod: on Kubernetes, a YAML file laid over each pod, such as launch/kubernetes/pod.yaml
        python: Python interpreter; by default the one that runs torchx if the host has it, else python3
    """
    shape = Shape.of(j)
    words = ["-m", "recd_dist.cli", "doctor", "--nproc", str(shape.ranks)]
    if shape.hosts > 1:
        port = str(rdzv_port) if rdzv_port else f"$${MEETING_PORT}"
        words += ["--nnodes", str(shape.hosts), "--node", Shell(macros.replica_id)]
        words += ["--rdzv-endpoint", Shell(f'"$${{{macros.rank0_env}:=localhost}}:{port}"')]
    place = Place(image, cpu, gpu, memMB, max_retries, env, mounts, pod, python)
    ports = {"rendezvous": rdzv_port or FIRST_PORT} if shape.hosts > 1 else {}
    hosts = role("doctor", [*words, *args], place, {}, num_replicas=shape.hosts, port_map=ports)
    return specs.AppDef(name=name, roles=[hosts])
