"""Mapped tables that have more rows than in the checkpoint from which a run begins: their ids are dealt to zones anew.

::

    checkpoint   row   0        1   2   3   4          this run   row   0        1   2   3 | 4   5   6
                 id    unknown  70  12  -   33                    id    unknown  70  33  -   12  -   -
                                zone 0                                           zone 0      zone 1

The zone of an id depends on the number of rows. So ids, weights and optimizer states move together, under any sharding
and on any number of ranks; no id loses its row, unless a zone gets more ids than it has rows: then those that were not
seen for longest do. Rows without an id are drawn as in a new run.
"""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from recd_dist.embedding.ids.id_loops import find_zones
from recd_dist.embedding.ids.kept_ids import NEVER, KeptIds
from recd_dist.embedding.ids.reset_rows import RowReset
from recd_dist.embedding.ids.table_parts import TablePart, parts_of_tables
from recd_dist.embedding.ids.zones import UNKNOWN, Zones, count_zones
from recd_dist.table.column import Array

logger = logging.getLogger(__name__)

_AT_ONCE = 1 << 22
"""Numbers of a table that travel together."""


class Dealt(NamedTuple):
    """Ids that were dealt to the rows of a larger table.

    Attributes:
        arrays: the content of the tensors of ``KeptIds`` by name, of the whole table.
        rows: int64 [rows before], the row to which each row goes; -1 for rows without an id, and of ids that lose it.
        num_lost: ids that had a row, and have none now.
    """

    arrays: dict[str, Array]
    rows: Array
    num_lost: int


def deal_anew(stored: Mapping[str, Array], num_embeddings: int) -> Dealt:
    """Deals the ids of a mapped table to the rows of a larger one.

    Args:
        stored: the content of the tensors of ``KeptIds`` by name, of the whole table.
        num_embeddings: the rows of the larger table, the unknown one included.
    """
    zones = Zones(num_embeddings, count_zones(num_embeddings))
    rows = _deal(stored["row_ids"], stored["row_seen"], zones)
    had = int((stored["row_seen"] != NEVER).sum())
    empty = {name: NEVER if name.endswith("_seen") else 0 for name in stored}
    waiting = _deal(stored["waiting_ids"], stored["waiting_seen"], zones) if "waiting_ids" in stored else rows
    arrays = {
        name: _placed(values, rows if name.startswith("row_") else waiting, num_embeddings, empty[name])
        for name, values in stored.items()
    }
    num_lost = had - int((rows >= 0).sum())
    rows[UNKNOWN] = UNKNOWN
    return Dealt(arrays, rows, num_lost)


def _deal(ids: Array, seen: Array, zones: Zones) -> Array:
    """The place of each id in its zone, from the zone's first row on; -1 where there is no id, or no place."""
    known = np.flatnonzero(seen != NEVER)
    zone = np.empty(len(known), np.int64)
    find_zones(ids[known], zones.num_zones, zone)
    newest_first = np.lexsort((ids[known], -seen[known], zone))
    known, zone = known[newest_first], zone[newest_first]
    number = np.arange(len(known)) - np.searchsorted(zone, zone)  # in its zone
    has_place = number < np.diff(zones.firsts)[zone]
    places = np.full(len(ids), -1, np.int64)
    places[known[has_place]] = zones.firsts[zone[has_place]] + number[has_place]
    return places


def _placed(values: Array, places: Array, size: int, nothing: int) -> Array:
    """The values at their new places, and something else where nothing is placed."""
    placed = np.full(size, nothing, np.int64)
    placed[places[places >= 0]] = values[places >= 0]
    return placed


def grow_tables(
    module: nn.Module, optimizer: Any, kept: Mapping[str, KeptIds], stored: Mapping[str, Mapping[str, Array]], seed: int
) -> None:
    """Moves ids, weights and states of mapped tables to the rows that they have in larger tables; a collective.

    Args:
        module: the sharded model, whose tables hold the rows of the checkpoint at their old numbers.
        optimizer: the optimizer of the whole model; None where its states begin at zero.
        kept: the ids of every mapped table, to be filled.
        stored: for each table that has grown what the checkpoint has of its ids.
        seed: seed of the run.
    """
    sizes = {name: kept[name].zones.num_embeddings for name in stored}
    parts, reset = parts_of_tables(module, optimizer, sizes), RowReset(module, optimizer, seed, sizes)
    for name, arrays in stored.items():
        dealt = deal_anew(arrays, sizes[name])
        mine = slice(kept[name].rows.start, kept[name].rows.stop)
        for array, values in dealt.arrays.items():
            getattr(kept[name], array)[:] = values[mine]
        with torch.no_grad():
            _move(parts[name], dealt.rows)
        empty = np.setdiff1d(np.arange(sizes[name]), dealt.rows)
        reset.reset(name, empty)
        if kept[name].zones.rank == 0:
            lost = f"; {dealt.num_lost} ids that were not seen for longest have lost theirs" if dealt.num_lost else ""
            logger.info("table '%s' grows from %d to %d rows%s", name, len(dealt.rows), sizes[name], lost)


def _move(parts: list[TablePart], rows: Array) -> None:
    """Moves the rows of a table and of its states; a collective, whose every rank asks for the same keys."""
    before = {number: part.values.clone() for number, part in enumerate(parts)}
    known: dict[str, tuple[int, bool]] = {}
    for of_rank in _gather({part.key: (_width(parts, part.key), part.is_everywhere) for part in parts}):
        for key, (width, is_everywhere) in of_rank.items():
            known[key] = (max(width, known.get(key, (0, False))[0]), is_everywhere)
    for key in sorted(known):
        width, is_everywhere = known[key]
        mine = [(before[number], part) for number, part in enumerate(parts) if part.key == key]
        for start in range(0, len(rows), size := max(1, _AT_ONCE // width)):
            stop = min(start + size, len(rows))
            whole = torch.zeros(stop - start, width)
            for values, part in mine:
                low, high = max(start, part.rows.start), min(stop, part.rows.stop)
                if low < high:
                    shown = values[low - part.rows.start : high - part.rows.start]
                    whole[low - start : high - start, part.columns[0] : part.columns[1]] = shown.cpu()
            if not is_everywhere and dist.is_initialized() and dist.get_world_size() > 1:
                whole = _sum(whole)
            for _, part in mine:
                _fill(part, whole, rows[start:stop])


def _width(parts: list[TablePart], key: str) -> int:
    return max(part.columns[1] for part in parts if part.key == key)


def _sum(whole: Tensor) -> Tensor:
    """The numbers of all ranks, each of which is on one of them."""
    if dist.get_backend() == "nccl":
        whole = whole.cuda()
    dist.all_reduce(whole)
    return whole.cpu()


def _fill(part: TablePart, whole: Tensor, rows: Array) -> None:
    """Writes those rows of a piece of the old table that belong to a part."""
    chosen = np.flatnonzero((rows >= part.rows.start) & (rows < part.rows.stop))
    if len(chosen):
        where = torch.from_numpy(rows[chosen] - part.rows.start).to(part.values.device)
        values = whole[torch.from_numpy(chosen), part.columns[0] : part.columns[1]]
        part.values[where] = values.to(part.values.device, part.values.dtype)


def _gather(value: dict[str, tuple[int, bool]]) -> list[dict[str, tuple[int, bool]]]:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [value]
    told: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(told, value)
    return told
