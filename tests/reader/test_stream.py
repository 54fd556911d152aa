"""The same (seed, epoch) gives the same stream of samples, for every order, way to cut batches, world and workers.

The stream is what one rank reads in one batch: sample number n of the epoch. Whatever the ranks, workers and batch
size, a batch holds the samples of its numbers, and all hold every number once, also when a job goes on elsewhere.
"""

import json
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reader.conftest import loader

from recd_dist.reader.cuts import Cutter
from recd_dist.reader.fill import Filler
from recd_dist.reader.order import ORDERS, Shuffle
from recd_dist.reader.sample_work import WorkReader
from recd_dist.reader.work import CountedList, Work
from recd_dist.reader.worker import BatchReader, Task

SEED, WINDOW = 11, 3
RULES = ("samples", "work", "ids", "sessions")


@pytest.fixture(scope="module")
def readers(dated):
    """For each order the reader that is asked, and for each rule the cutter of the order."""

    @cache
    def of(order: str, rule: str):
        reader = loader(dated, order=order, seed=SEED, window=WINDOW)
        lists = [CountedList("history"), CountedList("tags")] if rule in ("work", "ids") else []
        work = WorkReader(dated.clustered, dated.schema, lists, Work(id=1.0), Shuffle(SEED, order, WINDOW))
        cutters = {"work": Cutter(work), "ids": Filler(work, max_ids=80), "sessions": Filler(work, keeps_sessions=True)}
        return BatchReader(reader._options), cutters.get(rule)

    return of


@pytest.fixture(scope="module")
def streams(dated, readers):
    """The samples of an epoch by their numbers."""

    @cache
    def of(order: str, epoch: int):
        return readers(order, "samples")[0].read(Task(epoch, ((0, len(dated.samples)),))).sample_ids.tolist()

    return of


def test_epochs_of_orders_that_shuffle_differ_and_those_of_others_do_not(streams):
    assert streams("sessions", 0) != streams("sessions", 1)
    assert streams("partitions", 0) != streams("partitions", 1)
    assert streams("table", 0) == streams("table", 1) == sorted(streams("table", 0))
    assert streams("time", 0) == streams("time", 1) != streams("table", 0)


def test_partitions_come_in_their_order(dated, streams):
    days, first = {}, 0
    for part in dated.manifest.parts:
        days |= dict.fromkeys(range(first, first := first + part.num_samples), part.partition)
    found = [days[number] for number in streams("partitions", 0)]
    assert found == sorted(found)
    assert len(set(found)) == 3


shapes = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(2, 60))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("order", ORDERS)
@settings(max_examples=5)
@given(st.integers(0, 1), st.lists(st.tuples(shapes, st.integers(0, 6)), max_size=3))
def test_one_stream_for_all_shapes_and_wherever_a_job_goes_on(dated, readers, streams, order, rule, epoch, stops):
    batch_reader, cutter = readers(order, rule)
    stream, state, seen = streams(order, epoch), None, []
    for (world_size, num_workers, batch_size), steps in [*stops, ((2, 2, 64), 10**6)]:
        for rank in range(world_size):
            reader = loader(
                dated, order=order, seed=SEED, window=WINDOW, rank=rank, world_size=world_size,
                batch_size=batch_size, num_workers=num_workers, cutter=cutter, state=state,
            )  # fmt: skip
            if state is None:
                reader.start_epoch(epoch)
            trained = min(steps, len(reader))
            for task, _ in zip(reader.tasks(), range(trained), strict=False):
                numbers = [number for start, end in task.samples for number in range(start, end)]
                assert batch_reader.read(task).sample_ids.tolist() == [stream[number] for number in numbers]
                seen += numbers
            after = json.loads(json.dumps(reader.state(trained)))
        state = after
        if state["epoch"] > epoch:
            break
    assert state["epoch"] == epoch + 1
    assert sorted(seen) == list(range(len(dated.samples)))
