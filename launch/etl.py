"""TorchX component for the ETL: `recd etl` on the host that a scheduler chooses.

    torchx run -s local_cwd launch/etl.py:etl -- data=tiny
    torchx run -s slurm launch/etl.py:etl --cpu 32 --memMB 128000 -- data=ebnerd data.path=/data/ebnerd

The ETL uses the cores and the memory of this one host.
"""

import shlex
import sys

from torchx import specs


def etl(
    *args: str,
    image: str = "recd_dist:cpu",
    name: str = "recd-etl",
    cpu: int = 2,
    memMB: int = 4096,
    max_retries: int = 0,
    env: dict[str, str] | None = None,
    mounts: list[str] | None = None,
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
        env: environment variables, as A=1,B=2
        mounts: container mounts, as type=bind,src=/data,dst=/data
        python: Python interpreter; by default the one that runs torchx if the host has it, else python3
    """
    here = shlex.quote(python or sys.executable)
    command = shlex.join(["-m", "recd_dist.cli", "etl", *args])
    # TorchX replaces ${...} in arguments, so every dollar is doubled.
    script = f'python={here}; [ -x "$python" ] || python=python3; exec "$python" {command}'.replace("$", "$$")
    return specs.AppDef(
        name=name,
        roles=[
            specs.Role(
                name="etl",
                image=image,
                entrypoint="bash",
                args=["-c", script],
                env={"PYTHONUNBUFFERED": "1", **(env or {})},
                resource=specs.resource(cpu=cpu, gpu=0, memMB=memMB),
                max_retries=max_retries,
                mounts=specs.parse_mounts(mounts) if mounts else [],
            )
        ],
    )
