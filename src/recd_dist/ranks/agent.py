"""Torch's elastic agent, which starts the ranks of a host and restarts them, with what a service needs beside it.

1. It looks at the ranks once a second: one that hangs is killed, with the others, and all start again.
2. When ranks fail, the launchers of all hosts agree through the store on the failure that caused the others. Each of
   them writes one line that says who failed, where and why.
3. An error that the user can mend ends the job: a restart would only repeat it.
"""

import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from torch.distributed import DistError
from torch.distributed.elastic.agent.server import local_elastic_agent as upstream
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.multiprocessing import LogsSpecs
from torch.distributed.elastic.rendezvous.api import RendezvousConnectionError

from recd_dist.files.json_text import json_text
from recd_dist.ranks import progress
from recd_dist.ranks.elastic_patches import processes_from
from recd_dist.ranks.failures import Failure, read_failures, root_cause
from recd_dist.ranks.forked_ranks import RankServer
from recd_dist.ranks.hung import STEP, RankState, describe, find_hung
from recd_dist.ranks.process_state import STOPPED, CoreWaits, state_of
from recd_dist.ranks.rank_processes import RankProcesses
from recd_dist.ranks.timeouts import Timeouts

logger = logging.getLogger(__name__)

LOOK_S = 1.0
TELL_S = 2.0
"""How long the hosts wait for each other's word on a failure."""

NOTICE_S = 15.0
"""After so long a phase that is not the start is shown, and again whenever it has taken twice as long."""

_STATE, _FAILURE, _HEARD = "recd/state", "recd/failure", "recd/heard"
_PAUSE_S = 5.0
"""If the launcher itself was not running for so long, the machine was stopped: no rank is to blame."""


class LostStore(RuntimeError):
    """The store through which the hosts meet does not answer: its host died, or the link to it was cut."""


class Agent(upstream.LocalElasticAgent):
    """The agent of one host.

    Args:
        spec: torch's description of the ranks.
        logs_specs: where their output goes.
        timeouts: of the job.
        grace_s: what the ranks have after SIGTERM, to write a checkpoint.
        log_directory: where failures are written, by attempt and rank.
        progress_directory: a local directory for what the ranks tell.
        server: what forks the ranks; None starts a new process for each.
        max_hosts: most hosts of the job.
        cut: takes the addresses to which links are cut; cleared at each start.
        tell: writes a line for the user.

    Attributes:
        cause: the failure that ended the last attempt; None where none has.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        logs_specs: LogsSpecs,
        timeouts: Timeouts,
        grace_s: float,
        log_directory: Path,
        progress_directory: Path,
        server: RankServer | None,
        max_hosts: int,
        cut: list[str],
        tell: Callable[[str], None],
    ) -> None:
        super().__init__(spec, logs_specs, exit_barrier_timeout=timeouts.exit_s, shutdown_timeout=round(grace_s))
        self.cause: Failure | None = None
        self._timeouts, self._logs, self._told_in = timeouts, log_directory, progress_directory
        self._server, self._max_hosts, self._tell = server, max_hosts, tell
        self._host = socket.gethostname()
        self._looked_s, self._excused_s = time.monotonic(), 0.0
        self._core_waits = CoreWaits()
        self._waited_s = 0.0  # what ranks of this host have waited for a core
        self._phases: dict[int, tuple[float, float]] = {}  # rank: since, what had been waited by then
        self._hang: Failure | None = None
        self._grace_s, self._cut = grace_s, cut
        self._stopped_since: dict[int, float] = {}
        self._kept_until_s: dict[int, float] = {}  # process: when it was last stopped, or held by a debugger
        self._noticed: dict[int, tuple[float, float]] = {}  # rank: since, next notice after
        self._num_starts = 0

    @property
    def num_restarts_left(self) -> int:
        """How often the ranks may start again."""
        return int(self._remaining_restarts)

    # ---- what torch's agent calls

    def _invoke_run(self, role: str = "") -> RunResult:
        try:
            return super()._invoke_run(role)
        except (RendezvousConnectionError, DistError) as error:
            self._shutdown(timeout=round(self._timeouts.end_s))
            raise LostStore(str(error)) from error

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        self._num_starts += 1
        self._hang, self._looked_s = None, time.monotonic()
        self._cut.clear()
        self._stopped_since.clear()
        self._noticed.clear()
        self._phases.clear()
        with processes_from(self._start_processes):
            return super()._start_workers(worker_group)

    def _start_processes(self, *, envs: dict[int, dict[str, str]], **context: Any) -> RankProcesses:
        for local_rank, env in envs.items():
            env[progress.FILE] = str(self._progress_file(local_rank))
        wanted = ("name", "entrypoint", "args", "logs_specs", "log_line_prefixes", "numa_options")
        kept = {name: context[name] for name in wanted}
        processes = RankProcesses(self._server, self._timeouts.end_s, envs=envs, **kept)
        try:
            processes.start()
        except Exception:
            processes.close()
            raise
        return processes

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        if self._hang is None and time.monotonic() - self._looked_s >= LOOK_S and (hang := self._look()):
            self._hang = hang
            cast(RankProcesses, self._pcontext).kill()
        result = super()._monitor_workers(worker_group)
        if result.state == WorkerState.FAILED:
            self._conclude({rank: failure.exitcode for rank, failure in result.failures.items()})
        return result

    def _restart_workers(self, worker_group: WorkerGroup) -> None:
        if worker_group.state == WorkerState.HEALTHY:  # a host came or went: all ranks save before they start again
            self._tell("the number of hosts changes; all ranks save a checkpoint and start again")
            self._shutdown(timeout=round(self._grace_s))
        super()._restart_workers(worker_group)

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: int = 30) -> None:
        """SIGTERM alone makes ranks save. One that waits inside torch does not even see Ctrl-C: it soon ends, too."""
        if death_sig != signal.SIGTERM:
            timeout = min(timeout, round(self._timeouts.end_s))
        super()._shutdown(death_sig, timeout)

    def _stop_workers(self, worker_group: WorkerGroup) -> None:
        del worker_group
        self._shutdown(timeout=round(self._timeouts.end_s))

    # ---- hung ranks

    @property
    def _spans_hosts(self) -> bool:
        return self._max_hosts > 1

    def _progress_file(self, local_rank: int) -> Path:
        return self._told_in / f"{self._num_starts}-{local_rank}"

    def _look(self) -> Failure | None:
        """Looks at the ranks of this host; the failure of one that hangs, also of another host's that they wait for."""
        now_s = time.monotonic()
        if now_s - self._looked_s > _PAUSE_S:
            self._excused_s = now_s
        self._looked_s = now_s
        self._waited_s += self._core_waits.look([worker.id for worker in self._worker_group.workers])
        states = here = self._local_states(now_s)
        if stopped := [state for state in states if state.stopped_s > self._timeouts.stopped_s]:
            return self._failure_of(stopped)
        num_ranks = self._worker_group.workers[0].world_size
        if self._spans_hosts:
            if told := self._told_by_others():
                return told
            states = self._share(states)
        hung = find_hung(states, num_ranks)
        if not hung:
            self._notice(here, now_s)
            return None
        return self._failure_of(hung)

    def _told_by_others(self) -> Failure | None:
        """An error that the user must mend on another host: ranks that have not met it yet would wait for it."""
        group: Any = self._worker_group
        for number in range(group.group_world_size):
            if number != group.group_rank and group.store.check([f"{_FAILURE}/{number}"]):
                failure = Failure.parse(json.loads(group.store.get(f"{_FAILURE}/{number}"))[0])
                if failure.user:
                    return failure
        return None

    def _failure_of(self, hung: list[RankState]) -> Failure:
        first = hung[0]
        message, elsewhere = describe(hung, self._place_of(first)), first.host != self._host
        return Failure(first.rank, message, lost_peer=elsewhere, time_s=time.time(), host=first.host)

    def _local_states(self, now_s: float) -> list[RankState]:
        states = []
        for worker in self._worker_group.workers:
            kept = state_of(worker.id)
            if kept:
                self._kept_until_s[worker.id] = now_s
            if kept != STOPPED:
                self._stopped_since.pop(worker.id, None)
            stopped_s = self._stopped_for(worker.id, now_s) if kept == STOPPED else 0.0
            mark = progress.read_mark(self._progress_file(worker.local_rank))
            if mark is None and not stopped_s:
                continue
            mark = mark or progress.Mark(progress.START, now_s, self._timeouts.slow_s, 0, None)
            since_s = max(mark.since_s, self._excused_s, self._kept_until_s.get(worker.id, 0.0))
            for_s = now_s - since_s - self._waited_in(worker.global_rank, mark.since_s)
            state = (mark.phase, mark.step, for_s, mark.allowed_s, mark.num_begun, stopped_s)
            states.append(RankState(worker.global_rank, self._host, *state))
        return states

    def _stopped_for(self, pid: int, now_s: float) -> float:
        """How long a process that is stopped has been."""
        return now_s - max(self._stopped_since.setdefault(pid, now_s), self._excused_s)

    def _waited_in(self, rank: int, since_s: float) -> float:
        """What ranks of this host have waited for a core since a rank began its phase: a crowded host is slow."""
        if rank not in self._phases or self._phases[rank][0] != since_s:
            self._phases[rank] = since_s, self._waited_s
        return self._waited_s - self._phases[rank][1]

    def _share(self, states: list[RankState]) -> list[RankState]:
        """Leaves this host's states at the store; takes those of the others where a rank here takes too long."""
        group: Any = self._worker_group
        store = group.store
        store.set(f"{_STATE}/{group.group_rank}", json_text([state.to_json() for state in states], indent=None))
        if not any(state.is_over for state in states):
            return []
        keys = [f"{_STATE}/{number}" for number in range(group.group_world_size)]
        if not store.check(keys):
            return []
        return [RankState(**state) for text in store.multi_get(keys) for state in json.loads(text)]

    def _place_of(self, state: RankState) -> str:
        """The line of code in which a rank of this host is."""
        for worker in self._worker_group.workers:
            if worker.global_rank == state.rank and state.host == self._host:
                with suppress(ProcessLookupError):
                    os.kill(worker.id, progress.STACK_SIGNAL)
                    return progress.innermost_place(self._progress_file(worker.local_rank))
        return ""

    def _notice(self, states: list[RankState], now_s: float) -> None:
        """Says once what takes long and may, and again each time that it has taken twice as long."""
        begun = [state.num_begun for state in states if state.num_begun is not None]
        for state in states:
            if state.phase in (progress.START, STEP) or (begun and state.num_begun != min(begun)):
                continue
            since_s = now_s - state.for_s
            last_since_s, after_s = self._noticed.get(state.rank, (0.0, NOTICE_S))
            if abs(since_s - last_since_s) > LOOK_S:
                after_s = NOTICE_S
            if state.for_s > after_s:
                self._noticed[state.rank] = since_s, 2 * state.for_s
                where = f" on {state.host}" if self._spans_hosts else ""
                what = f"{state.phase} after step {state.step}"
                self._tell(f"rank {state.rank}{where}: {what} takes {state.for_s:.0f} s so far")

    # ---- failures

    def _conclude(self, exit_codes: Mapping[int, int]) -> None:
        """Finds the cause, with the launchers of the other hosts, and says what happens now."""
        failures = read_failures(self._logs, exit_codes, ended_by_us=self._hang is not None)
        if self._hang:
            failures = [*(failure for failure in failures if failure.user), self._hang]
        own = self._explain(root_cause(failures))
        cause, left = self._agree(own, self.num_restarts_left)
        self.cause = cause
        if cause.user:
            left = 0
        self._remaining_restarts = min(left, self._remaining_restarts)
        if self._remaining_restarts:
            again = "all ranks start again, from the newest checkpoint where there is one"
            self._tell(f"{self.where(cause)}{cause.summary}; {again} (restarts left: {self._remaining_restarts - 1})")

    def _explain(self, failure: Failure) -> Failure:
        """The same failure, in plain words where a rank has only lost the others."""
        if not failure.lost_peer or self._hang is not None:
            return failure
        why = "their host, which says nothing, is dead, or the link to it was cut"
        if self._cut:
            silent_s = self._timeouts.link_s
            why = f"{self._cut[0]} acknowledges nothing for {silent_s:g} s: its host is dead, or the link was cut"
        elif not self._spans_hosts:
            return failure
        return replace(failure, message=f"{failure.message}\nlost the ranks of another host; {why}")

    def where(self, failure: Failure) -> str:
        """Leads a message about a failure in a job of several hosts."""
        if not self._spans_hosts or failure.user or failure.stopped:
            return ""
        return (
            f"on {failure.host}: " if failure.message.startswith("rank") else f"rank {failure.rank} on {failure.host}: "
        )

    def _agree(self, own: Failure, left: int) -> tuple[Failure, int]:
        """The failure that caused those of all hosts, and the restarts that are left where fewest are."""
        group: Any = self._worker_group
        if group.group_world_size == 1:
            return own, left
        num, me = group.group_world_size, group.group_rank
        found = {me: (own, left)}
        deadline = time.monotonic() + TELL_S
        with suppress(RuntimeError):  # the store is gone, with its host
            store = group.store
            store.set_timeout(timedelta(seconds=self._timeouts.store_s))
            store.set(f"{_FAILURE}/{me}", json_text([own.to_json(), left], indent=None))
            while len(found) < num and time.monotonic() < deadline:
                for number in range(num):
                    if number not in found and store.check([f"{_FAILURE}/{number}"]):
                        text, their_left = json.loads(store.get(f"{_FAILURE}/{number}"))
                        found[number] = Failure.parse(text), their_left
                time.sleep(0.05)
            store.add(_HEARD, 1)
            if min(their_left for _, their_left in found.values()) == 0:  # this host ends, and the store may with it
                while store.add(_HEARD, 0) < num and time.monotonic() < deadline:
                    time.sleep(0.05)
        failures = [failure for failure, _ in found.values()]
        return root_cause(failures), min(their_left for _, their_left in found.values())
