"""Rows and ids of a batch, counted in the batch or computed from the statistics of a table."""

from dataclasses import replace

import pytest
import torch
from tests.plan.small_tables import SCHEMA, STEP, TABLES, embeddings
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.plan.step_rows import StepRows, TableUse, ids_and_rows, length_bytes, table_uses
from recd_dist.table.manifest import FeatureStats, IdStats, Manifest
from recd_dist.tensors.deduplicate import deduplicate
from recd_dist.tensors.find_windows import find_windows


def test_statistics_of_a_table() -> None:
    stats = {
        "history": FeatureStats(2000, 20000, 30, 0.9),
        "clicks": FeatureStats(500, 5000, 9, 0.9),
        "candidate": FeatureStats(1000, 1000, 1, 0.0),
        "place": FeatureStats(1000, 1000, 1, 0.0),
    }
    ids = {t: IdStats(0, 9, 10) for t in TABLES}
    manifest = Manifest("t", "train", SCHEMA, 1000, 100, 100, {"user": 100}, stats, ids, ())
    assert StepRows.of_table(manifest, SCHEMA, 100) == STEP


def test_a_batch_is_counted() -> None:
    """Three samples of two users: [7, 8], [7, 8], [9] of history; [1], [1], [] of clicks; candidates 7, 7, 5."""
    lists = [[7, 8], [7, 8], [9], [1], [1], [], [7], [7], [5], [0], [0], [0]]
    batch = KeyedJaggedTensor(
        [f.name for f in SCHEMA.sparse],
        torch.tensor([i for row in lists for i in row], dtype=torch.int32),
        lengths=torch.tensor([len(row) for row in lists], dtype=torch.int32),
    )
    uses = table_uses(embeddings(send={"item": "ids"}))
    step = StepRows.of_batch(deduplicate(batch, {"user": ["history", "clicks"]}), uses)
    assert (step.batch_size, step.id_bytes, step.length_bytes) == (3, 4, 1)
    assert step.rows == {"history": 2, "clicks": 2, "candidate": 3, "place": 3}
    assert step.unique_ids == {"history": 3, "clicks": 1, "candidate": 3, "place": 3}
    assert step.expanded_ids == {"history": 5, "clicks": 2, "candidate": 3, "place": 3}
    assert step.distinct_ids == {"item": 4, "article": 1}  # 7, 8, 9 and 5; 1


def test_windows_are_counted_where_their_ids_are_shared() -> None:
    """Two samples of two users, whose histories and clicks shift by one id: what pools at home travels as lists."""
    lists = [[7, 8], [8, 9], [1, 2, 3], [2, 3, 3], [7], [7], [0], [0]]
    kjt = KeyedJaggedTensor(
        [f.name for f in SCHEMA.sparse],
        torch.tensor([i for row in lists for i in row], dtype=torch.int32),
        lengths=torch.tensor([len(row) for row in lists], dtype=torch.int32),
    )
    batch = find_windows(deduplicate(kjt, {"user": ["history", "clicks"]}), ["history", "clicks"])
    for send, article in (("rows", 4), ("ids", 3)):
        uses = {use.table: use for use in table_uses(embeddings(send={"article": send}))}
        step = StepRows.of_batch(batch, list(uses.values()), exact=True)
        assert step.unique_ids == {"history": 4, "clicks": 6, "candidate": 2, "place": 2}
        assert step.stored_ids == {"history": 3, "clicks": 4}
        assert ids_and_rows(uses["item"], step, dedup=True) == (6, 4)
        assert ids_and_rows(uses["article"], step, dedup=True) == (article, None)
        assert sorted(step.ids["item"].tolist()) == [7, 7, 7, 8, 8, 9]
        assert sorted(step.ids["article"].tolist()) == [1, 2, 3, 3][:article]
    mean = StepRows.mean([step, StepRows.of_batch(batch.lists(), list(uses.values()), exact=True)])
    assert mean.stored_ids == {"history": 3.5, "clicks": 5}


@pytest.mark.parametrize(("longest", "num_bytes"), [(0, 1), (255, 1), (256, 2), (2**15 - 1, 2), (2**15, 4)])
def test_lengths_are_sent_in_the_fewest_bytes(longest: int, num_bytes: int) -> None:
    assert length_bytes(longest) == num_bytes


def test_distinct_ids_of_several_batches_grow_as_they_were_counted() -> None:
    use = TableUse("item", 1000, 16, ("history",), is_sequence=False)
    one = {"history": 100.0}
    step = StepRows(10, one, one, one, distinct_ids={"item": 100}, distinct_of={"item": (100.0, 150.0, 180.0)})
    assert [step.num_distinct_of(use, n) for n in (1, 2, 4)] == pytest.approx([100, 150, 180])
    assert step.num_distinct_of(use, 8) == pytest.approx(180 * 180 / 150)  # as from two to four
    assert replace(step, distinct_of={}).num_distinct_of(use, 8) == 800
    assert replace(step, distinct_of={}).num_distinct_of(use, 80) == 1000  # all rows of the table
