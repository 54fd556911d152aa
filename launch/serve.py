"""TorchX component for `recd serve`: a trained model as a service, on the host that a scheduler chooses.

    torchx run -s local_cwd launch/serve.py:serve -- model=exports/tiny
    torchx run -s slurm launch/serve.py:serve --listen 0.0.0.0:8080 --token_file token -- model=exports/tiny

It listens on the loopback device of its host, unless told otherwise; beyond it it asks for the token in a file, which
all schedulers can hand to a job. It runs until it is cancelled, and answers then what has come.
"""

from torchx import specs

from .host import IMAGE, Place, role


def serve(
    *args: str,
    listen: str = "127.0.0.1:8080",
    token_file: str = "",
    image: str = IMAGE,
    name: str = "recd-serve",
    cpu: int = 2,
    memMB: int = 4096,
    max_retries: int = 0,
    env: str = "",
    mounts: list[str] | None = None,
    pod: str = "",
    python: str = "",
) -> specs.AppDef:
    """Serve a trained model. Arguments after -- are the model, options and flags; `recd serve --help` lists them.

    Args:
        args: model=DIR and options, after --
        listen: where HTTP listens
        token_file: the file with the token that clients show; needed beyond loopback
        image: container image, for schedulers that use one
        name: name of the job
        cpu: number of CPU cores
        memMB: memory in MB: the tables once for each worker, twice while another model is loaded
        max_retries: how often the scheduler submits the job again after it failed
        env: environment variables, as A=1,B=2; a value that itself holds a comma and NAME= in quotes, as
            A="x,y=z"
        mounts: container mounts, as type=bind,src=/data,dst=/data,readonly
        pod: on Kubernetes, a YAML file laid over each pod, such as launch/kubernetes/pod.yaml
        python: Python interpreter; by default the one that runs torchx if the host has it, else python3
    """
    place = Place(image, cpu, 0, memMB, max_retries, env, mounts, pod, python)
    token = ["--token-file", token_file] if token_file else []
    words = ["-m", "recd_dist.cli", "serve", "--listen", listen, *token, *args]
    return specs.AppDef(name=name, roles=[role("serve", words, place, {}, port_map={"http": _port(listen)})])


def _port(address: str) -> int:
    """The port of an address."""
    text = address.rpartition(":")[2]
    return int(text) if text.isdigit() else 0
