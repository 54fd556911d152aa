"""The ranks of one host in torch's elastic agent, from the meeting of the hosts to the end of the job."""

import argparse
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.rendezvous import RendezvousParameters, registry
from torch.distributed.elastic.rendezvous.api import RendezvousClosedError, RendezvousConnectionError, RendezvousError

from recd_dist.ranks.agent import Agent, LostStore
from recd_dist.ranks.elastic_patches import meet_quickly
from recd_dist.ranks.failures import Failure
from recd_dist.ranks.forked_ranks import RankServer
from recd_dist.ranks.links import LinkThread
from recd_dist.ranks.timeouts import Timeouts

MONITOR_S = 0.1
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT"


@contextmanager
def held_port() -> Iterator[int | None]:
    """Keeps a free port of the loopback device for rank 0, which listens there only after it has started.

    torch would look for a free port and let go of it: on a busy host another program gets it before rank 0 does. The
    socket here is bound and never listens. Linux gives its port to nobody who asks for any free port, and to no
    outgoing connection; rank 0, which asks for this port, may listen there, since both sockets allow reuse.

    Yields:
        The port; None on other systems, where torch chooses.
    """
    if sys.platform != "linux":
        yield None
        return
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


class HostRanks:
    """Runs the ranks of this host; when the first host is lost, it can meet the others again.

    Args:
        options: the launcher's.
        log_directory: for output and errors of the ranks.
        timeouts: of the job.
        grace_s: what the ranks have after SIGTERM, to write a checkpoint.
        server: what forks ranks; None starts new processes.
        tell: writes a line for the user.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        log_directory: Path,
        timeouts: Timeouts,
        grace_s: float,
        server: RankServer | None,
        tell: Callable[[str], None],
    ) -> None:
        self._options, self._logs, self._timeouts, self._grace_s = options, log_directory, timeouts, grace_s
        self._server, self._tell = server, tell
        self._one_host = options.max_nodes == 1
        self._num_restarts = options.max_restarts
        self._agent: Agent | None = None
        self._links = LinkThread(timeouts.link_s)
        if not self._one_host:
            self._links.start()
        os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = SIGNALS

    def run(self) -> Failure | None:
        """Meets the other hosts and runs the ranks, with restarts.

        Returns:
            None when the job is done, else the failure that ended it.

        Raises:
            LostStore: the first host does not answer any more.
            RendezvousError: the hosts did not meet.
            SignalException: a signal stopped this launcher, and the ranks with it.
        """
        told_in = Path(tempfile.mkdtemp(prefix="recd_progress_"))
        rendezvous_file = self._logs / f"rendezvous_{os.getpid()}"
        handler = None
        try:
            handler = registry.get_rendezvous_handler(self._parameters(rendezvous_file))
            meet_quickly(handler, self._options.max_nodes)
            with held_port() if self._one_host else nullcontext() as port:
                self._agent = self._new_agent(handler, told_in, port)
                result = self._agent.run()
        except RendezvousConnectionError as error:
            raise LostStore(str(error)) from error
        except SignalException:
            handler = None  # closed, it would keep this host from coming back
            raise
        finally:
            if handler is not None:
                with suppress(RendezvousError, RuntimeError):
                    handler.shutdown()
            rendezvous_file.unlink(missing_ok=True)
            shutil.rmtree(told_in, ignore_errors=True)
        if not result.is_failed():
            return None
        return self._agent.cause

    def _parameters(self, rendezvous_file: Path) -> RendezvousParameters:
        timeouts, options = self._timeouts, self._options
        where: dict[str, Any] = {"endpoint": str(rendezvous_file), "local_addr": "127.0.0.1", "store_type": "file"}
        if not self._one_host:
            where = {"endpoint": options.rdzv_endpoint}
        return RendezvousParameters(
            backend="c10d",
            run_id=options.rdzv_id,
            min_nodes=options.min_nodes,
            max_nodes=options.max_nodes,
            join_timeout=round(timeouts.join_s),
            last_call_timeout=round(timeouts.more_s),
            read_timeout=round(timeouts.store_s),
            keep_alive_interval=max(1, round(timeouts.host_s / 3)),
            keep_alive_max_attempt=3,
            **where,
        )

    def _new_agent(self, handler: Any, told_in: Path, port: int | None) -> Agent:
        options = self._options
        spec = WorkerSpec(
            role="recd",
            local_world_size=options.nproc_per_node,
            entrypoint=sys.executable,
            args=("-m", "recd_dist.ranks.rank", options.module, *options.overrides),
            rdzv_handler=handler,
            max_restarts=self._num_restarts,
            monitor_interval=MONITOR_S,
            local_addr="127.0.0.1" if self._one_host else None,
            master_port=port,
        )
        silent = range(1, options.nproc_per_node)  # torch may put rank 0 on any host: rank.be_silent sees to the first
        logs = DefaultLogsSpecs(log_dir=str(self._logs), redirects=dict.fromkeys(silent, Std.ALL))
        job = (self._timeouts, self._grace_s, self._logs, told_in, self._server, options.max_nodes)
        return Agent(spec, logs, *job, self._links.cut, self._tell)

    def rejoin(self) -> bool:
        """Whether to meet the other hosts again after the first one was lost; says so."""
        if self._agent is not None:
            self._num_restarts = self._agent.num_restarts_left
        if self._one_host or self._num_restarts < 1:
            return False
        self._num_restarts -= 1
        self._tell(
            f"the host of {self._options.rdzv_endpoint} does not answer: it died, or the link to it was cut; waiting "
            f"up to {self._timeouts.join_s:g} s for it, then all ranks start again from the newest checkpoint "
            f"(restarts left: {self._num_restarts})"
        )
        return True

    def explain(self, error: Exception) -> str:
        """Why the job ends without a failure of its ranks, in one line."""
        where = self._options.rdzv_endpoint
        if isinstance(error, RendezvousClosedError):
            name = self._options.rdzv_id
            return f"the job has ended on another host, which says why; a new job needs another --rdzv-id than {name}"
        if isinstance(error, LostStore):
            return f"the host of {where} does not answer: it died, or the link to it was cut ({error})"
        return f"the hosts did not meet at {where} within {self._timeouts.join_s:g} s: {error}"

    def where(self, failure: Failure) -> str:
        """Leads a message about a failure in a job of several hosts."""
        return self._agent.where(failure) if self._agent is not None else ""
