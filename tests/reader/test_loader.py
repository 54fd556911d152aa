"""The loop over batches: what they hold, in which order, and what is refused."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reader.conftest import batches, ids_of, loader

from recd_dist.errors import ConfigError, DataError
from recd_dist.reader.intervals import merge_intervals
from recd_dist.reader.transform import Transforms
from recd_dist.table.schema import Table


def rows_of(batch):
    """A batch as flat samples: what each of them carries, expanded."""
    flat = batch.expand()
    keys = {k: torch.split(flat.sparse.values_of(k), flat.sparse.lengths_of(k).tolist()) for k in flat.sparse.keys}
    for i in range(batch.batch_size):
        yield {k: v[i].tolist() for k, v in keys.items()}, flat.dense["sample"][i].tolist()


def same(a, b):
    assert a.sparse.groups == b.sparse.groups
    assert a.sparse.value_offsets == b.sparse.value_offsets
    for name in ("values", "lengths", "inverse"):
        assert torch.equal(getattr(a.sparse, name), getattr(b.sparse, name))
    assert a.dense.keys() == b.dense.keys()
    assert all(torch.equal(a.dense[g], b.dense[g]) for g in a.dense)
    names = "labels", "sample_ids", "request_ids", "session_ids"
    assert all(torch.equal(getattr(a, n), getattr(b, n)) for n in names)


def test_batches_hold_what_the_table_says(small):
    found = batches(small)
    assert sorted(ids_of(found)) == list(range(len(small.samples)))
    assert ids_of(found) != list(range(len(small.samples)))
    for batch in found:
        assert batch.sparse.values.dtype == torch.int32
        for place, (number, (ids, dense)) in enumerate(zip(batch.sample_ids.tolist(), rows_of(batch), strict=True)):
            want = small.sample(number)
            assert {k: ids[k] for k in ("history", "candidate", "tags")} == {
                k: want[k] for k in ("history", "candidate", "tags")
            }
            assert dense == [want["age"], want["price"]]
            assert batch.labels[place].tolist() == [want["clicked"]]
            assert batch.request_ids[place] == want["request"]
            assert batch.session_ids[place] == small.samples[number].session


def test_rows_of_a_batch_are_unique(small):
    for batch in batches(small, batch_size=64):
        inverse = batch.sparse.inverse_of("user")
        assert batch.sparse.num_rows("user") < batch.batch_size
        assert sorted(set(inverse.tolist())) == list(range(batch.sparse.num_rows("user")))
        first_seen = list(dict.fromkeys(inverse.tolist()))
        assert first_seen == sorted(first_seen)


def test_without_shuffle_samples_come_in_table_order(small):
    assert ids_of(batches(small, order="table")) == list(range(len(small.samples)))


def test_epochs_differ_and_seeds_repeat(small):
    reader = loader(small, seed=5)
    first = ids_of(reader)
    reader.start_epoch(1)
    second = ids_of(reader)
    assert sorted(first) == sorted(second)
    assert first != second
    assert first == ids_of(batches(small, seed=5))
    assert first != ids_of(batches(small, seed=6))
    reader.close()


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 1000), (2, 32), (3, 7), (5, 2)])
def test_ranks_have_equal_counts_and_every_sample_once(small, world_size, batch_size):
    ranks = [batches(small, rank=r, world_size=world_size, batch_size=batch_size) for r in range(world_size)]
    assert len({len(found) for found in ranks}) == 1
    assert sorted(i for found in ranks for i in ids_of(found)) == list(range(len(small.samples)))
    assert max(b.batch_size for found in ranks for b in found) <= batch_size


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(2, 50), st.integers(0, 5)), max_size=3))
def test_resume_with_another_world_size_sees_every_sample_once(small, stops):
    state, seen = None, Counter()
    for world_size, num_workers, batch_size, steps in [*stops, (2, 1, 64, 10**6)]:
        for rank in range(world_size):
            # The tasks of worker processes, read here: processes would make this slow and no stronger.
            reader = loader(small, rank=rank, world_size=world_size, batch_size=batch_size, state=state)
            reader._num_workers = num_workers
            reader._begin(reader._position)
            trained = min(steps, len(reader))
            tasks = [task for task, _ in zip(reader.tasks(), range(trained), strict=False)]
            seen.update(i for task in tasks for i in reader._open_reader().read(task).sample_ids.tolist())
            next_state = json.loads(json.dumps(reader.state(trained)))
            reader.close()
        state = next_state
        if state["epoch"] == 1:
            break
    assert state["epoch"] == 1
    assert seen == Counter(range(len(small.samples)))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_of_the_same_shape_goes_on_with_the_same_batches(small, num_workers):
    """Not only with the same samples: the numbers of the run are those of one that nothing has interrupted."""
    whole = [loader(small, rank=rank, world_size=3, batch_size=7, num_workers=num_workers) for rank in range(3)]
    state = json.loads(json.dumps(whole[0].state(5)))
    again = json.loads(
        json.dumps(loader(small, world_size=3, batch_size=7, num_workers=num_workers, state=state).state(2))
    )
    for rank in range(3):
        rest = loader(small, rank=rank, world_size=3, batch_size=7, num_workers=num_workers, state=again)
        assert [task.samples for task in rest.tasks()] == [task.samples for task in whole[rank].tasks()][7:]
        assert len(rest) == len(whole[rank]) - 7


def test_a_run_of_another_shape_deals_what_remains_again(small):
    state = loader(small, world_size=3, batch_size=7).state(5)
    parts = [loader(small, rank=rank, world_size=2, batch_size=7, state=state) for rank in range(2)]
    read = sorted(interval for part in parts for task in part.tasks() for interval in task.samples)
    assert merge_intervals(read) == merge_intervals(sorted(map(tuple, state["remaining"])))


def test_state_counts_trained_batches_not_fetched_ones(small):
    reader = loader(small, batch_size=20)
    taken = [b for b, _ in zip(reader, range(5), strict=False)]
    rest = batches(small, batch_size=20, state=reader.state(3))
    assert sorted(ids_of(taken[:3]) + ids_of(rest)) == list(range(len(small.samples)))
    assert reader.state(len(reader)) == loader(small, state=None).state(0) | {"epoch": 1}
    reader.close()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_expanded_where_it_is_read(small, num_workers):
    unique = batches(small, num_workers=0 if not num_workers else 2)
    expanded = batches(small, num_workers=num_workers, expand=True)
    assert len(unique) == len(expanded)
    for u, e in zip(unique, expanded, strict=True):
        same(u.expand(), e)
        want, found = u.sparse.to_kjt(), e.sparse.to_kjt()
        assert want.keys() == found.keys()
        assert torch.equal(want.values(), found.values())
        assert torch.equal(want.lengths(), found.lengths())


SPECS = {
    "history": [{"last_x": 2}, {"clamp": {"max": 40}}],
    "age": ["log", "standardize"],
    "price": [{"clamp": [0, 9]}, {"bucketize": [2, 4, 6]}],
    "tags": [{"hash": 7}],
}


def test_transforms_of_unique_rows_equal_those_of_samples(small):
    transforms = Transforms.parse(small.schema, SPECS).fit(small.clustered)
    for batch in batches(small, transforms=transforms):
        for number, (ids, dense) in zip(batch.sample_ids.tolist(), rows_of(batch), strict=True):
            s = small.samples[number]
            assert ids["history"] == [min(i, 40) for i in s.history[-2:]]
            arguments = transforms.steps["age"][1].arguments
            age = (np.log1p(s.age) - arguments["mean"]) / arguments["std"]
            price = sum(b <= np.clip(s.price, 0, 9) for b in (2, 4, 6))
            np.testing.assert_allclose(dense, [age, price], rtol=1e-4, atol=1e-5)
            assert len(ids["tags"]) == len(s.tags)
            assert all(0 <= t < 7 for t in ids["tags"])


def test_hashed_ids_lie_in_their_table_and_agree(small):
    found = {}
    for batch in batches(small):
        for number, (ids, _) in zip(batch.sample_ids.tolist(), rows_of(batch), strict=True):
            found.setdefault(small.samples[number].country, set()).add(ids["country"][0])
    assert all(len(rows) == 1 for rows in found.values())
    assert all(0 <= min(rows) < 64 for rows in found.values())
    assert len(set.union(*found.values())) > 30


def test_fewer_features(small):
    schema = small.schema.without(["history", "age", "tags", "price"])
    for batch in batches(small, schema=schema):
        assert batch.sparse.keys == ("country", "candidate")
        assert batch.dense == {}
        assert [g.name for g in batch.sparse.groups] == ["profile", "sample"]


def test_a_group_with_only_dense_features_has_an_inverse(small):
    for batch in batches(small, schema=small.schema.without(["history"])):
        ages = batch.dense_of("user").expand()[:, 0].tolist()
        assert ages == [small.samples[i].age for i in batch.sample_ids.tolist()]


def test_id_outside_its_table(spoiled):
    table = spoiled(number=130, history=[1, 2, 50])
    message = (
        r"user/part-\d+.parquet, row group \d, row \d+: feature 'history' holds id 50, table 'item' has rows 0..49; "
        r"train with data.tables.item.num_embeddings=51 or more or data.tables.item.hashed=true, or leave it out by "
        "reader.on_bad_id=drop"
    )
    with pytest.raises(DataError, match=message):
        batches(table)


def test_negative_id(spoiled):
    with pytest.raises(
        DataError, match=r"'candidate' holds id -1, .* rows 0..49; train with data.tables.item.hashed=t"
    ):
        batches(spoiled(candidate=-1))


def test_bad_ids_dropped_and_counted(spoiled, caplog):
    table = spoiled(number=130, history=[1, 77, 2], candidate=99)
    reader = loader(table, on_bad_id="drop")
    for batch in reader:
        for number, (ids, _) in zip(batch.sample_ids.tolist(), rows_of(batch), strict=True):
            if number == 130:
                assert (ids["history"], ids["candidate"]) == ([1, 2], [])
            else:
                assert ids["candidate"] == [table.samples[number].candidate]
    outside = "id outside table 'item'"
    assert reader.counts == {f"history: {outside}": 1, f"candidate: {outside}": 1}
    assert "candidate: id outside table 'item': 1 so far" in caplog.text
    reader.close()


def test_dense_value_that_is_not_finite(spoiled):
    table = spoiled(number=2, price=float("inf"))
    with pytest.raises(DataError, match=r"row group 0, row 2: dense feature 'price' is inf; .*reader.on_nan=zero"):
        batches(table)
    reader = loader(table, on_nan="zero")
    prices = {
        i: d for b in reader for i, d in zip(b.sample_ids.tolist(), b.dense["sample"][:, 0].tolist(), strict=True)
    }
    assert prices[2] == 0.0
    assert reader.counts == {"price: not finite": 1}
    reader.close()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_label_that_is_not_a_number(spoiled, num_workers):
    with pytest.raises(DataError, match=r"^[^\n]*row group \d, row \d+: label 'clicked' is nan[^\n]*$"):
        batches(spoiled(clicked=float("nan")), num_workers=num_workers)


def test_truncated_file_is_found_before_reading(spoiled):
    table = spoiled()
    path = table.path / "profile/part-00002.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"profile/part-00002.parquet: .*cut off or replaced"):
        loader(table)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tables": {"item": Table("item", 50, 4)}}, "feature 'country': no table 'country'"),
        ({"on_bad_id": "droop"}, "reader.on_bad_id=droop: unknown; did you mean 'drop'"),
        ({"on_nan": "ignore"}, "reader.on_nan=ignore: unknown"),
        ({"world_size": 1000}, "samples are left for 1000 ranks"),
        ({"batch_size": 0}, "batch_size=0, wanted at least 1"),
    ],
)
def test_options_that_do_not_fit(small, options, message):
    with pytest.raises(ConfigError, match=message):
        loader(small, **options)


def test_transforms_that_were_not_fitted(small):
    with pytest.raises(ConfigError, match=r"fit them on the training table first"):
        loader(small, transforms=Transforms.parse(small.schema, {"price": ["log", "standardize"]}))


def test_state_of_another_table(small, spoiled):
    state = loader(small).state(0)
    with pytest.raises(ConfigError, match=r"another table"):
        loader(spoiled(clicked=0.5), state=state)


def test_int64_ids_when_a_table_needs_them(small):
    tables = {**small.tables, "item": replace(small.tables["item"], num_embeddings=2**31)}
    assert next(iter(batches(small, tables=tables))).sparse.values.dtype == torch.int64


def test_leaving_the_loop_early_and_coming_back(small):
    reader = loader(small, batch_size=8)
    for _ in range(3):
        next(iter(reader))
    assert sorted(ids_of(reader)) == list(range(len(small.samples)))
    reader.close()


def test_a_newer_iteration_ends_the_older_one(small):
    reader = loader(small, batch_size=8)
    older = iter(reader)
    next(older)
    assert sorted(ids_of(reader)) == list(range(len(small.samples)))
    with pytest.raises(RuntimeError, match=r"ended by a newer one"):
        list(older)
    reader.close()
