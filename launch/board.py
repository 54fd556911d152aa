"""TorchX component for `recd board`: TensorBoard over one or many runs, on the host that a scheduler chooses.

    torchx run -s local_cwd launch/board.py:board -- runs
    torchx run -s slurm launch/board.py:board --port 6007 -- runs/big

TensorBoard asks for no password, so it listens on the loopback device of its host alone. Where that is another
machine, make a tunnel: `ssh -L 6007:127.0.0.1:6007 HOST`, or `kubectl port-forward POD 6007`; or let it ask for a
token and speak TLS, by options of `recd board` after the directory (docs/security.md). It runs until it is cancelled.
"""

from torchx import specs

from .host import IMAGE, Place, role


def board(
    *args: str,
    port: int = 6006,
    image: str = IMAGE,
    name: str = "recd-board",
    cpu: int = 1,
    memMB: int = 2048,
    max_retries: int = 0,
    env: str = "",
    mounts: list[str] | None = None,
    pod: str = "",
    python: str = "",
) -> specs.AppDef:
    """Serve the curves of one or many runs. The argument after -- is a directory; `recd board --help` says more.

    Args:
        args: the directory of a run, or one of many runs, after --
        port: port on the loopback device of the host
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
    words = ["-m", "recd_dist.cli", "board", "--port", str(port), *args]
    return specs.AppDef(name=name, roles=[role("board", words, place, {})])
