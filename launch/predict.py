"""TorchX component for prediction: keys and scores of every sample of a split, by the ranks of many hosts.

torchx run -s local_cwd launch/predict.py:predict -j 1x2 -- run_dir=runs/tiny-dlrm
torchx run -s slurm launch/predict.py:predict -j 4x8 --gpu 8 -- run_dir=runs/big out=s3://bucket/scores
"""

from torchx import specs

from .host import IMAGE, Place, Shape, launcher_words, role


def predict(
    *args: str,
    j: str = "1x2",
    image: str = IMAGE,
    name: str = "recd-predict",
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
        rdzv_port: port on the first host at which several hosts meet; 0: 29500, on Slurm one made of the job's
            number
        env: environment variables, as A=1,B=2; a value that itself holds a comma and NAME= in quotes, as
            A="x,y=z"
        mounts: container mounts, as type=bind,src=/data,dst=/data,readonly
        pod: on Kubernetes, a YAML file laid over each pod, such as launch/kubernetes/pod.yaml
        python: Python interpreter; by default the one that runs torchx if the host has it, else python3
    """
    shape = Shape.of(j)
    place = Place(image, cpu, gpu, memMB, max_retries, env, mounts, pod, python)
    # The ranks check the job themselves: the check before training knows no scores.
    words, ports = launcher_words(shape, rdzv_port, ["--checked", "--module", "recd_dist.train.prediction"], args)
    hosts = role("predict", words, place, {}, num_replicas=shape.hosts, min_replicas=shape.least, port_map=ports)
    return specs.AppDef(name=name, roles=[hosts])
