"""Writes every part of a plan, several shards at once, and records finished shards.

A run that was killed reads the records of the shards that it finished, and writes only the others.
"""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from recd_dist.etl.deal.load import PartSamples, ShardSource
from recd_dist.etl.deal.plan_parts import PartsPlan, PlannedPart
from recd_dist.etl.deal.prepare import Preparation
from recd_dist.etl.deal.tally import Dropped
from recd_dist.etl.source.budget import release_memory
from recd_dist.etl.write.distinct_ids import DistinctIds
from recd_dist.etl.write.part_result import PartResult
from recd_dist.etl.write.table_form import TableForm
from recd_dist.etl.write.write_one_part import write_part
from recd_dist.files.whole_file import write_whole

_FinishedPart = tuple[PlannedPart, PartResult, Dropped]


@dataclass
class WrittenParts:
    """The parts of a table that have been written.

    Attributes:
        parts: for each split the result of each part, without the part's ids.
        ids: the distinct ids of each embedding table, over all parts.
        dropped: the samples that policies left out.
    """

    parts: dict[str, list[PartResult]]
    ids: dict[str, DistinctIds] = field(default_factory=dict)
    dropped: Dropped = field(default_factory=Dropped)

    def add(self, split: str, result: PartResult, dropped: Dropped) -> None:
        """Adds a part. Its ids are merged with those of the other parts at once, since they take much memory."""
        for table, distinct in result.ids.items():
            self.ids.setdefault(table, DistinctIds()).merge(distinct)
        self.parts[split].append(replace(result, ids={}))
        self.dropped.merge(dropped)


def write_parts(
    reader: ShardSource,
    plan: PartsPlan,
    form: TableForm,
    preparation: Preparation,
    splits: tuple[str, ...],
    work: Path,
    num_threads: int,
    done: Callable[[int], None],
) -> WrittenParts:
    """Writes the parts that no earlier run has written; their contents do not depend on which shard is done first.

    Args:
        reader: reads the shards.
        plan: lists the parts.
        form: what every part of the table has in common.
        preparation: computes the checksums of samples that are left out.
        splits: names of the splits.
        work: directory of work; the tables are written below its ``table``, the records below its ``parts``.
        num_threads: number of shards that are written at once.
        done: called with the number of samples of each row group that has been written, and of each shard that an
            earlier run wrote.
    """
    (work / "parts").mkdir(exist_ok=True)

    def write_shard(shard: int) -> list[_FinishedPart]:
        plans = [part for part in plan.parts if part.shard == shard]
        record = record_of(work, shard)
        if record.is_file():
            done(sum(part.num_samples for part in plans))
            return _load_record(record, plans)
        finished = [
            _write_part(part, loaded, form, preparation, work / "table" / splits[part.split], done)
            for part, loaded in reader.read_parts(shard, plans)
        ]
        _save_record(record, finished)
        release_memory()
        return finished

    written = WrittenParts({split: [] for split in splits})
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for finished in pool.map(write_shard, sorted({part.shard for part in plan.parts})):
                for part, result, dropped in finished:
                    written.add(splits[part.split], result, dropped)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    written.dropped.merge(_count_dropped(reader.read_left_out(), preparation))
    return written


def record_of(work: Path, shard: int) -> Path:
    """The file that records that a shard has been written.

    Args:
        work: directory of work.
        shard: number of the shard.
    """
    return work / "parts" / f"shard-{shard:05d}.json"


def _write_part(
    plan: PlannedPart,
    loaded: PartSamples,
    form: TableForm,
    preparation: Preparation,
    table: Path,
    done: Callable[[int], None],
) -> _FinishedPart:
    """Writes one part, and counts the samples that policies leave out of it."""
    result = write_part(loaded.samples, loaded.order, form, table, plan.number, plan.first_sample, done, plan.partition)
    if loaded.originals is not None and loaded.originals.num_rows:
        preparation.check_duplicates(loaded.dropped["duplicate"], loaded.originals)
    return plan, result, _count_dropped(loaded.dropped.items(), preparation)


def _count_dropped(left_out: Iterable[tuple[str, pa.Table]], preparation: Preparation) -> Dropped:
    """Counts samples that policies leave out, and sums their checksums.

    Args:
        left_out: pairs of a reason and the samples that are left out for it.
        preparation: computes the checksums.
    """
    dropped = Dropped()
    for reason, samples in left_out:
        dropped.add(reason, samples.num_rows, preparation.checksums(samples))
    return dropped


def _save_record(path: Path, finished: list[_FinishedPart]) -> None:
    """Records a shard as written, after its files are."""
    write_whole(path, json.dumps([[result.to_json(), asdict(dropped)] for _, result, dropped in finished]))


def _load_record(path: Path, plans: list[PlannedPart]) -> list[_FinishedPart]:
    """Reads what an earlier run recorded of a shard."""
    value = json.loads(path.read_text())
    return [
        (plan, PartResult.from_json(result), Dropped(**dropped))
        for plan, (result, dropped) in zip(plans, value, strict=True)
    ]
