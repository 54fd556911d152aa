"""What a container may take: literals of its control group in, cores and bytes out."""

import os
from pathlib import Path

import pytest

from recd_dist.ranks.health.machine_share import usable_cores, usable_memory

CORES = len(os.sched_getaffinity(0))
BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
MB = 1_000_000
Files = dict[str, str]
V2 = "0::/pods/mine\n"
V1 = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n"
V1_APART = "4:cpu:/docker/abc\n"

CASES = [
    pytest.param("", {}, CORES, BYTES, id="no control groups"),
    pytest.param(V2, {"pods/mine/cpu.max": "max 100000", "pods/mine/memory.max": "max"}, CORES, BYTES, id="no quota"),
    pytest.param(V2, {"pods/mine/cpu.max": "50000 100000", "pods/mine/memory.max": "600000000"}, 1, 600 * MB, id="v2"),
    pytest.param(V2, {"pods/cpu.max": "100000 100000", "pods/memory.max": "700000000"}, 1, 700_000_000, id="v2 above"),
    pytest.param("0::/\n", {"cpu.max": "100000 100000", "memory.max": "700000000"}, 1, 700_000_000, id="v2 own root"),
    pytest.param("0::/\n", {"unified/cpu.max": "100000 100000"}, 1, BYTES, id="v2 beside v1"),
    pytest.param(
        V1,
        {
            "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "20000",
            "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
            "memory/docker/abc/memory.limit_in_bytes": "800000000",
        },
        1,
        800_000_000,
        id="v1",
    ),
    pytest.param(
        V1,
        {"memory/memory.limit_in_bytes": "9223372036854771712", "cpu/cpu.cfs_quota_us": "-1"},
        CORES,
        BYTES,
        id="v1 without limits",
    ),
    pytest.param(
        V1_APART,
        {"cpu/cpu.cfs_quota_us": "90000", "cpu/cpu.cfs_period_us": "100000"},
        1,
        BYTES,
        id="v1, the host's path is not in the container",
    ),
]


@pytest.mark.parametrize(("groups", "files", "cores", "num_bytes"), CASES)
def test_the_lowest_limit_counts(tmp_path: Path, groups: str, files: Files, cores: int, num_bytes: int) -> None:
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert usable_cores(tmp_path) == cores
    assert usable_memory(tmp_path) == num_bytes


def test_a_part_of_a_core_counts_as_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("250000 100000\n")
    assert usable_cores(tmp_path) == 3
