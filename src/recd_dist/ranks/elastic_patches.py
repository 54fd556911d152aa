"""What is replaced in torch's elastic agent and rendezvous at run time, and why.

1. ``local_elastic_agent.start_processes`` (torch/distributed/elastic/agent/server/local_elastic_agent.py:462 of 2.13.0,
   472 of 2.14.1): the agent names no class for the processes of its ranks and takes none. Ours are forked from a
   process that has imported everything, and end within ``timeouts.end_s``. The function is another one while the agent
   starts its ranks. Guard: tests/ranks/test_elastic_patches.py::test_upstream_agent_takes_no_processes_of_ours.
2. ``_delay`` and ``_cache_duration`` of torch/distributed/elastic/rendezvous/dynamic_rendezvous.py (685 and 387 of
   2.13.0 and 2.14.1): hosts that meet look once a second whether all are there, take what they saw in the last second
   for true, and wait up to 0.3 s before; no setting shortens that. A restart on several hosts waited more than a second
   for nothing. They look ten times a second here, less often where hosts are many.
   Guard: tests/ranks/test_elastic_patches.py::test_upstream_rendezvous_looks_once_a_second.

Read for torch 2.13 and 2.14.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.distributed.elastic.agent.server import local_elastic_agent
from torch.distributed.elastic.rendezvous import dynamic_rendezvous

LOOK_S = 0.1
MOST_LOOKS = 320
"""Looks of all hosts a second at the store, at most."""

_upstream_delay = dynamic_rendezvous._delay


@contextmanager
def processes_from(start: Callable[..., Any]) -> Iterator[None]:
    """Torch's agent starts its ranks by ``start`` meanwhile, which takes the arguments of torch's function."""
    theirs = local_elastic_agent.start_processes
    local_elastic_agent.start_processes = start
    try:
        yield
    finally:
        local_elastic_agent.start_processes = theirs


def meet_quickly(handler: Any, num_hosts: int) -> None:
    """Makes a rendezvous look often whether all hosts are there.

    Args:
        handler: torch's handler of the rendezvous.
        num_hosts: most hosts of the job.
    """
    pause_s = min(1.0, max(LOOK_S, num_hosts / MOST_LOOKS))

    def delay(seconds: float | tuple[float, float]) -> None:
        low, high = seconds if isinstance(seconds, tuple) else (seconds, seconds)
        _upstream_delay((low * pause_s, high * pause_s))

    dynamic_rendezvous._delay = delay
    handler._state_holder._cache_duration = pause_s / 2
