"""Batches from servers are those of the local reader, in the same order, with the same positions."""

import gc
import time
from contextlib import closing

import pytest
import torch
from tests.reader.conftest import batches, ids_of, loader
from tests.reader.tier.conftest import local_batches, remote

from recd_dist.errors import ConfigError, DataError
from recd_dist.reader.transport import BatchLayout, tensors_of


def same(a, b):
    assert BatchLayout.of(a) == BatchLayout.of(b)
    others = tensors_of(b)
    for name, tensor in tensors_of(a).items():
        assert torch.equal(tensor, others[name]), name
        assert others[name].data_ptr() % 64 == 0


@pytest.mark.parametrize("way", ["none", "lz4", "zstd", "shared memory"])
@pytest.mark.parametrize("num_servers", [1, 2, 3])
def test_batches_are_those_of_as_many_workers(serve, small, num_servers, way):
    services = [serve(small.path) for _ in range(num_servers)]
    options = {"shared_memory": True} if way == "shared memory" else {"compression": way, "shared_memory": False}
    found = batches(small, servers=remote(*services, **options), seed=3)
    for a, b in zip(local_batches(small, num_servers, seed=3), found, strict=True):
        same(a, b)
    assert sorted(ids_of(found)) == list(range(len(small.samples)))


@pytest.mark.parametrize("options", [{"expand": True}, {"order": "table"}, {"order": "time"}, {"num_workers": 4}])
def test_options_are_those_of_the_trainer(serve, small, options):
    found = batches(small, servers=remote(serve(small.path), serve(small.path)), **options)
    for a, b in zip(local_batches(small, **{"num_workers": 2} | options), found, strict=True):
        same(a, b)


def test_ranks_share_the_servers(serve, small):
    services = [serve(small.path), serve(small.path)]
    seen = []
    for rank in range(3):
        options = {"rank": rank, "world_size": 3}
        found = batches(small, servers=remote(*services, rank=rank), **options)
        for a, b in zip(local_batches(small, 2, **options), found, strict=True):
            same(a, b)
        seen += ids_of(found)
    assert sorted(seen) == list(range(len(small.samples)))


def test_epochs_follow_each_other_in_one_session(serve, small):
    service = serve(small.path)
    with closing(loader(small, servers=remote(service))) as reader:
        first = ids_of(reader)
        reader.start_epoch(1)
        second = ids_of(reader)
        assert len(service.sessions.to_json()) == 1
    assert sorted(first) == sorted(second) == list(range(len(small.samples)))
    assert first != second
    assert service.sessions.to_json() == []


@pytest.mark.parametrize("then", ["here", "workers", "servers"])
def test_a_position_goes_on_anywhere(serve, small, then):
    services = [serve(small.path), serve(small.path)]
    with closing(loader(small, servers=remote(*services), batch_size=16)) as reader:
        iterator = iter(reader)
        seen = [i for _ in range(5) for i in next(iterator).sample_ids.tolist()]
        state = reader.state(5)
    options = {"here": {}, "workers": {"num_workers": 2}, "servers": {"servers": remote(services[0])}}[then]
    seen += ids_of(batches(small, state=state, batch_size=16, **options))
    assert sorted(seen) == list(range(len(small.samples)))


def test_what_is_dropped_is_counted(serve, spoiled):
    table = spoiled(tags=[3, 77])
    with closing(loader(table, servers=remote(serve(table.path)), on_bad_id="drop")) as reader:
        assert sorted(ids_of(reader)) == list(range(len(table.samples)))
        assert reader.counts == {"tags: id outside table 'tag'": 1}


def test_a_value_that_cannot_be_trained_on_is_the_same_error(serve, spoiled):
    table = spoiled(candidate=99)
    with pytest.raises(DataError, match=r"feature 'candidate' holds id 99, table 'item' has rows 0\.\.49"):
        batches(table, servers=remote(serve(table.path)))


def test_a_server_reads_two_batches_ahead_of_a_trainer_that_stops(serve, small):
    service = serve(small.path)
    with closing(loader(small, servers=remote(service), batch_size=8, prefetch=2)) as reader:
        iterator = iter(reader)
        for _ in range(3):
            next(iterator)
        sent = 3 + 2 + 1  # taken, in the queue, waiting for room in it
        deadline = time.monotonic() + 30
        while service.sessions.total.to_json()["batches"] < sent and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)  # enough for all others, if anything went on
        assert service.sessions.total.to_json()["batches"] == sent
        (session,) = service.sessions._sessions.values()
        assert session._thread._work_queue.qsize() == 0


@pytest.mark.parametrize("shared", [True, False])
def test_memory_of_batches_is_used_again(serve, small, shared):
    places, source = [], remote(serve(small.path), shared_memory=shared)
    with closing(loader(small, servers=source, batch_size=8, prefetch=1)) as reader:
        for batch in reader:
            places.append(batch.sparse.values.data_ptr())
    assert len(set(places)) < len(places) / 3  # how many are on their way at once is a matter of time


@pytest.mark.parametrize("shared", [True, False])
def test_a_batch_that_is_kept_keeps_its_memory(serve, small, shared):
    source = remote(serve(small.path), shared_memory=shared)
    with closing(loader(small, servers=source, batch_size=8, prefetch=1)) as reader:
        kept = list(reader)
    gc.collect()
    for a, b in zip(local_batches(small, 0, batch_size=8), kept, strict=True):
        same(a, b)


def test_an_iteration_that_is_left_early_ends(serve, small):
    service = serve(small.path)
    with closing(loader(small, servers=remote(service), batch_size=8)) as reader:
        first = iter(reader)
        next(first)
        assert sorted(ids_of(reader)) == list(range(len(small.samples)))
        with pytest.raises(RuntimeError, match="ended by a newer one"):
            next(first)


def test_no_more_sessions_than_allowed(serve, small):
    service = serve(small.path, max_sessions=1)
    with closing(loader(small, servers=remote(service))) as reader:
        assert ids_of(reader)  # its session stays open for the next epoch
        with pytest.raises(ConfigError, match=r"has 1 sessions, as many as --max-sessions allows"):
            batches(small, servers=remote(service))
