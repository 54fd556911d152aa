"""Starts the ranks of one host; when a rank fails, prints one error instead of all.

    python -m recd_dist.ranks.launcher --nproc-per-node 2 -- data=tiny max_steps=100

1. ``recd_dist.job.preflight`` checks config and data in a light process, while this one imports torch (1.2 s) and a
   third one what the ranks need (``recd_dist.ranks.rank_server``).
2. torch's elastic agent starts the ranks (``recd_dist.ranks.rank``), and restarts all of them when one dies or hangs
   (``recd_dist.ranks.agent``).
3. Rank 0 writes to the console, the other ranks write to files. When the job fails, the launcher prints the error of
   the rank that failed first, and not those of the ranks that failed because a peer had ended.

With one host, the agent and its ranks meet through a file, and gloo and NCCL use the loopback device, so that nothing
listens on the network. The exit code is 0 when the job is done, 2 for an error that the user can mend, 128 + n when
signal n stopped the job, and 1 otherwise.
"""

import argparse
import errno
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recd_dist.errors import ConfigError
from recd_dist.ranks.failures import USER_ERROR, read_failures, root_cause
from recd_dist.ranks.forked_ranks import RankServer, open_server
from recd_dist.ranks.health.host_checks import needs_of, refusal
from recd_dist.ranks.health.machine_share import usable_cores
from recd_dist.ranks.quiet import quiet_libraries
from recd_dist.ranks.timeouts import GRACE_S, TIMEOUTS_FILE, Timeouts

PREFLIGHT = "recd_dist.job.preflight"
TRAINING = "recd_dist.train.training"
REFUSAL = "recd_dist.ranks.health.refuse"
GO_ON = "the same command goes on from the newest checkpoint, or begins where there is none yet"
_ASK_STORE = "import sys; from torch.distributed import TCPStore; TCPStore(sys.argv[1], int(sys.argv[2]))"


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the launcher's own options; what follows ``--`` is for the ranks.

    Args:
        argv: the command line without the program's name.
    """
    parser = argparse.ArgumentParser(prog="recd_dist.ranks.launcher", description="Start training ranks on this host.")
    parser.add_argument("--nproc-per-node", type=int, default=1, help="ranks on this host")
    parser.add_argument("--nnodes", default="1", help="hosts, or min:max for an elastic job")
    parser.add_argument("--node", type=int, default=0, help="this host's number; host 0 checks config and data")
    parser.add_argument("--rdzv-endpoint", default="", help="host:port of the rendezvous, for several hosts")
    parser.add_argument("--rdzv-id", default="recd", help="the job's name at the rendezvous")
    parser.add_argument("--max-restarts", type=int, default=0, help="restarts of all ranks after one dies")
    parser.add_argument("--module", default=TRAINING, help="module whose main(overrides) each rank runs")
    parser.add_argument("--checked", action="store_true", help="start at once; the ranks check the job themselves")
    parser.add_argument("--ended", default="", help="file that host 0 writes when the job has ended")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, after --")
    options = parser.parse_args(argv)
    options.min_nodes, _, last = options.nnodes.partition(":")
    options.min_nodes, options.max_nodes = int(options.min_nodes), int(last or options.min_nodes)
    if options.max_nodes > 1 and not options.rdzv_endpoint:
        parser.error("several hosts need --rdzv-endpoint host:port")
    return options


def rank_environment(num_nodes: int, num_ranks_per_node: int) -> dict[str, str]:
    """The environment variables of the ranks, except that a variable that the user has set keeps its value.

    Args:
        num_nodes: the number of hosts in the job.
        num_ranks_per_node: the number of ranks on each host.
    """
    defaults = {
        "RECD_WORLD_SIZE": str(num_nodes * num_ranks_per_node),  # for preflight, which has no process group
        "OMP_NUM_THREADS": str(max(1, usable_cores() // num_ranks_per_node)),
        # A store that attempts share keeps the addresses of dead ranks: 3 of 9 restarts worked with it, 9 of 9 without.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",
        "PYTHONSAFEPATH": "1",  # a yaml.py or hydra_plugins/ in the working directory is not imported
        # By default glibc returns large blocks to the kernel, and every step pays for page faults when it asks for them
        # again: an expanded batch of rm1 took 1.35 times as long, unique rows hardly longer. With these values the
        # process keeps freed memory.
        "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
        "MALLOC_TOP_PAD_": str(256 << 20),
    }
    if num_nodes == 1:
        defaults |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return {name: os.environ.get(name, value) for name, value in defaults.items()}


def _write_line(text: str) -> None:
    sys.stderr.write(f"recd: {text}\n")
    sys.stderr.flush()


@contextmanager
def _log_directory(node: int) -> Iterator[Path]:
    """Makes a directory for the logs of this host's ranks.

    It lies in the logs/ of RECD_RUN_DIR where that is set; otherwise it is temporary, and removed at the end.
    """
    run = os.environ.get("RECD_RUN_DIR")
    if run:
        Path(run, "logs").mkdir(parents=True, exist_ok=True)
        yield Path(tempfile.mkdtemp(prefix=time.strftime(f"%Y%m%d_%H%M%S_node{node}_"), dir=Path(run, "logs")))
        return
    with tempfile.TemporaryDirectory(prefix="recd_", ignore_cleanup_errors=True) as path:
        yield Path(path)


def require_free_port(endpoint: str, store_s: float) -> None:
    """Refuses a place to meet that a foreign program holds on this host: ranks would wait for its answer for ever.

    Args:
        endpoint: host:port of the rendezvous.
        store_s: how long a store of torch may take to answer.

    Raises:
        ConfigError: another program listens there. A store of torch is none: another host of the job was faster.
    """
    host, _, port = endpoint.rpartition(":")
    if not port.isdigit():
        return
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:  # another host's address, or a name that the agent will not find either
            return
        ask = [sys.executable, "-c", _ASK_STORE, host.strip("[]"), port]
        with suppress(subprocess.TimeoutExpired):
            if subprocess.run(ask, capture_output=True, timeout=store_s, check=False).returncode == 0:
                return
        raise ConfigError(
            f"{endpoint}: another program listens on this port; choose another for all hosts: --rdzv_port of the "
            "TorchX component, --rdzv-endpoint of the launcher"
        ) from error


def launch(
    options: argparse.Namespace, log_directory: Path, timeouts: Timeouts, grace_s: float, server: RankServer | None
) -> int:
    """Runs the ranks of this host until they end.

    Args:
        options: the options that ``parse_arguments`` returns.
        log_directory: the directory for the output of ranks other than rank 0, and for the errors of all ranks.
        timeouts: of the job.
        grace_s: what the ranks have after SIGTERM, to write a checkpoint.
        server: what forks the ranks; None starts a new process for each.

    Returns:
        The exit code.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    from recd_dist.ranks.agent import LostStore
    from recd_dist.ranks.host_ranks import HostRanks

    quiet_libraries(logging.CRITICAL)
    host = HostRanks(options, log_directory, timeouts, grace_s, server, _write_line)
    while True:
        try:
            cause = host.run()
        except SignalException as error:
            said = [failure for failure in read_failures(log_directory, {}) if failure.stopped]
            _write_line(root_cause(said).message if said else f"stopped by {error.sigval.name}; {GO_ON}")
            return 128 + error.sigval
        except (LostStore, RendezvousError) as error:
            if isinstance(error, LostStore) and host.rejoin():
                continue
            _write_line(f"error: {host.explain(error)}")
            return 1
        if cause is None:
            return 0
        where = host.where(cause)
        go_on = "" if "\n" in cause.message or cause.user or cause.stopped else f"; {GO_ON}"
        _write_line(f"error: {cause.message}" if cause.user else f"{where}{cause.message}{go_on}")
        return cause.exit_code


def _check(options: argparse.Namespace) -> tuple[int, Timeouts, float]:
    """Checks config and data in a light process, while this one imports torch; 0, the timeouts and the grace time."""
    with tempfile.TemporaryDirectory(prefix="recd_") as directory:
        told = Path(directory, "timeouts.json")
        environment = {**os.environ, TIMEOUTS_FILE: str(told)}
        with subprocess.Popen([sys.executable, "-m", PREFLIGHT, *options.overrides], env=environment) as preflight:
            import torch.distributed.launcher.api  # noqa: F401  (takes 1.2 s, while the check runs)

            code = preflight.wait()
        found: dict[str, Any] = {"timeouts": {}, "grace_s": GRACE_S}
        if told.exists():
            found = json.loads(told.read_text())
        return code, Timeouts(**found["timeouts"]), found["grace_s"]


def main(argv: Sequence[str] | None = None) -> int:
    """Checks config and data, then runs the ranks of this host.

    Args:
        argv: the command line without the program's name; this process's command line when absent.

    Returns:
        The exit code.
    """
    options = parse_arguments(sys.argv[1:] if argv is None else argv)
    if options.node or not options.ended:
        return _run_host(options)
    ended = Path(options.ended)
    ended.unlink(missing_ok=True)
    try:
        return _run_host(options)
    finally:
        ended.parent.mkdir(parents=True, exist_ok=True)
        ended.touch()


def _run_host(options: argparse.Namespace) -> int:
    """Checks the job where this is host 0, then runs the ranks."""
    os.environ.update(rank_environment(options.max_nodes, options.nproc_per_node))
    if refused := refusal(needs_of(options.nproc_per_node, options.max_nodes, options.overrides)):
        if options.max_nodes == 1:
            _write_line(f"error: {refused}")
            return USER_ERROR
        # The other hosts wait for this one: it meets them, and its ranks say why they cannot run.
        options.checked, options.module, options.overrides = True, REFUSAL, [refused]
    with open_server(options.module) as server:
        code, timeouts, grace_s = (0, Timeouts(), GRACE_S) if options.checked else _check(options)
        if code:
            return code
        try:
            if options.node == 0 and not options.checked and options.max_nodes > 1:
                require_free_port(options.rdzv_endpoint, timeouts.store_s)
        except ConfigError as error:
            _write_line(f"error: {error}")
            return USER_ERROR
        with _log_directory(options.node) as log_directory:
            return launch(options, log_directory, timeouts, grace_s, server)


if __name__ == "__main__":
    sys.exit(main())
