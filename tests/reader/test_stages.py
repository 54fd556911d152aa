"""Each nanosecond of a thread counts for one stage; threads and processes add up."""

import threading
from contextlib import suppress

import pytest

from recd_dist.reader import stages
from recd_dist.reader.reader_pace import ReaderPace
from recd_dist.reader.stages import STAGES, Stopwatch, measure
from recd_dist.reader.worker import Result

from .conftest import loader


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved, by nanoseconds."""
    now = [0]
    monkeypatch.setattr(stages, "perf_counter_ns", lambda: now[0])

    def move(by_ns):
        now[0] += by_ns

    return move


def spent(stopwatch):
    return {stage: spent_ns for stage, spent_ns in stopwatch.take_ns().items() if spent_ns}


def test_a_stage_inside_another_stops_it(clock):
    stopwatch = Stopwatch()

    def decode():
        clock(1)
        with measure("decode"):
            clock(10)
            with measure("io"):
                clock(100)
            clock(20)
        clock(2)

    stopwatch.timed("convert", decode)()
    clock(5)
    assert spent(stopwatch) == {"convert": 3, "decode": 30, "io": 100}
    assert spent(stopwatch) == {}


def test_outside_a_bound_thread_nothing_counts(clock):
    stopwatch = Stopwatch()
    with measure("decode"):
        clock(1)
        stopwatch.timed("collate", clock)(10)
        clock(1)
    assert spent(stopwatch) == {"collate": 10}


def test_a_reader_inside_another_counts_for_itself(clock):
    outer, inner = Stopwatch(), Stopwatch()

    def read():
        clock(1)
        inner.timed("transform", clock)(10)
        clock(2)

    outer.timed("convert", read)()
    assert (spent(outer), spent(inner)) == ({"convert": 3}, {"transform": 10})


def test_an_error_ends_its_stage(clock):
    stopwatch = Stopwatch()
    with stopwatch.bound():
        with suppress(ValueError), measure("decode"):
            clock(7)
            raise ValueError("bad")
        clock(1)
    assert spent(stopwatch) == {"decode": 7}


def test_threads_of_one_reader_add_up():
    stopwatch = Stopwatch()
    add = stopwatch.timed("convert", lambda: [stopwatch.add("decode", 1) for _ in range(1000)])
    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stopwatch.take_ns()["decode"] == 4000


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_tells_what_its_threads_and_workers_spent(small, num_workers):
    reader = loader(small, num_workers=num_workers)
    try:
        num = len(list(reader))
        pace = reader.pace.take()
        assert (pace.num_batches, pace.num_samples) == (num, len(small.samples))
        assert all(pace.seconds[stage] > 0 for stage in ("convert", "collate", "queue"))
        assert pace.ready_s > 0
        again = reader.pace.take()
        assert (again.num_batches, again.work_s, again.ready_s) == (0, 0, 0)
    finally:
        reader.close()


def test_batches_ready_is_their_mean_number():
    """Two batches that lay ready for the whole time, and one for half of it."""
    now = [1000]
    pace = ReaderPace(lambda: now[0])
    now[0] = 2000
    for ready_ns in (500, 1000, 1500):
        pace.count(Result(None, {}, {"decode": 2_000_000_000}, ready_ns), 10)
    taken = pace.take()
    assert (taken.num_batches, taken.num_samples, round(taken.batches_ready, 9)) == (3, 30, 2.5)
    assert taken.seconds == dict.fromkeys(STAGES, 0) | {"decode": 6}
    assert taken.work_s == 6
