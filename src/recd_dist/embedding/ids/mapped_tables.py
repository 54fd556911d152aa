"""Mapped tables: raw ids of a batch, any int64, become the rows that the ids have been given.

::

    raw ids  --distinct, with lookups-->  owners: find, admit, evict  --rows-->  batch of rows, as if the ids were these
                                                                      --.
    train the batch  <--first: reset the rows that were taken-----------'    then ``KeptIds`` takes the change over

Deduplicated or not, the batch is mapped before any table sees it, so that both ways train the same rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from recd_dist.embedding.ids.distinct_of_batch import Distinct, find_distinct
from recd_dist.embedding.ids.given_rows import GivenRows
from recd_dist.embedding.ids.id_loops import find_zones
from recd_dist.embedding.ids.kept_ids import Change, KeptIds, RowFinder
from recd_dist.embedding.ids.row_owners import Blocks, RowOwners
from recd_dist.embedding.ids.zones import UNKNOWN, Zones, count_zones
from recd_dist.table.column import Array
from recd_dist.table.schema import Schema, Table
from recd_dist.tensors.ikjt import IKJT


@dataclass
class Counts:
    """What was counted for one table.

    Attributes:
        lookups, unknown: lookups of this rank's samples, and those of the unknown row among them.
        admitted, evicted: ids that have got a row in this rank's zones, and that have lost theirs to another one.
    """

    lookups: int = 0
    unknown: int = 0
    admitted: int = 0
    evicted: int = 0

    def add(self, other: "Counts") -> None:
        """Adds the counts of another batch."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class Mapped:
    """A batch whose ids are rows, and what its training brings with it.

    Attributes:
        sparse: the batch, with int32 rows where every table has fewer than 2^31 of them.
        reset: for each table the rows of all ranks that were taken from other ids, int64. Before the batch looks up its
            rows, and after the batches before it were trained, they are set to their initial values.
        changes: for each table what ``KeptIds`` takes over.
        counts: for each table what was counted.
    """

    sparse: IKJT
    reset: Mapping[str, Array] = field(default_factory=dict)
    changes: Mapping[str, Change] = field(default_factory=dict)
    counts: Mapping[str, Counts] = field(default_factory=dict)


class MappedTables:
    """The mapped tables of a model, over ranks. Every method that maps is a collective.

    Args:
        schema: the features that are looked up.
        tables: all embedding tables, by name.
        owners: the ranks.

    Attributes:
        kept: for each mapped table the ids as of the last step that was trained.
    """

    def __init__(self, schema: Schema, tables: Mapping[str, Table], owners: RowOwners) -> None:
        self._owners = owners
        self._features = {
            name: tuple(f.name for f in schema.sparse if f.table == name)
            for name in schema.tables
            if tables[name].mapped is not None
        }
        # Also tables that are not looked up: their ids, such as times, are in the batch as they are.
        largest = max((table.num_embeddings for table in tables.values()), default=0)
        self._dtype = np.dtype(np.int32 if largest < 2**31 else np.int64)
        self.kept: dict[str, KeptIds] = {}
        for name in self._features:
            size, rules = tables[name].num_embeddings, tables[name].mapped
            if rules is not None:
                self.kept[name] = KeptIds(Zones(size, count_zones(size), owners.rank, owners.world_size), rules)
        self._given: dict[str, GivenRows] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the mapped tables."""
        return tuple(self._features)

    def begin(self) -> None:
        """Goes on from the ids that are kept; call it once they are loaded, before the first ``give``."""
        self._given = {name: GivenRows(kept) for name, kept in self.kept.items()}

    def give(self, sparse: IKJT, step: int) -> Mapped:
        """Maps a batch that will be trained: ids are counted, admitted and evicted.

        Args:
            sparse: the batch with raw ids, on the host.
            step: the number of the step that will train it: one more than that of the batch mapped before.
        """
        asked = {name: find_distinct(sparse, keys) for name, keys in self._features.items()}
        blocks, orders = self._ask(asked, with_counts=True)
        came = [_unpack(block, len(asked), 2) for block in self._owners.exchange(blocks)]
        answers: list[list[Array]] = [[] for _ in came]
        changes, taken, counts = {}, [], {}
        for number, name in enumerate(asked):
            ids = [parts[number][0] for parts in came]
            merged, places = np.unique(np.concatenate(ids), return_inverse=True)
            lookups = np.bincount(places, np.concatenate([parts[number][1] for parts in came]), len(merged))
            given = self._given[name].give(merged, lookups.astype(np.int64), step)
            changes[name], counts[name] = given.change, Counts(admitted=given.num_admitted, evicted=len(given.reset))
            taken.append(given.reset)
            ends = np.cumsum([len(of_rank) for of_rank in ids])
            for answer, rows_of_rank in zip(answers, np.split(given.rows[places], ends[:-1]), strict=True):
                answer.append(rows_of_rank)
        header = np.array([len(reset) for reset in taken], np.int64)
        sizes = [len(asked) + sum(len(o[rank]) for o in orders.values()) for rank in range(self._owners.world_size)]
        told = self._owners.send([np.concatenate([header, *answer]) for answer in answers], sizes)
        rows = self._sort_answers([block[len(asked) :] for block in told], orders)
        resets = self._gather_resets(taken, [block[: len(asked)] for block in told])
        for name, of_table in asked.items():
            counts[name].lookups = int(of_table.counts.sum())
            counts[name].unknown = int(of_table.counts[rows[name] == UNKNOWN].sum())
        return Mapped(self._replace(sparse, asked, rows), dict(zip(asked, resets, strict=True)), changes, counts)

    def finders(self, step: int) -> dict[str, RowFinder]:
        """For each table what finds the rows that ids have after a step, until a further step is trained."""
        return {name: kept.finder(step) for name, kept in self.kept.items()}

    def find(self, sparse: IKJT, finders: Mapping[str, RowFinder]) -> Mapped:
        """Maps a batch that is evaluated: ids that have no row get the unknown one, and nothing changes.

        Args:
            sparse: the batch with raw ids, on the host.
            finders: what ``finders`` returned.
        """
        asked = {name: find_distinct(sparse, keys) for name, keys in self._features.items()}
        blocks, orders = self._ask(asked, with_counts=False)
        came = [_unpack(block, len(asked), 1) for block in self._owners.exchange(blocks)]
        answers = [
            np.concatenate([finders[name].find(parts[number][0]) for number, name in enumerate(asked)])
            for parts in came
        ]
        sizes = [sum(len(o[rank]) for o in orders.values()) for rank in range(self._owners.world_size)]
        rows = self._sort_answers(self._owners.send(answers, sizes), orders)
        counts = {
            name: Counts(int(of.counts.sum()), int(of.counts[rows[name] == UNKNOWN].sum()))
            for name, of in asked.items()
        }
        return Mapped(self._replace(sparse, asked, rows), counts=counts)

    def _ask(self, asked: Mapping[str, Distinct], with_counts: bool) -> tuple[Blocks, dict[str, list[Array]]]:
        """For each rank what it is asked, and for each table and rank the places of the ids that it is asked for.

        A block has how many ids of each table it holds, then ids, and lookups if they count, table after table.
        """
        orders: dict[str, list[Array]] = {}
        for name, of_table in asked.items():
            zones = self.kept[name].zones
            zone = np.empty(len(of_table.ids), np.int64)
            find_zones(of_table.ids, zones.num_zones, zone)
            owner = np.searchsorted(zones.of_ranks, zone, "right") - 1
            order, ends = np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner, minlength=zones.world_size))
            orders[name] = np.split(order, ends[:-1])
        blocks = []
        for rank in range(self._owners.world_size):
            parts = [np.array([len(order[rank]) for order in orders.values()], np.int64)]
            for name, of_table in asked.items():
                parts.append(of_table.ids[orders[name][rank]])
                if with_counts:
                    parts.append(of_table.counts[orders[name][rank]])
            blocks.append(np.concatenate(parts))
        return blocks, orders

    def _sort_answers(self, answers: Blocks, orders: Mapping[str, list[Array]]) -> dict[str, Array]:
        """For each table the rows of its distinct ids, from what each rank has answered."""
        rows = {name: np.empty(sum(map(len, order)), np.int64) for name, order in orders.items()}
        for rank, answer in enumerate(answers):
            start = 0
            for name, order in orders.items():
                end = start + len(order[rank])
                rows[name][order[rank]] = answer[start:end]
                start = end
        return rows

    def _gather_resets(self, taken: list[Array], headers: list[Array]) -> list[Array]:
        """For each table the rows that were taken on any rank; ``headers`` has for each rank and table how many."""
        of_ranks = self._owners.gather(np.concatenate(taken), [int(header.sum()) for header in headers])
        parts = [np.split(rows, np.cumsum(header)[:-1]) for rows, header in zip(of_ranks, headers, strict=True)]
        return [np.concatenate([part[number] for part in parts]) for number in range(len(taken))]

    def _replace(self, sparse: IKJT, asked: Mapping[str, Distinct], rows: Mapping[str, Array]) -> IKJT:
        """The batch with rows in place of the ids of mapped tables."""
        values = sparse.values.numpy().astype(self._dtype)
        offsets, numbers = sparse.value_offsets, {key: number for number, key in enumerate(sparse.keys)}
        for name, of_table in asked.items():
            found, start = rows[name].astype(self._dtype), 0
            for key in self._features[name]:
                at = slice(offsets[numbers[key]], offsets[numbers[key] + 1])
                end = start + at.stop - at.start
                values[at] = found[of_table.places[start:end]]
                start = end
        mapped = torch.from_numpy(values)
        return replace(sparse, values=mapped.pin_memory() if sparse.values.is_pinned() else mapped)


def _unpack(block: Array, num_tables: int, num_arrays: int) -> list[list[Array]]:
    """For each table the arrays of a block that ``_ask`` has made."""
    tables, start = [], num_tables
    for size in block[:num_tables].tolist():
        ends = [start + size * (number + 1) for number in range(num_arrays)]
        tables.append([block[end - size : end] for end in ends])
        start = ends[-1]
    return tables
