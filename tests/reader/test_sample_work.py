"""The work of samples, as the table tells it and as their values do."""

import numpy as np
import pytest
from tests.reader.conftest import ids_of, loader

from recd_dist.errors import DataError
from recd_dist.reader.order import Shuffle
from recd_dist.reader.sample_work import WorkReader
from recd_dist.reader.work import CountedList, Work

WORK = Work(sample=1, id=10, look=100, pair=1000)
LISTS = (CountedList("history", is_history=True, longest=4), CountedList("tags"))


def work_of(table, shuffle, schema=None) -> list[tuple[float, float, bool]]:
    """Of each sample of an epoch its work, what it costs a batch to begin with it, and whether its session begins."""
    reader = WorkReader(table.clustered, schema or table.schema, LISTS, WORK, shuffle)
    found = []
    for window in reader.shuffle_windows(0):
        work = reader.read(0, window)
        assert len(work.before) == len(work.repeated) == window.end - window.start + 1
        begins = np.isin(np.arange(window.end - window.start), work.sessions)
        assert work.sessions[-1] == window.end - window.start
        found += zip(np.diff(work.before).tolist(), work.repeated.tolist(), begins.tolist(), strict=False)
    return found


def expected(table, numbers, expanded=False) -> list[tuple[float, float, bool]]:
    result, before = [], None
    for number in numbers:
        s = table.samples[number]
        length, begins = min(len(s.history), 4), before is None or before.session != s.session
        once = 10 * length + 1000 * length**2
        is_new = expanded or begins or (s.history, s.age) != (before.history, before.age)
        work = 1 + 10 * len(s.tags) + 100 * length + (once if is_new else 0)
        result.append((work, 0.0 if is_new else once, begins))
        before = s
    return result


@pytest.mark.parametrize("shuffle", [Shuffle(seed=3, window_size=3), Shuffle(order="table", window_size=2)])
def test_each_row_counts_once_where_it_begins(small, shuffle):
    options = {"seed": shuffle.seed, "order": shuffle.order, "window": shuffle.window_size}
    numbers = ids_of(loader(small, batch_size=10_000, **options))
    assert work_of(small, shuffle) == expected(small, numbers)


def test_a_group_that_is_trained_expanded_costs_each_sample(small):
    numbers = ids_of(loader(small, batch_size=10_000, order="table"))
    shuffle = Shuffle(order="table")
    assert work_of(small, shuffle, small.schema.expand(["user"])) == expected(small, numbers, expanded=True)


def test_only_lengths_are_read(small):
    """Neither labels nor dense features nor the groups without lists."""
    read = []
    reader = WorkReader(small.clustered, small.schema, LISTS, WORK, Shuffle())
    read_columns = reader._files.read_columns
    reader._files.read_columns = lambda entry, index, names: (
        read.append(tuple(names)) or read_columns(entry, index, names)
    )
    reader.read(0, reader.shuffle_windows(0)[0])
    assert set(read) == {("session_id", "user_row", "tags"), ("row", "history")}


def test_a_shuffle_window_is_read_once(small):
    reader = WorkReader(small.clustered, small.schema, LISTS, WORK, Shuffle())
    window = reader.shuffle_windows(0)[0]
    assert reader.read(0, window) is reader.read(0, window)


def test_a_missing_file_is_named(spoiled):
    table = spoiled()
    reader = WorkReader(table.clustered, table.schema, LISTS, WORK, Shuffle(order="table"))
    (table.path / "user/part-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"user/part-00000\.parquet"):
        reader.read(0, reader.shuffle_windows(0)[0])
