"""What a server reads for a stream, and when."""

from concurrent.futures import CancelledError

import pytest
import torch
from tests.reader.conftest import loader

from recd_dist.errors import ConfigError
from recd_dist.reader.tier.lent_memory import LentMemory
from recd_dist.reader.tier.served_counts import ServedCounts, describe_counts
from recd_dist.reader.tier.sessions import Session, Sessions


@pytest.fixture
def session(small):
    reader = loader(small)
    made = Session(reader._options, "a trainer", "none", ServedCounts())
    made.tasks = list(reader.tasks())
    made.num_read = 0
    read = made._read

    def count(task, empty):
        made.num_read += 1
        return read(task, empty)

    made._read = count
    yield made
    made.close()


def test_two_batches_are_read_ahead_and_none_twice(session):
    first, second, third, fourth, *_ = session.tasks
    results = [session.answer((first, second, third, fourth))]
    wait_for(session)
    assert session.num_read == 3
    results.append(session.answer((second, third, fourth)))
    wait_for(session)
    results.append(session.answer((third,)))
    assert session.num_read == 4
    samples = [len(r.batch.sample_ids) for r, _ in results]
    assert samples == [sum(end - start for start, end in t.samples) for t in (first, second, third)]


def wait_for(session):
    for reading in session._readings:
        reading.result.result()


def test_an_answer_that_did_not_arrive_is_given_again(session):
    first, second, third, *_ = session.tasks
    session.answer((first, second))
    a, b = session.answer((second, third)), session.answer((second, third))
    assert a[0] is b[0]
    wait_for(session)
    assert session.num_read == 3


def test_what_was_made_in_memory_of_the_trainer_is_given_once(session):
    """The trainer may have used the memory for something else since."""
    first, second, *_ = session.tasks
    blocks = [LentMemory(1 << 16) for _ in range(3)]
    _, place = session.answer((first, second), [block.name for block in blocks[:2]])
    batch = place.unpack(torch.from_numpy(blocks[0].bytes))
    before = batch.sample_ids.tolist()
    session.give(first)
    blocks[0].bytes[64:] = 0
    wait_for(session)
    _, again = session.answer((first, second), [block.name for block in (blocks[2], blocks[1])])
    assert session.num_read == 3
    assert again.unpack(torch.from_numpy(blocks[2].bytes)).sample_ids.tolist() == before
    assert session.answer((second,), [blocks[1].name])[1] is not None
    assert session.num_read == 3
    session.answer((first, second), [block.name for block in blocks[:2]])
    session.answer((second,), [blocks[2].name])
    assert session.num_read == 5  # in other memory it is made again


def test_a_stream_may_jump(session):
    first, second, *_, last = session.tasks
    session.answer((first, second))
    assert session.answer((last,))[0].batch.batch_size == sum(end - start for start, end in last.samples)


def test_a_call_that_nobody_waits_for_gets_no_further_answers(session):
    first, second, third, *_ = session.tasks
    old, new = session.begin_call(), session.begin_call()
    session.answer((first, second), (), new)
    with pytest.raises(CancelledError):
        session.answer((third,), (), old)
    assert session.answer((second,), (), new)[0].batch.batch_size


def test_sessions_are_counted_and_closed(small):
    options = loader(small)._options
    sessions = Sessions(most=2, idle_s=1000)
    names = [sessions.open(lambda total: Session(options, "a", "none", total)) for _ in range(2)]
    assert len(set(names)) == 2
    with pytest.raises(ConfigError, match="2 sessions, as many as --max-sessions allows"):
        sessions.open(lambda total: Session(options, "a", "none", total))
    sessions.close(names[0])
    assert sessions.find(names[0]) is None
    sessions.find(names[1]).last_used -= 2000
    sessions.close_idle()
    assert sessions.to_json() == []
    sessions.close("none")


def test_counts_in_words():
    counts = {
        "seconds": 10, "batches": 20, "samples": 4000, "bytes": 5e6, "decode_s": 2, "trainer_waited_s": 1,
        "batch_waited_s": 3, "send_s": 0.5,
    }  # fmt: skip
    said = "20 batches, 400 samples/s, 0.5 MB/s; decoding 2.0 s, trainers waited 1.0 s for batches, batches 3.0 s for "
    assert describe_counts(counts) == f"{said}trainers"
    assert describe_counts(counts, counts).startswith("0 batches, 0 samples/s")
