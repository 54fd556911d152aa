"""Hosts that look at themselves and each other before a job, and a job of which one host cannot run it."""

import sys

import pytest
from tests.cluster.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

MEET = ["--nnodes", "2", "--rdzv-endpoint", "host0:29500"]


def recd(node: int, *words: str, before: str = "") -> list[str]:
    """The command of one host; ``before`` is what its shell does first."""
    return ["bash", "-c", f'{before} exec "$@"', "sh", sys.executable, "-m", *words, *MEET, "--node", str(node)]


def test_two_hosts_see_each_other(two_hosts: Lab) -> None:
    first, second = two_hosts.run([recd(node, "recd_dist.cli", "doctor") for node in range(2)])
    assert (first.code, second.code) == (0, 0), first.out + second.out
    assert "2 ranks on 2 hosts by gloo: all-to-all in " in first.out
    assert {line.split()[1] for line in first.out.splitlines()[:-1]} == {"host0", "host1"}
    assert "the ranks of all hosts have met; the first host says how" in second.out


def test_a_host_that_is_alone(two_hosts: Lab) -> None:
    _, alone = two_hosts.run([["true"], [*recd(1, "recd_dist.cli", "doctor"), "--timeout", "2"]])
    assert alone.code == 1
    assert "the first host does not answer: host0:29500: Connection refused for 2 s" in alone.out


def test_a_host_that_cannot_run_a_job_ends_it_everywhere(two_hosts: Lab) -> None:
    """Also the healthy host ends with 2, and says which host it is and what to do there."""
    module = ["--checked", "--module", "recd_dist.ranks.meet"]  # what the ranks would do does not matter
    launcher = ["recd_dist.ranks.launcher", *module]
    ended = two_hosts.run([recd(0, *launcher), recd(1, *launcher, before="ulimit -n 64;")])
    for host in ended:
        assert host.code == 2
        assert "recd: error: host1: open files: 64 (ulimit -n), a rank needs 256" in host.err
