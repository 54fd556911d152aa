"""A Slurm of its own on this machine: two nodes, accounting, two partitions of which one preempts the other.

Its daemons are child processes that run in a directory of theirs, on ports that are free, and end with the test. Nodes
are named by addresses of the loopback device, so that they are found without a line in a hosts file.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

NODES = ("127.0.0.2", "127.0.0.3")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
ACCOUNTING = ("slurmdbd", "sacct", "sacctmgr", "mariadbd", "mariadb-install-db")
PACKAGES = "apt-get install --no-install-recommends slurmd slurmctld slurm-client munge"
PACKAGES_OF_ACCOUNTING = "apt-get install --no-install-recommends slurmdbd mariadb-server"
SECONDS_TO_START = 30

SLURM_CONF = """\
ClusterName=recdtest
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={dir}/munge.sock,cred_expire=5
CredType=cred/munge
SlurmctldPidFile={dir}/slurmctld.pid
SlurmctldLogFile={dir}/slurmctld.log
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool-%n
SlurmdPidFile={dir}/slurmd-%n.pid
SlurmdLogFile={dir}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
MinJobAge=600
{accounting}
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=30 MaxTime=60 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=60 State=UP
"""
SLURMDBD_CONF = """\
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser={user}
AuthType=auth/munge
AuthInfo=socket={dir}/munge.sock
PidFile={dir}/slurmdbd.pid
LogFile={dir}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
"""


def missing_programs(*, accounting: bool = False) -> list[str]:
    """The programs that a Slurm needs and this machine lacks."""
    return [p for p in (*PROGRAMS, *(ACCOUNTING if accounting else ())) if find(p) is None]


def find(program: str) -> str | None:
    """The path of a program; daemons lie where a user's PATH may not lead."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def free_ports(number: int) -> list[int]:
    """Ports of the loopback device that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class PrivateSlurm:
    """A Slurm that runs while the context is open.

    Args:
        directory: where keys, logs and states lie; a short path, for it holds sockets.
        accounting: also run slurmdbd over a database of its own, so that ``sacct`` knows jobs that have ended.

    Attributes:
        env: the environment in which Slurm's commands find it.
    """

    def __init__(self, directory: Path, *, accounting: bool = False) -> None:
        self.directory = directory
        self.accounting = accounting
        self.env = dict(os.environ, SLURM_CONF=str(directory / "slurm.conf"))
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "PrivateSlurm":
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            subprocess.run(["scancel", "--user", _user()], env=self.env, check=False, timeout=10, capture_output=True)
            self.wait_until(lambda: not self.run("squeue", "--noheader"), "jobs to end")
        self._stop()

    def run(self, *command: str, **options: object) -> str:
        """What a command says; a failure is an error that shows what it said."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return str(done.stdout).strip()

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = SECONDS_TO_START) -> None:
        """Waits; says what it waited for where that did not come."""
        end_s = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end_s:
                logs = "\n".join(path.read_text()[-2000:] for path in sorted(self.directory.glob("*.log")))
                raise TimeoutError(f"waited {seconds} s for {what}\n{logs}")
            time.sleep(0.1)

    def _start(self) -> None:
        ctld, dbd, database, *nodes = free_ports(3 + len(NODES))
        names = {"host": socket.gethostname().partition(".")[0], "user": _user(), "dir": self.directory}
        (self.directory / "state").mkdir()
        key = self.directory / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        files = {name: f"{self.directory}/munge.{name}" for name in ("pid", "log", "seed")}
        munge = [f"--{name}-file={path}" for name, path in files.items()]
        self._daemon("munged", "-F", "--force", f"--key-file={key}", f"--socket={self.directory}/munge.sock", *munge)
        self.wait_until((self.directory / "munge.sock").exists, "munged")
        accounting = "AccountingStorageType=accounting_storage/none"
        if self.accounting:
            self._start_accounting(database, SLURMDBD_CONF.format(**names, dbd=dbd, database=database, password="{}"))
            accounting = (
                "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
                f"AccountingStoragePort={dbd}\nAccountingStoragePass={self.directory}/munge.sock"
            )
        conf = SLURM_CONF.format(**names, ctld=ctld, accounting=accounting)
        conf += "".join(
            f"NodeName={name} NodeHostname={names['host']} NodeAddr={name} Port={port} CPUs=4 RealMemory=8000\n"
            for name, port in zip(NODES, nodes, strict=True)
        )
        (self.directory / "slurm.conf").write_text(conf)
        if self.accounting:
            self.wait_until(lambda: self._succeeds("sacctmgr", "--immediate", "add", "cluster", "recdtest"), "slurmdbd")
        self._daemon("slurmctld", "-D", "-i")
        for name in NODES:
            self._daemon("slurmd", "-D", "-N", name)
        idle = ["sinfo", "--noheader", "--partition=main", "--states=idle", "--format=%D"]
        self.wait_until(lambda: self._succeeds(*idle) == str(len(NODES)), "nodes")

    def _start_accounting(self, port: int, conf: str) -> None:
        data, password = self.directory / "db", secrets.token_hex(16)
        as_user = f"--user={_user()}"
        self.run("mariadb-install-db", "--no-defaults", f"--datadir={data}", as_user, "--skip-test-db")
        init = self.directory / "init.sql"
        init.write_text(
            f"CREATE USER slurm@'127.0.0.1' IDENTIFIED BY '{password}';"
            "\nGRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';\n"
        )
        options = [f"--datadir={data}", as_user, f"--port={port}", "--bind-address=127.0.0.1", f"--init-file={init}"]
        options += [f"--socket={self.directory}/db.sock", f"--pid-file={self.directory}/db.pid"]
        self._daemon("mariadbd", "--no-defaults", *options, f"--log-error={self.directory}/db.log")
        file = self.directory / "slurmdbd.conf"
        file.write_text(conf.replace("{}", password))
        file.chmod(0o600)
        self.wait_until((self.directory / "db.pid").exists, "mariadbd")
        self._daemon("slurmdbd", "-D")

    def _succeeds(self, *command: str) -> str | None:
        """What a command said, at least its name; None where it failed."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        return None if done.returncode else done.stdout.strip() or command[0]

    def _daemon(self, program: str, *arguments: str) -> None:
        command: Sequence[str] = [str(find(program)), *arguments]
        log = (self.directory / f"{program}-{len(self._daemons)}.out").open("wb")
        with log:
            self._daemons.append(subprocess.Popen(command, env=self.env, stdout=log, stderr=log))

    def _stop(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _user() -> str:
    import getpass

    return getpass.getuser()
