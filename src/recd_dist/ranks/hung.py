"""Which ranks hang: judged by what each of them does, for how long, and how many collectives it has begun.

::

    rank   does                   for    may take   collectives begun
    0      a step                 12 s       10 s   8,042              waits for rank 1
    1      a batch of the reader  11 s    1,800 s   8,041              the others wait for it, and it may: nobody hangs

    0      a step                 12 s       10 s   8,042              waits for rank 1
    1      a step                 12 s       10 s   8,041              hangs
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

STEP = "a step"


@dataclass(frozen=True)
class RankState:
    """What a rank does.

    Attributes:
        rank: the global rank.
        host: the name of its host.
        phase: what it does.
        step: steps that are done.
        for_s: how long it has done it.
        allowed_s: how long that may take.
        num_begun: collectives that it has begun; None where it does not say.
        stopped_s: how long its process has been stopped.
    """

    rank: int
    host: str
    phase: str
    step: int
    for_s: float
    allowed_s: float
    num_begun: int | None
    stopped_s: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether it takes longer than it may."""
        return self.for_s > self.allowed_s

    def to_json(self) -> dict[str, Any]:
        """The state as plain values."""
        return asdict(self)


def find_hung(states: Sequence[RankState], num_ranks: int) -> list[RankState]:
    """The ranks that hang, and not those that wait for others.

    Args:
        states: of the ranks of the job, as far as they are known.
        num_ranks: ranks of the job.

    Returns:
        Those for which the others wait, of which one takes longer than it may; empty where none does, or where that
        cannot be told because ranks are missing or do not count their collectives and one may still take its time.
    """
    if len(states) < num_ranks or not states:
        return []
    counts = [state.num_begun for state in states if state.num_begun is not None]
    if len(counts) < len(states):
        return list(states) if all(state.is_over for state in states) else []
    last = [state for state in states if state.num_begun == min(counts)]
    if any(state.phase == STEP and not state.is_over for state in last):
        return []  # they may all wait for that one in a collective that all have begun
    return [state for state in last if state.is_over]


def describe(hung: Sequence[RankState], place: str = "") -> str:
    """One line that says who hangs, where and since when.

    Args:
        hung: at least one rank.
        place: the line of code in which the first of them is, where it is known.
    """
    first = hung[0]
    if first.stopped_s:
        return f"rank {first.rank} hangs: its process was stopped {first.stopped_s:.0f} s ago (after step {first.step})"
    who = f"rank {first.rank} hangs" if len(hung) == 1 else f"ranks {', '.join(str(s.rank) for s in hung)} hang"
    where = f", in {place}," if place else ""
    what = f"{first.phase} after step {first.step}{where}"
    return f"{who}: {what} takes {first.for_s:.0f} s, allowed are {first.allowed_s:.0f} s"
