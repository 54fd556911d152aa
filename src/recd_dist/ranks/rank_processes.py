"""The processes of a host's ranks, for torch's elastic agent: forked by the server where that can be, else new ones."""

import os
import signal
from contextlib import suppress
from typing import Any, cast

from torch.distributed.elastic.multiprocessing.api import SubprocessContext
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

from recd_dist.ranks.forked_ranks import ForkedRank, RankServer


class _Handler:
    """What torch's agent holds of a rank."""

    def __init__(self, proc: ForkedRank, local_rank: int) -> None:
        self.proc, self.local_rank_id = proc, local_rank

    def close(self, death_sig: signal.Signals | None = None) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.proc.pid, death_sig or signal.SIGTERM)


class RankProcesses(SubprocessContext):
    """The ranks of one attempt on this host.

    Args:
        server: what forks them; None starts a new process for each.
        end_s: seconds that the others have to end after one has failed.
        context: the arguments of torch's context, by name.
    """

    def __init__(self, server: RankServer | None, end_s: float, **context: Any) -> None:
        super().__init__(**context)
        self._server, self._end_s = server, end_s

    def _start(self) -> None:
        if self._server is None:
            super()._start()  # type: ignore[no-untyped-call]
            return
        self.subprocess_handlers = {}
        for local_rank in range(self.nprocs):
            args = [str(arg) for arg in self.args[local_rank]][2:]  # without -m and the module of a rank
            env = {**os.environ, **self.envs[local_rank]}
            rank = self._server.fork(args, env, self.stdouts[local_rank] or None, self.stderrs[local_rank] or None)
            self.subprocess_handlers[local_rank] = cast(SubprocessHandler, _Handler(rank, local_rank))

    def close(self, death_sig: signal.Signals | None = None, timeout: float | None = None) -> None:
        """Ends the ranks that still run.

        Args:
            death_sig: what asks them to; SIGTERM by default.
            timeout: seconds until SIGKILL; ``end_s`` by default: a rank that lost another one has nothing to save.
        """
        # torch waits for that time once more after SIGKILL, for a process that the kernel does not let go.
        super().close(death_sig or signal.SIGTERM, max(1, round(self._end_s if timeout is None else timeout)))

    def kill(self) -> None:
        """SIGKILL for every rank: one of them hangs, and the others wait for it."""
        for handler in self.subprocess_handlers.values():
            if handler.proc.poll() is None:
                handler.close(death_sig=signal.SIGKILL)
