"""Every part of a plan is written, several shards at a time, and noted as done: a killed run goes on after it."""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from recd_dist.etl.budget import release_memory
from recd_dist.etl.deal.load import ShardSource
from recd_dist.etl.deal.plan_parts import PartsPlan, PlannedPart
from recd_dist.etl.deal.prepare import Preparation
from recd_dist.etl.deal.tally import Dropped
from recd_dist.etl.write.measure import Distinct
from recd_dist.etl.write.part import Form, Result, written

_Made = tuple[PlannedPart, Result, Dropped]


@dataclass
class Written:
    """What has been written.

    Attributes:
        parts: per split what was measured of each part, ids apart.
        ids: per embedding table, of all parts.
        dropped: samples that policies left out.
    """

    parts: dict[str, list[Result]]
    ids: dict[str, Distinct] = field(default_factory=dict)
    dropped: Dropped = field(default_factory=Dropped)

    def add(self, split: str, result: Result, dropped: Dropped) -> None:
        """Adds a part; its ids are counted with the others', since they take much memory."""
        for table, distinct in result.ids.items():
            self.ids.setdefault(table, Distinct()).merge(distinct)
        self.parts[split].append(replace(result, ids={}))
        self.dropped.merge(dropped)


def write_parts(
    reader: ShardSource,
    plan: PartsPlan,
    form: Form,
    preparation: Preparation,
    splits: tuple[str, ...],
    work: Path,
    num_threads: int,
    done: Callable[[int], None],
) -> Written:
    """Writes the parts that are not there yet; what they hold does not depend on who is first.

    Args:
        reader: of the shards.
        plan: of the parts.
        form: what parts have in common.
        preparation: knows the checksums of samples that are left out.
        splits: names of the splits.
        work: directory of work; tables are written below its ``table``.
        num_threads: shards that are worked on at once.
        done: called with the number of samples of each row group written, or of a shard that was there.

    """
    notes = work / "parts"
    notes.mkdir(exist_ok=True)

    def one(shard: int) -> list[_Made]:
        parts = [part for part in plan.parts if part.shard == shard]
        note = notes / f"shard-{shard:05d}.json"
        if note.is_file():
            done(sum(part.num_samples for part in parts))
            return _read(note, parts)
        made = []
        for part, loaded in reader.read_parts(shard, parts):
            table = work / "table" / splits[part.split]
            result = written(loaded.samples, loaded.order, form, table, part.number, part.first_sample, done)
            if loaded.originals is not None and loaded.originals.num_rows:
                preparation.check_duplicates(loaded.dropped["duplicate"], loaded.originals)
            dropped = _noted(loaded.dropped.items(), preparation)
            made.append((part, result.described(part.partition, part.first_sample), dropped))
        _note(note, made)
        release_memory()
        return made

    found = Written({split: [] for split in splits})
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for made in pool.map(one, sorted({part.shard for part in plan.parts})):
                for part, result, dropped in made:
                    found.add(splits[part.split], result, dropped)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    found.dropped.merge(_noted(reader.read_left_out(), preparation))
    return found


def _noted(left_out: Iterable[tuple[str, pa.Table]], preparation: Preparation) -> Dropped:
    """Counts and checksums of samples that policies leave out."""
    dropped = Dropped()
    for reason, samples in left_out:
        dropped.add(reason, samples.num_rows, preparation.checksums(samples))
    return dropped


def _note(path: Path, made: list[_Made]) -> None:
    """Notes a shard as done, once its files are."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps([[result.to_json(), asdict(dropped)] for _, result, dropped in made]))
    partial.replace(path)


def _read(path: Path, parts: list[PlannedPart]) -> list[_Made]:
    """What an earlier run noted of a shard."""
    value = json.loads(path.read_text())
    return [
        (part, Result.from_json(result), Dropped(**dropped))
        for part, (result, dropped) in zip(parts, value, strict=True)
    ]
