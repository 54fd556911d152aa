"""Guards of what is replaced in torch's elastic agent: they fail once upstream has a way of its own."""

import inspect
from pathlib import Path

import pytest
from torch.distributed.elastic.agent.server import local_elastic_agent
from torch.distributed.elastic.rendezvous import RendezvousParameters, dynamic_rendezvous, registry

from recd_dist.ranks import elastic_patches


def test_upstream_agent_takes_no_processes_of_ours() -> None:
    agent = local_elastic_agent.LocalElasticAgent
    assert "self._pcontext = start_processes(" in inspect.getsource(agent._start_workers)
    assert not [name for name in inspect.signature(agent).parameters if "process" in name or "context" in name]


def test_the_agent_starts_processes_by_our_function_meanwhile() -> None:
    theirs = local_elastic_agent.start_processes
    with elastic_patches.processes_from(print):
        assert local_elastic_agent.start_processes is print
    assert local_elastic_agent.start_processes is theirs


def test_upstream_rendezvous_looks_once_a_second() -> None:
    assert "_delay(seconds=1)" in inspect.getsource(dynamic_rendezvous._DistributedRendezvousOpExecutor.run)
    holder = inspect.signature(dynamic_rendezvous._BackendRendezvousStateHolder)
    assert holder.parameters["cache_duration"].default == 1
    assert "cache_duration" not in inspect.getsource(dynamic_rendezvous.DynamicRendezvousHandler)


@pytest.mark.parametrize(("num_hosts", "pause_s"), [(1, 0.1), (2, 0.1), (64, 0.2), (1000, 1.0)])
def test_hosts_that_meet_look_often_and_many_hosts_less_often(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, num_hosts: int, pause_s: float
) -> None:
    where = {"endpoint": str(tmp_path / "meeting"), "local_addr": "127.0.0.1", "store_type": "file"}
    handler = registry.get_rendezvous_handler(
        RendezvousParameters(backend="c10d", run_id="job", min_nodes=1, max_nodes=num_hosts, **where)
    )
    slept: list[object] = []
    monkeypatch.setattr(elastic_patches, "_upstream_delay", slept.append)
    monkeypatch.setattr(dynamic_rendezvous, "_delay", dynamic_rendezvous._delay)
    elastic_patches.meet_quickly(handler, num_hosts)
    dynamic_rendezvous._delay(seconds=1)
    dynamic_rendezvous._delay(seconds=(0, 0.3))
    assert slept == [(pause_s, pause_s), (0, 0.3 * pause_s)]
    assert handler._state_holder._cache_duration < pause_s, "hosts would look at what they have seen already"
