"""The ETL component as a pure function."""

import shlex
import sys

from launch.etl import etl
from torchx.specs import macros


def test_runs_recd_etl_with_the_overrides_verbatim() -> None:
    app = etl("data=tiny", "data.path=/a b/${x}", cpu=8, memMB=100)
    role = macros.Values(img_root="/", app_id="1", replica_id="0", rank0_env="R").apply(app.roles[0])
    flag, script = role.args
    assert flag == "-c"
    assert script.splitlines() == [
        "export PYTHONUNBUFFERED=1",
        "export PYTHONSAFEPATH=1",
        f'python={shlex.quote(sys.executable)}; [ -x "$python" ] || python=python3',
        "exec \"$python\" -m recd_dist.cli etl data=tiny 'data.path=/a b/$''{x}'",
    ]
    assert (role.num_replicas, role.resource.cpu, role.resource.memMB) == (1, 8, 100)
