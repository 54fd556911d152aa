"""Keys of shards in; pieces, numbered parts and their first samples out."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.errors import DataError
from recd_dist.etl.deal.arrange import arrange
from recd_dist.etl.deal.keys import HASH, SIZE, Rules
from recd_dist.etl.deal.plan_parts import PartsPlan, PlannedPart, piece_bounds, plan_parts, survey_shard
from recd_dist.etl.source.inspection import SESSION, TEST, TIMESTAMP


def keys(session: list[int], time: list[int], size: list[int], **more: list[object]) -> pa.Table:
    content = list(range(len(session)))
    columns = {SESSION: session, TIMESTAMP: time, HASH: content, SIZE: pa.array(size, pa.int32())}
    return pa.table(columns | more)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=40), st.integers(1, 60))
def test_pieces_keep_sessions_whole_and_stay_below_the_limit(rows, limit):
    sessions, sizes = (list(column) for column in zip(*rows, strict=True))
    arrangement = arrange(keys(sessions, list(range(len(rows))), sizes), Rules())
    size_of_row = np.array(sizes, np.int32)
    bounds = piece_bounds(arrangement, size_of_row, limit)
    assert (bounds[0], bounds[-1]) == (0, len(rows))
    for start, end in pairwise(bounds.tolist()):
        assert end > start
        slices = arrangement.session_slice[start:end]
        assert size_of_row[arrangement.rows[start:end]].sum() <= limit or len(set(slices.tolist())) == 1
        for edge in (start, end):
            if 0 < edge < len(rows):
                assert arrangement.session_slice[edge - 1] != arrangement.session_slice[edge]


def test_parts_and_samples_are_numbered_through_shards_and_pieces(tmp_path):
    first = keys([1, 1, 2], [0, 1, 2], [8, 8, 8], **{TEST: [False, False, True]})
    second = keys([3, 4, 4], [0, 1, 2], [8, 8, 8], **{TEST: [False, False, False]})
    surveys = [survey_shard(shard, Rules(), shard_bytes=16) for shard in (first, second)]
    starts = {"train": 5, "test": 0}, {"train": 100, "test": 0}
    plan = plan_parts(surveys, Rules(), ("train", "test"), *starts, must_have=())
    assert plan.parts == (
        PlannedPart(shard=0, piece=0, split=0, partition="", number=5, num_samples=2, first_sample=100),
        PlannedPart(shard=0, piece=1, split=1, partition="", number=0, num_samples=1, first_sample=0),
        PlannedPart(shard=1, piece=0, split=0, partition="", number=6, num_samples=1, first_sample=102),
        PlannedPart(shard=1, piece=1, split=0, partition="", number=7, num_samples=2, first_sample=103),
    )
    plan.save(tmp_path / "plan.json")
    assert PartsPlan.load(tmp_path / "plan.json") == plan


def test_a_share_is_of_the_sessions_of_all_shards():
    rules = Rules(test_share=0.25)
    shards = [keys([1, 1, 2], [0, 9, 7], [8, 8, 8]), keys([3, 4], [3, 8], [8, 8])]
    surveys = [survey_shard(shard, rules, shard_bytes=1000) for shard in shards]
    zero = {"train": 0, "test": 0}
    plan = plan_parts(surveys, rules, ("train", "test"), zero, zero, must_have=("train", "test"))
    assert plan.threshold == (8, 4)  # session 4 begins last
    assert [(part.shard, part.split, part.num_samples) for part in plan.parts] == [(0, 0, 3), (1, 0, 1), (1, 1, 1)]


def test_a_split_that_needs_a_sample_must_have_one():
    survey = survey_shard(keys([1], [0], [8]), Rules(), shard_bytes=16)
    zero = {"train": 0, "test": 0}
    with pytest.raises(DataError, match="no sample is in 'test'"):
        plan_parts([survey], Rules(), ("train", "test"), zero, zero, must_have=("train", "test"))
