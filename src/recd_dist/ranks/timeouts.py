"""Every timeout of a job, in one table: what waits how long for what, and that none is shorter than what it waits for.

They are options of a training (``timeouts.step_s=60``). The launcher of each host takes them from the same config, by
way of the check before the job. The module loads no torch.
"""

from dataclasses import dataclass, fields

from recd_dist.errors import ConfigError

TIMEOUTS_FILE = "RECD_TIMEOUTS_FILE"
"""The environment variable that names a file in which the check before a job leaves its timeouts, as JSON."""

GRACE_S = 30.0
"""From SIGTERM to SIGKILL, where nobody says otherwise: Slurm's, Kubernetes' and torch's own default."""

STEP_FACTOR = 10
"""A step counts as hung only after so many times the longest step so far, however long ``step_s`` is."""


@dataclass
class Timeouts:
    """Seconds that a job waits before it takes something for lost.

    Attributes:
        step_s: a step of training, the first one of an attempt excepted; or ten times the longest step so far.
        slow_s: what may take long: the start with its first step, a batch from the reader, a checkpoint, a batch of an
            evaluation.
        stopped_s: a rank whose process is stopped (SIGSTOP, a container that is paused).
        link_s: a connection between hosts on which nothing that was sent is acknowledged.
        collective_s: a collective; the last resort.
        end_s: the other ranks of a host after one has failed, from SIGTERM to SIGKILL.
        store_s: an answer of the store at the first host, through which hosts meet.
        host_s: a host of which the store hears nothing more.
        more_s: further hosts, in an elastic job that has its fewest.
        join_s: all hosts, or a first host that comes back.
        exit_s: the last host to finish.
        server_s: a batch from any of the reader's servers, where there are some.
    """

    step_s: float = 10.0
    slow_s: float = 1800.0
    stopped_s: float = 10.0
    link_s: float = 10.0
    collective_s: float = 3600.0
    end_s: float = 5.0
    store_s: float = 20.0
    host_s: float = 15.0
    more_s: float = 30.0
    join_s: float = 600.0
    exit_s: float = 300.0
    server_s: float = 120.0

    def check(self, grace_s: float) -> None:
        """Refuses timeouts that end before what they wait for.

        Args:
            grace_s: the option ``checkpoint.grace_s``.

        Raises:
            ConfigError: names both.
        """
        for field in fields(self):
            if not (value := getattr(self, field.name)) >= 1:
                raise ConfigError(f"timeouts.{field.name}={value:g}: must be at least 1 second")
        values = {f"timeouts.{field.name}": getattr(self, field.name) for field in fields(self)}
        values |= {"checkpoint.grace_s": grace_s}
        for longer, shorter, why in ORDER:
            if values[longer] <= values[shorter]:
                raise ConfigError(
                    f"{longer}={values[longer]:g} must be longer than {shorter}={values[shorter]:g}: {why}; give the "
                    "first more or the second less"
                )


ORDER = (
    ("timeouts.slow_s", "timeouts.step_s", "a checkpoint or a slow reader may take longer than a step"),
    ("timeouts.slow_s", "timeouts.server_s", "that a rank waits for a server is said before the rank counts as hung"),
    ("timeouts.collective_s", "timeouts.slow_s", "ranks wait in a collective for one that reads or saves"),
    ("timeouts.collective_s", "timeouts.link_s", "a cut link is noticed before the collective gives up"),
    ("timeouts.collective_s", "timeouts.stopped_s", "a stopped rank is noticed before the collective gives up"),
    ("timeouts.store_s", "timeouts.link_s", "the store may be behind a link that is cut"),
    ("timeouts.join_s", "timeouts.store_s", "hosts meet through the store"),
    ("timeouts.join_s", "timeouts.host_s", "hosts that meet wait until a dead one is given up"),
    ("timeouts.join_s", "timeouts.more_s", "an elastic job waits for further hosts while it meets"),
    ("timeouts.exit_s", "checkpoint.grace_s", "a host that has finished waits for others that still save"),
)
"""(longer, shorter, why): the longer one waits for what the shorter one limits."""
