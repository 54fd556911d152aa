"""A job on two hosts loses a link and its first host: it is noticed, said on the other host, and survived."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from recd_dist.cli import main

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("own_logging")]


class Launcher:
    """The launcher of a host, and what it says."""

    def __init__(self, lab: Any, number: int, overrides: list[str], env: dict[str, str]) -> None:
        command = [sys.executable, "-m", "recd_dist.ranks.launcher", "--nnodes", "2", "--node", str(number)]
        command += ["--max-restarts", "2", "--rdzv-endpoint", "host0:29500", "--", *overrides]
        line = lab.on_host(number, command)
        self.process = subprocess.Popen(line, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.said = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            self.said += line


@pytest.mark.parametrize("fault", ["cut", "first host"])
def test_a_job_survives(network: ModuleType, tiny: list[str], tmp_path: Path, fault: str) -> None:
    run_dir = tmp_path / "run"
    shape = ["batch_size=32", "checkpoint.every=10", "record_samples=true", "device=cpu", "evaluate.split=null"]
    overrides = [*tiny, *shape, f"run_dir={run_dir}", "timeouts.link_s=4", "epochs=8"]
    env = {**os.environ, "GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}
    with network.Lab(num_hosts=2) as lab:
        hosts = [Launcher(lab, number, overrides, env) for number in range(2)]
        wait_for(lambda: list(run_dir.glob("checkpoints/step-*/checkpoint.json")), hosts)
        if fault == "cut":
            lab.cut(1)
            wait_for(lambda: "the link" in hosts[0].said, hosts)
            wait_for(lambda: "does not answer" in hosts[1].said, hosts)
            lab.mend(1)
        else:
            hosts[0].process.kill()
            hosts[0].process.wait()
            wait_for(lambda: "the host of host0:29500 does not answer" in hosts[1].said, hosts[1:])
            hosts[0] = Launcher(lab, 0, overrides, env)
        codes = [host.process.wait(180) for host in hosts]
    assert codes == [0, 0], [host.said for host in hosts]
    assert json.loads((run_dir / "summary.json").read_text())["world_size"] == 2
    assert main(["seen", str(run_dir)]) == 0


def wait_for(holds: Any, hosts: list[Launcher]) -> None:
    """Waits until something holds, while the launchers run."""
    deadline = time.monotonic() + 120
    while not holds():
        assert all(host.process.poll() is None for host in hosts), [host.said for host in hosts]
        assert time.monotonic() < deadline, [host.said for host in hosts]
        time.sleep(0.1)
