"""The distinct ids of a batch and their lookups: the same where rows are windows."""

from hypothesis import given
from hypothesis import strategies as st
from tests.tensors.kjts import batches, kjt_of

from recd_dist.embedding.ids.distinct_of_batch import find_distinct
from recd_dist.tensors.deduplicate import deduplicate
from recd_dist.tensors.find_windows import find_windows
from recd_dist.tensors.ikjt import IKJT


def lookups(batch: IKJT, keys: list[str]) -> dict[int, int]:
    distinct = find_distinct(batch, keys)
    stored = [i for key in keys for i in batch.values_of(key).tolist()]
    assert distinct.ids[distinct.places].tolist() == stored
    return dict(zip(distinct.ids.tolist(), distinct.counts.tolist(), strict=True))


def test_lookups_are_those_of_samples() -> None:
    history = [[1, 2, 3], [2, 3, 4], [2, 3, 4], [2, 2]]
    lists = deduplicate(kjt_of({"history": history, "item": [[2], [9], [9], [1]]}), {"user": ["history"]})
    windows = find_windows(lists, ["history"])
    assert windows.values_of("history").tolist() == [1, 2, 3, 4, 2, 2]
    for batch in (lists, windows):
        assert lookups(batch, ["history", "item"]) == {1: 2, 2: 6, 3: 3, 4: 2, 9: 2}


@given(batches(), st.data())
def test_windows_are_counted_as_lists(given_batch: tuple, data: st.DataObject) -> None:
    lists = deduplicate(*given_batch)
    keys = data.draw(st.lists(st.sampled_from(lists.keys), unique=True))
    assert lookups(find_windows(lists), keys) == lookups(lists, keys)
