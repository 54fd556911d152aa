"""What a server reads for a stream, and when."""

import pytest
from tests.reader.conftest import loader

from recd_dist.errors import ConfigError
from recd_dist.reader.tier.served_counts import ServedCounts, describe_counts
from recd_dist.reader.tier.sessions import Session, Sessions


@pytest.fixture
def session(small):
    reader = loader(small)
    made = Session(reader._options, "a trainer", "none", ServedCounts())
    made.tasks = list(reader.tasks())
    made.num_read = 0
    read = made._read

    def count(task):
        made.num_read += 1
        return read(task)

    made._read = count
    yield made
    made.close()


def test_one_batch_is_read_ahead_and_none_twice(session):
    first, second, third, *_ = session.tasks
    results = [session.answer(first, second)]
    session._readings[1].result.result()
    assert session.num_read == 2
    results.append(session.answer(second, third))
    results.append(session.answer(third, None))
    assert session.num_read == 3
    samples = [len(r.batch.sample_ids) for r in results]
    assert samples == [sum(end - start for start, end in t.samples) for t in (first, second, third)]


def test_an_answer_that_did_not_arrive_is_given_again(session):
    first, second, third, *_ = session.tasks
    session.answer(first, second)
    a, b = session.answer(second, third), session.answer(second, third)
    assert a is b
    session._readings[1].result.result()
    assert session.num_read == 3


def test_a_stream_may_jump(session):
    first, second, *_, last = session.tasks
    session.answer(first, second)
    assert session.answer(last, None).batch.batch_size == sum(end - start for start, end in last.samples)


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
