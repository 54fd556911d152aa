"""The launcher with real ranks that run a small module: the user's screen and the exit code."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recd_dist.ranks import launcher as launching
from recd_dist.ranks.host_ranks import held_port
from recd_dist.ranks.launcher import GO_ON, parse_arguments, rank_environment
from recd_dist.ranks.timeouts import Timeouts

MODULE = """
import contextlib, os, signal, threading, time
from pathlib import Path
from recd_dist.errors import DataError

PRINTED = Path(os.environ["TMPDIR"], "printed")  # rank 0 has printed its line: only then may rank 1 end the job

def main(overrides):
    rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    print("rank", rank, *overrides, flush=True)
    action = overrides[0]
    if rank == 0:
        PRINTED.touch()
    while rank == 1 and not PRINTED.exists():
        time.sleep(0.01)
    if action == "listen":
        import socket
        import torch.distributed as dist
        from recd_dist.ranks.process_group import process_group
        if rank == 0:
            try:
                socket.socket().bind(("127.0.0.1", int(os.environ["MASTER_PORT"])))
            except OSError as error:
                print("port", error.strerror, flush=True)
        with process_group("cpu"):
            sockets = set()
            for fd in os.listdir("/proc/self/fd"):
                with contextlib.suppress(FileNotFoundError):  # threads of torch open and close others meanwhile
                    sockets.add(os.readlink(f"/proc/self/fd/{fd}"))
            for table in ("tcp", "tcp6"):
                for row in open(f"/proc/self/net/{table}"):
                    fields = row.split()
                    if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                        print("listens", fields[1].partition(":")[0], flush=True)
            dist.barrier()
    if rank == 1 and attempt == 0:
        if action == "data":
            raise DataError("part-0.parquet: column clicked: NaN")
        if action == "bug":
            threading.Thread(target=time.sleep, args=(600,)).start()
            raise KeyError("k")
        if action in ("kill", "once"):
            os.kill(os.getpid(), signal.SIGKILL)
    if action == "stop":
        from recd_dist.ranks.stop import Stopped
        def end(*_):
            raise Stopped("stopped by SIGTERM after step 7; the same command goes on from c")
        signal.signal(signal.SIGTERM, end)
        print("ready", flush=True)
    if action in ("sleep", "kill", "stop"):
        time.sleep(60)
"""
LIMIT_S = 180
"""Ends a launcher that hangs; two ranks that import torch took 30 s on a machine with ten other jobs."""

LAUNCH = "import sys; from recd_dist.ranks import launcher; launcher.PREFLIGHT = 'checked'; sys.exit(launcher.main())"


@pytest.fixture
def launcher(tmp_path: Path) -> list[str]:
    """A command that launches two ranks of MODULE."""
    (tmp_path / "ranks.py").write_text(MODULE)
    (tmp_path / "checked.py").write_text("import sys\nif 'bad' in sys.argv: sys.exit('recd: error: no such table')\n")
    return [sys.executable, "-c", LAUNCH, "--nproc-per-node", "2", "--module", "ranks"]


def start_launcher(command: list[str], tmp_path: Path) -> subprocess.Popen[str]:
    paths = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    env = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(tmp_path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def run_launcher(command: list[str], tmp_path: Path) -> tuple[int, str, str]:
    """Runs the launcher to its end; its exit code, stdout and stderr."""
    process = start_launcher(command, tmp_path)
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


def test_output_of_rank_0_is_shown_and_overrides_arrive_verbatim(launcher: list[str], tmp_path: Path) -> None:
    assert run_launcher([*launcher, "--", "ok", "+a={x: 1}"], tmp_path) == (0, "rank 0 ok +a={x: 1}\n", "")
    assert not list(tmp_path.glob("recd_*"))


def test_output_of_rank_0_is_shown_on_whichever_host_it_is(launcher: list[str], tmp_path: Path) -> None:
    """torch sorts hosts by name and process id: here the second host, which begins first, has rank 0 and rank 1."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    hosts = [*launcher, "--nnodes", "2", "--rdzv-endpoint", endpoint]
    second, first = (start_launcher([*hosts, "--node", node, "--", "ok"], tmp_path) for node in ("1", "0"))
    shown = [host.communicate(timeout=LIMIT_S) for host in (first, second)]
    assert shown == [("", ""), ("rank 0 ok\n", "")]


def test_user_error_of_one_rank_is_the_only_line(launcher: list[str], tmp_path: Path) -> None:
    code, _, err = run_launcher([*launcher, "--", "data"], tmp_path)
    assert (code, err) == (2, "recd: error: part-0.parquet: column clicked: NaN\n")


def test_bug_of_one_rank_shows_one_traceback(launcher: list[str], tmp_path: Path) -> None:
    code, _, err = run_launcher([*launcher, "--", "bug"], tmp_path)
    assert code == 1
    assert err.count("Traceback") == 1
    assert err.endswith("KeyError: 'k'\n")


def test_killed_rank_ends_the_job_with_one_line(launcher: list[str], tmp_path: Path) -> None:
    code, _, err = run_launcher([*launcher, "--", "kill"], tmp_path)
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("recd: rank 1 was killed by SIGKILL (out of memory?); the same command goes on")


def test_killed_rank_restarts_all_ranks(launcher: list[str], tmp_path: Path) -> None:
    code, out, err = run_launcher([*launcher, "--max-restarts", "1", "--", "once"], tmp_path)
    assert (code, out) == (0, "rank 0 once\nrank 0 once\n")
    assert err == (
        "recd: rank 1 was killed by SIGKILL (out of memory?); all ranks start again, from the newest checkpoint where "
        "there is one (restarts left: 0)\n"
    )


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_no_rank_outlives_the_launcher(launcher: list[str], tmp_path: Path, sent: signal.Signals) -> None:
    process = start_launcher([*launcher, "--", "sleep"], tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "rank 0 sleep\n"
    time.sleep(0.5)  # both ranks are past their first lines
    process.send_signal(sent)
    _, said = process.communicate(timeout=LIMIT_S)  # returns when rank 0, which holds the pipes open, has ended
    if sent == signal.SIGTERM:
        assert said == f"recd: stopped by SIGTERM; {GO_ON}\n"
    assert process.returncode == (143 if sent == signal.SIGTERM else -signal.SIGKILL)


def test_ranks_that_have_saved_say_so_in_one_line(launcher: list[str], tmp_path: Path) -> None:
    process = start_launcher([*launcher, "--", "stop"], tmp_path)
    assert process.stdout is not None
    assert [process.stdout.readline(), process.stdout.readline()] == ["rank 0 stop\n", "ready\n"]
    time.sleep(0.5)  # rank 1 is ready too
    process.terminate()
    _, said = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, said) == (
        143,
        "recd: stopped by SIGTERM after step 7; the same command goes on from c\n",
    )


def test_failed_check_starts_no_rank(launcher: list[str], tmp_path: Path) -> None:
    assert run_launcher([*launcher, "--", "bad"], tmp_path) == (1, "", "recd: error: no such table\n")


def test_one_host_listens_on_loopback_only(launcher: list[str], tmp_path: Path) -> None:
    code, out, err = run_launcher([*launcher, "--", "listen"], tmp_path)
    addresses = [line.split()[1] for line in out.splitlines() if line.startswith("listens")]
    assert (code, err) == (0, "")
    assert addresses  # gloo and the store
    assert set(addresses) == {"0100007F"}  # 127.0.0.1, little endian


def test_the_port_of_rank_0_is_kept_until_it_listens(launcher: list[str], tmp_path: Path) -> None:
    """On a busy host, another program would get the port between the launcher's choice and the start of rank 0."""
    code, out, err = run_launcher([*launcher, "--", "listen"], tmp_path)
    assert (code, err) == (0, "")
    assert "port Address already in use\n" in out
    with held_port() as port, socket.socket() as other:
        for _ in range(2):  # also after a restart
            socket.create_server(("127.0.0.1", port)).close()
        with pytest.raises(OSError, match="Address already in use"):
            other.bind(("127.0.0.1", port))


def test_environment_keeps_what_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert rank_environment(1, 2)["OMP_NUM_THREADS"] == "7"
    assert rank_environment(1, 2)["GLOO_SOCKET_IFNAME"] == "lo"
    assert "GLOO_SOCKET_IFNAME" not in rank_environment(2, 2)
    assert rank_environment(4, 8)["RECD_WORLD_SIZE"] == "32"


def test_a_foreign_program_at_the_place_to_meet_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launching, "Timeouts", lambda: Timeouts(store_s=6.0))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(launching, "PREFLIGHT", "stat")  # Python's own module: it checks nothing
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        options = ["--nnodes", "2", "--rdzv-endpoint", f"localhost:{port}", "--module", "ranks", "--", "ok"]
        assert launching.main(options) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"recd: error: localhost:{port}: another program listens on this port; choose another")
    assert said.count("\n") == 1


def test_a_store_of_torch_or_nothing_at_the_place_to_meet_is_right() -> None:
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    launching.require_free_port(f"127.0.0.1:{store.port}", 20.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    launching.require_free_port(f"127.0.0.1:{port}", 20.0)
    launching.require_free_port("192.0.2.1:29500", 20.0)  # not this host's address


def test_several_hosts_need_a_place_to_meet(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--nnodes", "1:2", "--", "a=1"])
    assert "several hosts need --rdzv-endpoint host:port" in capsys.readouterr().err
    options = parse_arguments(["--nnodes", "1:2", "--rdzv-endpoint", "h:1", "--", "a=1"])
    assert (options.min_nodes, options.max_nodes, options.overrides) == (1, 2, ["a=1"])


@pytest.mark.parametrize(("code", "node"), [(0, 0), (1, 0), (0, 1)])
def test_host_0_leaves_a_file_when_the_job_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, node: int
) -> None:
    """A board that belongs to the job waits for it."""
    ended = tmp_path / "logs" / "ended-7"
    ended.parent.mkdir()
    ended.touch()  # of an attempt before

    def launch(*_: object) -> int:
        assert ended.exists() == (node == 1)
        ended.unlink(missing_ok=True)
        return code

    monkeypatch.setattr(launching, "launch", launch)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert launching.main(["--checked", "--node", str(node), "--ended", str(ended)]) == code
    assert ended.exists() == (node == 0)
