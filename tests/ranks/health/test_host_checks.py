"""Machines that are broken on purpose: each check says what is wrong and what to do, before a rank starts."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recd_dist.ranks.health import devices, libraries, limits, places, ports, versions_together
from recd_dist.ranks.health.devices import Driver
from recd_dist.ranks.health.finding import Finding, Level, failures
from recd_dist.ranks.health.host_checks import SWITCH, Wanted, check_first, needs_of, refusal

MIB = 2**20
BUILD = {"cuda": "12.8", "nccl": "2.27", "devices": [{"name": "H200", "free_bytes": 139 << 30, "bytes": 140 << 30}]}
MIG = {"name": "H200", "driver_version": "570.1", "mig.mode.current": "Enabled"}


def has_statvfs(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    """Makes every file system one of so many bytes, all of them free."""
    found = os.statvfs_result((4096, 4096, *[num_bytes // 4096] * 3, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: found)


def assert_says(finding: Finding, level: Level, *words: str) -> None:
    assert (finding.level, [word for word in words if word not in finding.line]) == (level, []), finding
    assert "\n" not in finding.line
    assert bool(finding.remedy) or level is Level.OK or finding.check in ("versions", "data")


def test_a_healthy_machine(tmp_path: Path) -> None:
    found = list(check_first(Wanted(num_ranks=1, run_dir=tmp_path / "runs" / "new")))
    assert failures(found) == []
    assert [finding.check for finding in found][:6] == [
        "python", "versions", "cores", "memory", "shared memory", "open files",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []
    assert refusal(Wanted()) == ""


def test_a_library_of_another_release_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = tmp_path / "torchrec-1.2.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: torchrec\nVersion: 1.2.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert_says(versions_together.check_versions(), Level.FAIL, "torchrec 1.2.0", "do not belong together", "make env")
    assert "versions: " in refusal(Wanted())
    assert SWITCH in refusal(Wanted())
    monkeypatch.setenv(SWITCH, "off")
    assert refusal(Wanted()) == ""


@pytest.mark.parametrize(("shim", "words"), [(None, "is missing"), ("1.2.0", "the shim that stands for fbgemm-gpu is")])
def test_a_shim_that_is_missing_or_old(monkeypatch: pytest.MonkeyPatch, shim: str | None, words: str) -> None:
    here = {"torch": "2.13.0+cpu", "torchrec": "1.8.0", "fbgemm-gpu-cpu": "1.8.0"}
    monkeypatch.setattr(versions_together, "installed_versions", lambda: here)
    monkeypatch.setattr(versions_together, "_shim_version", lambda: shim)
    assert_says(versions_together.check_versions(), Level.WARN, words, "fbgemm-gpu-cpu-shim")


def test_shared_memory_of_one_mebibyte(monkeypatch: pytest.MonkeyPatch) -> None:
    has_statvfs(monkeypatch, MIB)
    assert_says(limits.check_shared_memory(2, num_workers=4), Level.FAIL, "1 MiB free", "--shm-size", "num_workers")
    assert_says(limits.check_shared_memory(2), Level.WARN, "1 MiB free", "--shm-size")
    assert_says(limits.check_shared_memory(2, num_workers=0), Level.OK, "1 MiB free")
    has_statvfs(monkeypatch, 64 * MIB)  # what Docker gives: small batches fit
    assert_says(limits.check_shared_memory(1, num_workers=4), Level.WARN, "4 reader workers may need 256 MiB")


def test_a_quota_of_half_a_core_and_little_memory(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup/job"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job\n")
    (group / "cpu.max").write_text("50000 100000\n")
    (group / "memory.max").write_text(f"{700 * MIB}\n")
    assert_says(limits.check_cores(2, tmp_path), Level.WARN, "0.5 of", "quota of its container", "limits.cpu")
    assert_says(limits.check_memory(1, tmp_path), Level.WARN, "0.7 GiB free of 0.7 GiB", "--memMB")
    assert_says(limits.check_memory(2, tmp_path), Level.FAIL, "a rank needs 0.5 GiB", "limits.memory")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 99 kB\nMemAvailable: 1024 kB\n")
    assert_says(limits.check_memory(1, tmp_path), Level.FAIL, "0.0 GiB free of 0.7 GiB")


@pytest.mark.parametrize(("files", "code", "words"), [(64, 2, ["open files: 64", "a rank needs 256", "LimitNOFILE"])])
def test_a_job_with_few_open_files_does_not_start(files: int, code: int, words: list[str]) -> None:
    line = f'ulimit -n {files}; exec "{sys.executable}" -m recd_dist.ranks.launcher -- data=tiny'
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert [word for word in words if word not in ended.stderr] == []
    assert ended.stderr.startswith(f"recd: error: {socket.gethostname()}: open files")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("place", ["a_file/run", "/proc/self/run"])  # the user of a container may write anywhere else
def test_a_place_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "a_file").touch()
    (found,) = places.check_directory("run_dir", tmp_path / place, "run_dir=...")
    assert_says(found, Level.FAIL, place, "choose another with run_dir=...")


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_statvfs(monkeypatch, MIB)
    (found,) = places.check_directory("tables", tmp_path, "data.table=...")
    assert_says(found, Level.FAIL, "0.0 GiB free", "make room")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_whose_clock_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = time.time()
    monkeypatch.setattr(places.time, "time", lambda: now_s - 90)
    disk, clock = places.check_directory("run_dir", tmp_path, "run_dir=...", measure=False)
    assert disk.level is Level.OK
    assert_says(clock, Level.WARN, "is 90.", "ahead of this host", "NTP")


def test_clocks_of_hosts_that_differ() -> None:
    assert_says(
        places.check_clocks({"a, rank 0": 100.0, "b, rank 1": 130.5}), Level.WARN, "b, rank 1 is 30.5 s ahead", "NTP"
    )
    assert_says(places.check_clocks({"a, rank 0": 100.0, "b, rank 1": 100.1}), Level.OK, "0.10 s")


def test_a_clock_before_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places.time, "time", lambda: 86400.0)
    assert_says(places.check_clock(), Level.WARN, "before this program was installed", "NTP")


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/none/cache")
    monkeypatch.setattr(places.os, "access", lambda path, mode: False)
    assert_says(places.check_surroundings()[-1], Level.WARN, "/proc/none/cache", "NUMBA_CACHE_DIR")


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = ports.check_port("rendezvous", "127.0.0.1", port, "choose another: --rdzv-endpoint")
    assert_says(found, Level.FAIL, f"{port}: another program listens on it", "--rdzv-endpoint")
    assert ports.check_port("rendezvous", "127.0.0.1", port, "").level is Level.OK


def test_a_peer_that_cannot_be_reached() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        port = closed.getsockname()[1]
        assert "Connection refused for 1 s" in ports.wait_for_peer(f"127.0.0.1:{port}", 1)
    with socket.create_server(("127.0.0.1", 0)) as there:
        assert ports.wait_for_peer(f"127.0.0.1:{there.getsockname()[1]}", 1) == ""
    assert "no_such_host.invalid" in ports.wait_for_peer("no_such_host.invalid:1", 0.1)
    assert "no_port" in ports.wait_for_peer("no_port", 0.1)


def test_a_host_name_that_leads_back_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [(0, 0, 0, "", ("127.0.1.1", 0))])
    assert_says(ports.check_host_name(), Level.WARN, "127.0.1.1", "GLOO_SOCKET_IFNAME")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [(0, 0, 0, "", ("10.0.0.7", 0))])
    assert_says(ports.check_host_name(), Level.OK, "10.0.0.7")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ImportError('libnvidia-ml.so.1: cannot open shared object file')", ["libnvidia-ml", "make env"]),
        ("import os; os.kill(os.getpid(), 11)", ["torch does not load", "signal 11"]),
    ],
)
def test_a_torch_that_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: list[str]
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert_says(libraries.check_libraries(libraries.load_libraries()), Level.FAIL, *words)


def test_libraries_that_take_for_ever() -> None:
    assert_says(libraries.check_libraries(libraries.load_libraries(0.01)), Level.FAIL, "nothing was loaded after 0 s")


@pytest.mark.parametrize(
    ("driver", "torch", "device", "level", "words"),
    [
        (Driver(), {"cuda": None, "devices": []}, "auto", Level.OK, "no GPU: training uses the CPU"),
        (Driver(), {"cuda": None, "devices": []}, "cuda", Level.FAIL, "torch is a CPU build"),
        (Driver(), {"cuda": None, "devices": []}, "cpu", Level.OK, "device=cpu"),
        (Driver((12, 8), ({}, {})), {"cuda": None, "devices": []}, "auto", Level.WARN, "2 GPUs, but torch is a CPU"),
        (Driver(), {"cuda": "12.8", "devices": []}, "auto", Level.WARN, "no driver is there"),
        (Driver((11, 4)), {"cuda": "12.8", "devices": []}, "cuda", Level.FAIL, "the driver knows CUDA 11.4 at most"),
        (Driver(None, (), "nvidia-smi gives no answer"), BUILD, "auto", Level.WARN, "dmesg"),
        (Driver((12, 8)), BUILD | {"devices": []}, "cuda", Level.FAIL, "torch sees 0 GPUs for 1 ranks"),
        (Driver((12, 8), ({"driver_version": "570.1"},)), BUILD, "auto", Level.OK, "1 x H200, 140 GiB; driver 570.1"),
    ],
)
def test_devices(driver: Driver, torch: dict[str, object], device: str, level: Level, words: str) -> None:
    assert_says(devices.check_devices(driver, torch, 1, device)[0], level, words)


def test_a_gpu_that_is_split_or_taken() -> None:
    taken = {"name": "H200", "free_bytes": 20 << 30, "bytes": 140 << 30}
    found = devices.check_devices(Driver((12, 8), (MIG, {})), BUILD | {"devices": [taken, *BUILD["devices"]]}, 2)
    assert [finding.check for finding in found] == ["devices", "GPU memory", "MIG"]
    assert_says(found[1], Level.WARN, "GPU 0: 86%")
    assert_says(found[2], Level.WARN, "MIG is enabled on GPU 0", "NCCL")


def test_the_time_that_a_scheduler_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits.check_time_limit() is None
    for left_s, level in ((30, Level.FAIL), (300, Level.WARN), (3725, Level.OK)):
        monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + left_s + 1))
        found = limits.check_time_limit()
        assert found is not None
        assert_says(found, level, "left (SLURM_JOB_END_TIME)")
    assert "1:02:0" in found.value


def test_what_a_launcher_knows_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECD_RUN_DIR", "runs/big")
    overrides = ["data=tiny", "reader.num_workers=2", "name"]
    assert needs_of(4, 2, overrides) == Wanted(4, 2, run_dir=Path("runs/big"), num_workers=2)


def test_a_finding_as_json() -> None:
    finding = Finding("memory", Level.WARN, "little", "more", "host7")
    assert Finding.from_json(finding.to_json()) == finding
