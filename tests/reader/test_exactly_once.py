"""Every sample exactly once, at the seams where readers are known to lose samples or to give them twice.

``benchmarks/exactly_once.py`` kills jobs at a thousand random points; here each seam has a test of its own.
"""

import json
import time
from collections import Counter
from contextlib import closing

import pytest
from tests.reader.conftest import loader

from recd_dist.errors import ConfigError
from recd_dist.reader.intervals import Deal
from recd_dist.reader.loader import Loader
from recd_dist.reader.order import ORDERS, TIME
from recd_dist.reader.tier.flight_service import FlightService
from recd_dist.reader.tier.remote_reader import RemoteReader
from recd_dist.reader.tier.served_tables import ServedTables
from recd_dist.reader.tier.server_access import ServerAccess
from recd_dist.reader.tier.server_address import Address
from recd_dist.reader.tier.servers import Servers
from recd_dist.reader.worker import TaskResults

SIZE = 24


def attempt(table, state, trained, ahead=0, world=1, **options):
    """Trains some batches on every rank and reads some ahead: the samples trained, and the position as JSON has it."""
    ids, after = [], []
    for rank in range(world):
        with closing(loader(table, rank=rank, world_size=world, batch_size=SIZE, state=state, **options)) as reader:
            num = len(reader) if trained is None else trained
            batches = iter(reader)
            for number in range(min(num + ahead, len(reader))):
                found = next(batches).sample_ids.tolist()
                ids += found if number < num else []
            after.append(json.loads(json.dumps(reader.state(num))))
    assert after == [after[0]] * world
    return ids, after[0]


def all_of(table):
    return list(range(len(table.samples)))


@pytest.fixture
def served(dated):
    """What a loader takes as ``servers``, of a server in this process."""
    service = FlightService(Address("127.0.0.1", 0), ServedTables([dated.path]), ServerAccess(), 8)
    yield lambda: RemoteReader(Servers((service.address,)))
    service.end()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("world", [1, 3])
def test_checkpoint_at_the_last_batch_of_an_epoch(dated, order, world):
    """It is the beginning of the next epoch: nothing is left over, nothing begins anew."""
    first, state = attempt(dated, None, None, world=world, order=order)
    assert (state["epoch"], state["remaining"]) == (1, [[0, len(dated.samples)]])
    second, state = attempt(dated, state, None, world=4 - world, order=order)
    assert state["epoch"] == 2
    assert sorted(first) == sorted(second) == all_of(dated)


def test_checkpoint_one_batch_before_the_end(dated):
    first, state = attempt(dated, None, 14)
    last, state = attempt(dated, state, None)
    assert len(last) == SIZE - 1 or len(last) <= SIZE
    assert state["epoch"] == 1
    assert sorted(first + last) == all_of(dated)


@pytest.mark.parametrize("order", ORDERS)
def test_second_and_third_resume(dated, order):
    """A resumed run that is resumed counts from where the whole epoch began, not from where it was resumed."""
    ids, state = [], None
    for world, trained in ((2, 2), (2, 1), (3, 1), (3, 1), (1, 2), (2, None)):
        more, state = attempt(dated, state, trained, world=world, order=order)
        ids += more
    assert state["epoch"] == 1
    assert sorted(ids) == all_of(dated)


def test_a_resume_that_trains_nothing_changes_nothing(dated):
    _, state = attempt(dated, None, 3)
    for _ in range(3):
        nothing, again = attempt(dated, state, 0)
        assert nothing == []
        assert (again["epoch"], again["remaining"]) == (state["epoch"], state["remaining"])
        state = again


@pytest.mark.parametrize("order", ["sessions", "partitions"])
def test_shuffle_after_the_first_epoch(dated, order):
    """The second epoch has an order of its own, and a run that goes on in it has that of one that was not stopped."""
    with closing(loader(dated, batch_size=SIZE, order=order)) as reader:
        first = [batch.sample_ids.tolist() for batch in reader]
        reader.start_epoch(1)
        second = [batch.sample_ids.tolist() for batch in reader]
    assert first != second
    _, state = attempt(dated, None, None, order=order)
    begun, state = attempt(dated, state, 4, ahead=2, order=order)
    rest, state = attempt(dated, state, None, order=order)
    assert begun == [number for batch in second[:4] for number in batch]
    assert rest == [number for batch in second[4:] for number in batch]
    assert state["epoch"] == 2


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_in_flight_are_not_trained(dated, num_workers):
    first, state = attempt(dated, None, 4, ahead=5, num_workers=num_workers, prefetch=4)
    assert len(first) <= 4 * SIZE
    rest, _ = attempt(dated, state, None, num_workers=num_workers)
    assert sorted(first + rest) == all_of(dated)


def test_batches_in_flight_of_servers_are_not_trained(dated, served):
    first, state = attempt(dated, None, 4, ahead=5, servers=served())
    rest, _ = attempt(dated, state, None, servers=served())
    elsewhere, _ = attempt(dated, state, None)
    assert sorted(first + rest) == sorted(first + elsewhere) == all_of(dated)


class SlowFirst(TaskResults):
    """A reader of which the tasks of the epoch's first half take long: workers that have the others are done before."""

    def __getitem__(self, task):
        if task.samples[0][0] < 150:
            time.sleep(0.05)
        return super().__getitem__(task)


def test_workers_that_finish_out_of_order(dated, monkeypatch):
    """Batches come in the order of the deal, whoever was first, or a position would name others than were trained."""
    with closing(loader(dated, batch_size=SIZE, num_workers=2)) as reader:
        wanted = [task.samples for task in reader.tasks()]
        in_order = [batch.sample_ids.tolist() for batch in reader]
    monkeypatch.setattr("recd_dist.reader.loader.TaskResults", SlowFirst)
    with closing(loader(dated, batch_size=SIZE, num_workers=2)) as reader:
        batches = iter(reader)
        found = [next(batches).sample_ids.tolist() for _ in range(5)]
        state = reader.state(5)
    assert found == in_order[:5]
    assert wanted[0][0][0] < 150 < wanted[1][0][0]  # neighbours in the loop are of different workers
    rest, _ = attempt(dated, state, None, num_workers=2)
    assert sorted([n for batch in found for n in batch] + rest) == all_of(dated)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("world", [3, 5, 7])
def test_a_world_size_that_does_not_divide(dated, order, world):
    """Neither the samples nor the batches are a multiple of the ranks; nothing is dropped, padded or given twice."""
    assert len(dated.samples) % world
    first, state = attempt(dated, None, 1, world=world, order=order)
    rest, _ = attempt(dated, state, None, world=world - 1, order=order)
    assert Counter(first + rest) == Counter(all_of(dated))


def test_a_rank_without_data_is_refused_before_anything_is_read(dated):
    with pytest.raises(ConfigError, match=r"samples are left for 1000 ranks, each needs at least one; start at most"):
        loader(dated, world_size=1000)


@pytest.mark.parametrize("order", [TIME, "sessions"])
def test_no_rank_is_without_a_batch_when_a_few_samples_are_left(dated, order):
    """Three ranks for the last four samples: each has one or two, workers beyond them have no share."""
    position = {**attempt(dated, None, 1, order=order)[1], "remaining": [[100, 103], [200, 201]]}
    del position["deal"]
    sizes = []
    for rank in range(3):
        with closing(loader(dated, rank=rank, world_size=3, num_workers=4, state=position, order=order)) as reader:
            sizes += [sum(end - start for start, end in task.samples) for task in reader.tasks()]
    assert sorted(sizes) == [1, 1, 2]
    with pytest.raises(ConfigError, match=r"4 samples are left for 5 ranks.*start at most 4 ranks"):
        loader(dated, world_size=5, state=position, order=order)


@pytest.mark.parametrize("num_samples", range(1, 40))
def test_every_share_has_a_batch_in_every_step(num_samples):
    """By arithmetic: the last share of the last rank too, for all small numbers."""
    for world in range(1, min(num_samples, 9) + 1):
        for workers in range(1, 4):
            deal = Deal(((0, num_samples),), world, workers, 3)
            batches = [deal.batch(rank, number) for rank in range(world) for number in range(deal.num_batches)]
            assert all(batches)
            assert sum(end - start for batch in batches for start, end in batch) == num_samples


def test_the_tests_can_fail(dated, monkeypatch):
    """A position that counted what was fetched instead of what was trained would lose the batches in flight."""

    def state_of_fetched(self: Loader, num_trained: int):
        return whole(self, min(num_trained + 2, len(self)))

    whole = Loader.state
    monkeypatch.setattr(Loader, "state", state_of_fetched)
    first, state = attempt(dated, None, 4, ahead=2)
    rest, _ = attempt(dated, state, None)
    assert len(first + rest) < len(dated.samples)
