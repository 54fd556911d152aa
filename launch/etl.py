"""TorchX component for the ETL: `recd etl`, run where a scheduler puts it.

    torchx run -s local_cwd launch/etl.py:etl -- data=tiny
    torchx run -s slurm launch/etl.py:etl --cpu 32 --memMB 128000 -- data=ebnerd data.path=/data/ebnerd

DuckDB uses the cores and the memory of the one host that it gets.
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
    """Turn raw logs into a clustered table. What follows -- are Hydra overrides; `recd etl --help` lists them.

    Args:
        args: Hydra overrides, after --
        image: container image, for schedulers that use one
        name: name of the job
        cpu: CPU cores
        memMB: memory in MB
        max_retries: submissions by the scheduler after it has failed
        env: environment variables, as A=1,B=2
        mounts: container mounts, as type=bind,src=/data,dst=/data
        python: interpreter; by default that of torchx where the host has it, else python3
    """
    here = shlex.quote(python or sys.executable)
    command = shlex.join(["-m", "recd_dist.cli", "etl", *args])
    # TorchX substitutes ${...} in arguments: every dollar is doubled.
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
