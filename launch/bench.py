"""TorchX component for one script of benchmarks/, on the host that a scheduler chooses.

    torchx run -s local_cwd launch/bench.py:bench --script benchmarks/equality.py -- --steps 20
    torchx run -s slurm launch/bench.py:bench --script benchmarks/step.py --cpu 8 -- rm1 --json rm1.json

A benchmark measures its baseline in the same run. Give it a host of its own: what else runs there is measured too.
"""

from torchx import specs

from .host import IMAGE, Place, role


def bench(
    *args: str,
    script: str,
    image: str = IMAGE,
    name: str = "recd-bench",
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 16384,
    max_retries: int = 0,
    env: str = "",
    mounts: list[str] | None = None,
    pod: str = "",
    python: str = "",
) -> specs.AppDef:
    """Run a benchmark. Arguments after -- are those of the script; `-- --help` lists them.

    Args:
        args: arguments of the script, after --
        script: path of the script on the host, as benchmarks/step.py; a container needs a mount for it
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
    # A script's own directory, where benchmarks share measure.py, is on the path unless this variable has a value.
    return specs.AppDef(name=name, roles=[role("bench", [script, *args], place, {"PYTHONSAFEPATH": ""})])
