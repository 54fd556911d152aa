"""What a model has never met: new rows of its tables, and the share of the lookups that goes to them."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from recd_dist.embedding.ids.distinct_of_batch import find_distinct
from recd_dist.embedding.unchanged_rows import count_rows, find_unchanged
from recd_dist.job.job import Job
from recd_dist.metrics.gather import reduce_over_ranks
from recd_dist.ranks.process_group import Ranks
from recd_dist.table.column import Array
from recd_dist.tensors.batch import Batch


class NewRows:
    """Counts what batches look up of rows that no step has changed. Making it is a collective.

    Args:
        job: the job.
        ranks: this rank.
        model: the sharded model.
    """

    def __init__(self, job: Job, ranks: Ranks, model: Any) -> None:
        self._ranks, schema = ranks, model.module.embeddings.schema
        names = [name for name in schema.tables if job.tables[name].mapped is None]
        self._features = {name: tuple(f.name for f in schema.sparse if f.table == name) for name in names}
        own = {name: ((job.tables[name].num_embeddings, job.config.seed),) for name in names}
        drawn = {name: job.chain.drawn.get(name) or own[name] for name in names}
        self._unchanged = find_unchanged(model.module, drawn, ranks.device)
        self._met: dict[str, Array] = {name: np.zeros(len(rows), bool) for name, rows in self._unchanged.items()}
        self._lookups = dict.fromkeys(self._met, 0)
        self._unknown = dict.fromkeys(self._met, 0)

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches, counted on their way."""
        for batch in batches:
            for name, unchanged in self._unchanged.items():
                found = find_distinct(batch.sparse, self._features[name])
                is_new = unchanged[found.ids]
                self._met[name][found.ids[is_new]] = True
                self._lookups[name] += int(found.counts.sum())
                self._unknown[name] += int(found.counts[is_new].sum())
            yield batch

    def sums(self) -> tuple[dict[str, int], dict[str, float]]:
        """For each table the new rows, and the share of lookups that went to them; a collective."""
        mine = {f"lookups/{name}": float(number) for name, number in self._lookups.items()}
        mine |= {f"unknown/{name}": float(number) for name, number in self._unknown.items()}
        sums = reduce_over_ranks(mine, "sum", self._ranks.device) if mine else {}
        shares = {name: sums[f"unknown/{name}"] / max(1.0, sums[f"lookups/{name}"]) for name in self._lookups}
        return count_rows(self._met, self._ranks.device), shares
