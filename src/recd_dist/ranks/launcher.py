"""Start the ranks of one host and, when one fails, say why in one place: torchrun without its walls of text.

    python -m recd_dist.ranks.launcher --nproc-per-node 2 -- data=tiny max_steps=100

1. ``recd_dist.job.preflight`` checks config and data in a light process while this one imports torch (1.2 s).
2. torch's elastic agent starts the ranks (``recd_dist.ranks.rank``) and restarts all of them when one dies.
3. Rank 0 writes to the console, the others to files. Of a failure, one error is printed: that of the rank that
   failed first, not those of the ranks that then lost their peer.

One host: the agent meets its ranks through a file and gloo and NCCL use the loopback device, so that nothing listens
on the network. Exit codes: 0 done, 2 an error that the user can mend, 128 + n stopped by signal n, otherwise 1.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from recd_dist.ranks.quiet import quiet_libraries
from recd_dist.ranks.rank import USER_ERROR, Failure

PREFLIGHT = "recd_dist.job.preflight"
TRAINING = "recd_dist.train.training"
AGENT_LOGGER = "torch.distributed.elastic.agent.server.api"


def root_cause(failures: Sequence[Failure]) -> Failure:
    """The failure that the others follow from: a user's error, else one that is no lost peer, else the earliest."""
    return min(failures, key=lambda failure: (not failure.user, failure.lost_peer, failure.time_s, failure.rank))


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the launcher's own options; what follows ``--`` is left for the ranks.

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
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, after --")
    options = parser.parse_args(argv)
    options.min_nodes, _, last = options.nnodes.partition(":")
    options.min_nodes, options.max_nodes = int(options.min_nodes), int(last or options.min_nodes)
    if options.max_nodes > 1 and not options.rdzv_endpoint:
        parser.error("several hosts need --rdzv-endpoint host:port")
    return options


def rank_environment(num_nodes: int, num_ranks_per_node: int) -> dict[str, str]:
    """Environment variables of the ranks; what the user has set stays.

    Args:
        num_nodes: hosts of the job.
        num_ranks_per_node: ranks on each.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = {
        "RECD_WORLD_SIZE": str(num_nodes * num_ranks_per_node),  # for preflight, which sees no process group
        "OMP_NUM_THREADS": str(max(1, cores // num_ranks_per_node)),
        # A store shared across attempts keeps dead ranks' addresses: 3 of 9 restarts worked with it, 9 of 9 without.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",
        # glibc hands large blocks back and page-faults them in again, every step: an expanded batch of rm1 took 1.35
        # times as long so, on unique rows hardly more. Freed memory stays with the process instead.
        "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
        "MALLOC_TOP_PAD_": str(256 << 20),
    }
    if num_nodes == 1:
        wanted |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


class _Restarts(logging.Handler):
    """Turns the agent's log line on a restart into one the user can read."""

    def emit(self, record: logging.LogRecord) -> None:
        if "attempts left" in str(record.msg):
            _say("a rank ended; all ranks start again from the last checkpoint")


def _say(text: str) -> None:
    sys.stderr.write(f"recd: {text}\n")
    sys.stderr.flush()


def _announce_restarts() -> None:
    """Of all that torch's agent logs, only its restarts reach the screen."""
    quiet_libraries(logging.CRITICAL)
    agent = logging.getLogger(AGENT_LOGGER)
    agent.setLevel(logging.INFO)
    agent.propagate = False
    agent.addHandler(_Restarts())


@contextmanager
def _log_directory(node: int) -> Iterator[Path]:
    """A new directory for ranks other than 0: in the run directory's logs/ if it is named, else gone at the end."""
    run = os.environ.get("RECD_RUN_DIR")
    if run:
        Path(run, "logs").mkdir(parents=True, exist_ok=True)
        yield Path(tempfile.mkdtemp(prefix=time.strftime(f"%Y%m%d_%H%M%S_node{node}_"), dir=Path(run, "logs")))
        return
    with tempfile.TemporaryDirectory(prefix="recd_", ignore_cleanup_errors=True) as path:
        yield Path(path)


def read_failures(directory: Path, exit_codes: Mapping[int, int]) -> list[Failure]:
    """What the ranks of this host wrote before they ended, and what ended those that wrote nothing.

    Args:
        directory: the launcher's log directory; ranks of attempt n write ``*/attempt_n/<local rank>/error.json``.
        exit_codes: rank -> exit code of the ranks that the agent found dead, negative for a signal.
    """
    attempts = sorted(directory.glob("*/attempt_*"), key=lambda path: int(path.name.rpartition("_")[2]))
    failures = [Failure.read(path) for path in attempts[-1].glob("*/error.json")] if attempts else []
    told = {failure.rank for failure in failures}
    for rank, code in exit_codes.items():
        if rank not in told:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            message = f"rank {rank} {how}{hint}; the same command resumes from the last checkpoint"
            # SIGTERM comes from the agent, to those that are left.
            failures.append(Failure(rank, message, lost_peer=code == -signal.SIGTERM))
    return failures


def launch(options: argparse.Namespace, log_directory: Path) -> int:
    """Run the ranks of this host to their end.

    Args:
        options: as ``arguments`` gives them.
        log_directory: for the output of ranks other than 0 and the errors of all.

    Returns:
        The exit code.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, launch_agent

    _announce_restarts()
    one_host = options.max_nodes == 1
    silent = range(0 if options.node else 1, options.nproc_per_node)
    rendezvous_file = log_directory / f"rendezvous_{os.getpid()}"
    config = LaunchConfig(
        min_nodes=options.min_nodes,
        max_nodes=options.max_nodes,
        nproc_per_node=options.nproc_per_node,
        run_id=options.rdzv_id,
        rdzv_backend="c10d",
        rdzv_endpoint=str(rendezvous_file) if one_host else options.rdzv_endpoint,
        rdzv_configs={"store_type": "file"} if one_host else {},
        local_addr="127.0.0.1" if one_host else None,
        max_restarts=options.max_restarts,
        logs_specs=DefaultLogsSpecs(log_dir=str(log_directory), redirects=dict.fromkeys(silent, Std.ALL)),
    )
    command = ["-m", "recd_dist.ranks.rank", options.module, *options.overrides]
    try:
        launch_agent(config, sys.executable, command)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        cause = root_cause(read_failures(log_directory, codes))
        _say(f"error: {cause.message}" if cause.user else cause.message)
        return USER_ERROR if cause.user else 1
    except SignalException as error:
        _say(f"stopped by {error.sigval.name}; the same command resumes from the last checkpoint")
        return 128 + error.sigval
    except RendezvousError as error:
        _say(f"error: the hosts did not meet at {options.rdzv_endpoint}: {error}")
        return 1
    finally:
        rendezvous_file.unlink(missing_ok=True)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Check config and data on host 0, then run the ranks of this host.

    Args:
        argv: the command line without the program's name; that of the process by default.

    Returns:
        The exit code.
    """
    options = arguments(sys.argv[1:] if argv is None else argv)
    os.environ.update(rank_environment(options.max_nodes, options.nproc_per_node))
    if options.node == 0:
        with subprocess.Popen([sys.executable, "-m", PREFLIGHT, *options.overrides]) as preflight:
            import torch.distributed.launcher.api  # noqa: F401  (in the shadow of the check)

            code = preflight.wait()
        if code:
            return code
    with _log_directory(options.node) as log_directory:
        return launch(options, log_directory)


if __name__ == "__main__":
    sys.exit(main())
