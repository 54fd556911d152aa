"""Parts in memory: a shard in run files and the same shard in one table give the same samples."""

import numpy as np
import pyarrow as pa

from recd_dist.etl.deal.keys import HASH, KEY_COLUMNS, SIZE, Rules
from recd_dist.etl.deal.load import PartReader, ShardReader
from recd_dist.etl.deal.plan_parts import PartsPlan, plan_parts, survey_shards
from recd_dist.etl.deal.shards import Shards
from recd_dist.etl.deal.spill import Spill
from recd_dist.etl.deal.tally import Tally
from recd_dist.etl.source.inspection import REQUEST, SESSION, TEST, TIMESTAMP

RULES = Rules(drop_duplicates=True)


class InMemory:
    """A shard as one table."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def read_keys(self) -> pa.Table:
        return self.table.select([name for name in KEY_COLUMNS if name in self.table.column_names])

    def read_samples(self) -> list[pa.Table]:
        return [self.table]


def samples(session: list[int], time: list[int], content: list[int]) -> pa.Table:
    sizes = pa.array([8] * len(session), pa.int32())
    return pa.table({SESSION: session, TIMESTAMP: time, HASH: content, SIZE: sizes, "item": content})


def spilled(path, tables: list[pa.Table], shard_bytes: int, splits=("train",)) -> tuple[Shards, PartsPlan]:
    spill = Spill(path, buffer_bytes=1, num_buckets=1)  # each table becomes a run file
    for table in tables:
        spill.add(table)
    shards = Shards(spill.finish(), Tally(), shard_bytes)
    zero = dict.fromkeys(splits, 0)
    return shards, plan_parts(survey_shards(shards, RULES, 1), RULES, splits, zero, zero, splits)


def test_a_shard_in_run_files_is_read_as_it_is_from_one_table(tmp_path):
    tables = [samples([2, 1, 2], [5, 4, 5], [7, 8, 7]), samples([3, 1], [6, 1], [9, 6])]
    shards, plan = spilled(tmp_path / "runs", tables, shard_bytes=20)
    assert [(part.piece, part.num_samples) for part in plan.parts] == [(0, 2), (1, 2)]
    on_disk = list(ShardReader(shards, RULES, plan, has_time=True).read_parts(0, plan.parts))
    reader = PartReader(RULES, plan, shards.shard_bytes, has_time=True)
    in_memory = list(reader.read_parts(InMemory(pa.concat_tables(tables)), plan.parts))
    for loaded in (on_disk, in_memory):
        items = [part.samples["item"].take(pa.array(part.order)).to_pylist() for _, part in loaded]
        assert items == [[6, 8], [7, 9]]  # session 1 by time; sessions 2 and 3
        assert [part.samples[REQUEST].take(part.order).to_pylist() for _, part in loaded] == [[1, 1], [2, 3]]
        first, second = (part for _, part in loaded)
        assert (first.dropped["duplicate"]["item"].to_pylist(), first.originals["item"].to_pylist()) == ([7], [7])
        assert (dict(second.dropped), second.originals) == ({}, None)


def test_only_the_first_part_of_a_piece_is_told_what_is_left_out(tmp_path):
    table = samples([1, 1, 2], [0, 0, 0], [5, 5, 6]).append_column(TEST, pa.array([False, False, True]))
    shards, plan = spilled(tmp_path / "runs", [table], shard_bytes=100, splits=("train", "test"))
    assert [(part.piece, part.split) for part in plan.parts] == [(0, 0), (0, 1)]
    parts = ShardReader(shards, RULES, plan, has_time=True).read_parts(0, plan.parts)
    left_out = [(list(part.dropped), part.originals is not None) for _, part in parts]
    assert left_out == [(["duplicate"], True), ([], False)]


def test_a_shard_without_a_part_tells_what_is_left_out(tmp_path):
    rules = Rules(gap_us=10, share=1e-9)
    shards, _ = spilled(tmp_path / "runs", [samples([1, 2], [0, 0], [5, 6])], shard_bytes=100)
    plan = PartsPlan((), None, {})
    left_out = list(ShardReader(shards, rules, plan, has_time=True).read_left_out())
    assert [(reason, sorted(table["item"].to_pylist())) for reason, table in left_out] == [("sampled", [5, 6])]


def test_without_a_timestamp_the_times_of_the_table_are_zero(tmp_path):
    shards, plan = spilled(tmp_path / "runs", [samples([1, 1], [3, 4], [5, 6])], shard_bytes=100)
    part = ShardReader(shards, RULES, plan, has_time=False).read_first_part()
    assert part.samples[TIMESTAMP].to_numpy().tolist() == [0, 0]
    assert np.array_equal(part.order, [0, 1])
