"""Ranks of a host that cannot run a job: they meet those of the other hosts and fail at once, so that all learn why."""

from collections.abc import Sequence

from recd_dist.errors import ConfigError


def main(arguments: Sequence[str]) -> None:
    """One rank that says why it does not run.

    Args:
        arguments: the reason, which names host, check and remedy.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(" ".join(arguments))
