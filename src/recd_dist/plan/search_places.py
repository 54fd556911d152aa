"""Where tables lie and what travels of them, searched together by the cost model.

Every table is offered whole, split by columns, by rows over all ranks or over those of one host, by columns over hosts
and by rows inside them, and, where it is small, as a copy on every rank; each with rows and with ids. Ranks and hosts
that an alternative leaves open are the idlest. Tables are placed one by one, the heaviest first; then each is taken
out and placed anew, twice. Nothing is placed where memory is short. ``choose_places.py`` searches several times.

TorchRec's planner, which ``dedup=off`` uses, lists every shard of every alternative and weighs whole plans: for 20
tables on 1,000 ranks it takes three times as long, and its plan uses 160 of them. It knows neither that distinct ids
need no partial sums, nor that one host which all ranks ask is slow.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from recd_dist.embedding.vocabulary.names import CPU_OPTIMIZERS, UNPOOLED_TYPES, WIDTH_UNIT, Send
from recd_dist.embedding.vocabulary.placement import Placement, Shard, TablePlace
from recd_dist.errors import ConfigError
from recd_dist.plan.assign_shards import cut_columns, cut_rows, cut_width
from recd_dist.plan.choose_send import possible_sends
from recd_dist.plan.cost import StepWork, rank_ms, split_bytes
from recd_dist.plan.link_time import split_all_reduce
from recd_dist.plan.machines import Machine
from recd_dist.plan.shard_memory import shard_bytes, table_memory
from recd_dist.plan.step_bytes import Array
from recd_dist.plan.step_ledger import Alternative, StepLedger
from recd_dist.plan.step_rows import StepRows, TableUse
from recd_dist.plan.wanted_sharding import PLAIN_CPU_TYPES
from recd_dist.plan.world import World, can_divide_rows

PASSES = 2
"""How often every table is placed anew, at most."""

GAIN = 0.99
"""A further pass is made if the one before brought the step below this share of its time."""

MAX_COPIED = 2**24
"""Largest table, in numbers (64 MiB), of which every rank may hold a copy."""

MIN_WIDTH = 2 * WIDTH_UNIT
"""Narrowest column shard: lookups of narrower rows cost as much as of these."""

Advance = Callable[[int, int], None]
"""A function that is told how many placements are done, of how many."""


class SearchPlaces:
    """The search for one job.

    Args:
        uses: the tables.
        world: the ranks.
        machine: memory and speed of a rank, and its links.
        step: rows and ids of one rank's batch.
        optimizer: name of the tables' optimizer, whose states take memory.
        pinned: what travels of the tables for which the config says so.
        dedup: True if batches travel through our exchange, False if through plain TorchRec.
        max_copied: largest table, in numbers, of which every rank may hold a copy.

    Attributes:
        ledger: the tables that have been placed, and what they cost.
    """

    def __init__(
        self,
        uses: Sequence[TableUse],
        world: World,
        machine: Machine,
        step: StepRows,
        *,
        optimizer: str = "rowwise_adagrad",
        pinned: Mapping[str, Send] | None = None,
        dedup: bool = True,
        max_copied: int = MAX_COPIED,
    ) -> None:
        self.uses, self.world, self.machine, self.optimizer = uses, world, machine, optimizer
        self.pinned, self.dedup, self.max_copied = pinned or {}, dedup, max_copied
        self.ledger = StepLedger(uses, step, world.size, machine, dedup=dedup)
        self.used, self.most_between = np.zeros(world.size), math.inf
        self._row_wise: dict[str, TablePlace] = {}
        self._runners_up: dict[str, tuple[str, float]] = {}

    def run(self) -> dict[str, Alternative]:
        """Places every table.

        Returns:
            For each table where it lies and what travels of it.

        Raises:
            ConfigError: a table fits nowhere; the message says how many ranks would do.
        """
        weights = {u.table: self._weight(u) for u in self.uses}
        heaviest_first = sorted(self.uses, key=lambda u: -weights[u.table])
        for use in heaviest_first:
            self._place(use)
        self._improve(heaviest_first)
        return {u.table: self.ledger.chosen[u.table] for u in self.uses}

    def run_from(self, start: Placement, most_between: float) -> None:
        """Places every table where another search placed it, and moves tables as long as little is sent to other hosts.

        Args:
            start: where the tables lie at first.
            most_between: bytes that the mean rank may send to other hosts; where the start sends more, it becomes less.
        """
        for use in self.uses:
            sends = possible_sends(use, self.pinned)
            place = start[use.table]
            copied: list[Send] = ["rows"]
            offers = [Alternative(send, place) for send in (sends if place.shards else copied)]
            self._put(use, min(offers, key=lambda offer: self._bytes_with(use, offer)))
        self.most_between = most_between
        weights = {u.table: self._weight(u) for u in self.uses}
        heaviest_first = sorted(self.uses, key=lambda u: -weights[u.table])
        self._improve(heaviest_first)

    def _improve(self, uses: Sequence[TableUse]) -> None:
        """Places every table anew, several times, then fills idle ranks."""
        for _ in range(PASSES):
            before_ms = self.ledger.ms()
            for use in uses:
                self._place(use, before=self._take_out(use))
            if self.ledger.ms() > GAIN * before_ms:
                break
        for use in uses:
            self._reach_idle_ranks(use)

    def _bytes_with(self, use: TableUse, offer: Alternative) -> float:
        """What ``bytes_to_other_hosts`` would be, if a table that is not placed had this alternative."""
        return self._bytes_between(self.ledger.total + self.ledger.work(use.table, offer))

    def bytes_to_other_hosts(self) -> float:
        """Bytes that the mean rank sends to other hosts in a step, gradients of copied tables included."""
        return self._bytes_between(self.ledger.total)

    def _bytes_between(self, work: StepWork) -> float:
        copied = split_all_reduce(work.replicated, self.world.size, self.machine)[1]
        return split_bytes(work, self.machine)[1] + copied

    def reason(self, table: str) -> str:
        """Why a table lies where it lies, in words.

        Args:
            table: name of the table.
        """
        if table not in self._runners_up:
            return ""
        name, more_ms = self._runners_up[table]
        return f"{name} would cost {more_ms:.2f} ms more"

    def _weight(self, use: TableUse) -> float:
        """How heavy a table is: its share of all memory, and the milliseconds that it costs alone, row-wise."""
        memory = shard_bytes(use.num_embeddings, use.dim, self.optimizer) / self.machine.memory_bytes
        place = TablePlace("TW", tuple(cut_columns(use, [0])))
        return memory + self.ledger.table_ms(use.table, Alternative("rows", place))

    def _place(self, use: TableUse, before: Alternative | None = None) -> None:
        """Chooses the cheapest alternative of a table that fits; the one before stays where none is cheaper."""
        found: dict[tuple[str, Send], tuple[float, Alternative]] = {}
        offers = [*([before] if before else []), *self._offers(use)]
        most = max(self.most_between, self._bytes_with(use, before) * (1 + 1e-9)) if before else math.inf
        for offer in offers:
            if most < math.inf and self._bytes_with(use, offer) > most:
                continue
            if (self.used + self._memory(use, offer.place) > self.machine.memory_bytes).any():
                continue
            cost = self.ledger.ms_with(use.table, offer)
            key = offer.place.sharding, offer.send
            if key not in found or cost < found[key][0] - 1e-9:
                found[key] = cost, offer
        if not found:
            raise ConfigError(self._describe_shortage(use))
        ordered = sorted(found.values(), key=lambda f: f[0])
        best_ms, best = ordered[0]
        others = [(f.place.sharding, ms - best_ms) for ms, f in ordered if f.place.sharding != best.place.sharding]
        if others:
            self._runners_up[use.table] = others[0]
        self._put(use, best)

    def _reach_idle_ranks(self, use: TableUse) -> None:
        """Cuts a table that is split by columns into more shards, if that fills idle ranks and slows down no rank.

        Each shard more costs the mean rank the ids once more, so that the search alone would leave these ranks idle.
        """
        before = self.ledger.chosen[use.table]
        if before.place.sharding not in ("CW", "GRID") or (self.used > 0).all():
            return
        slowest = rank_ms(self.ledger.total, self.machine).max()
        self._take_out(use)
        best, most = before, np.count_nonzero(self.used + self._memory(use, before.place))
        for offer in self._offers(use):
            if (offer.place.sharding, offer.send) != (before.place.sharding, before.send):
                continue
            used = self.used + self._memory(use, offer.place)
            if used.max() > self.machine.memory_bytes or np.count_nonzero(used) <= most:
                continue
            work = self.ledger.total + self.ledger.work(use.table, offer)
            is_slower = rank_ms(work, self.machine).max() > slowest * (1 + 1e-9)
            if not is_slower and self._bytes_between(work) <= self.most_between:
                best, most = offer, np.count_nonzero(used)
        self._put(use, best)

    def _take_out(self, use: TableUse) -> Alternative:
        """Takes a table out, and returns what was chosen for it."""
        alternative = self.ledger.take_out(use.table)
        self.used -= self._memory(use, alternative.place)
        return alternative

    def _put(self, use: TableUse, chosen: Alternative) -> None:
        """Puts a table into an alternative, and forgets the others."""
        self.used += self._memory(use, chosen.place)
        self.ledger.put(use.table, chosen)
        again = [self._row_wise[use.table]] if use.table in self._row_wise else []
        self.ledger.forget(use.table, but=[chosen.place, *again])

    def _memory(self, use: TableUse, place: TablePlace) -> Array:
        return table_memory(use, place, self.world.size, self.optimizer)

    def _offers(self, use: TableUse) -> Iterator[Alternative]:
        """Every alternative of a table, on the idlest ranks."""
        sends = possible_sends(use, self.pinned) if self.dedup else [use.send]
        for place in self._places(use):
            copied: list[Send] = ["rows"]
            yield from (Alternative(send, place) for send in (sends if place.shards else copied))

    def _places(self, use: TableUse) -> Iterator[TablePlace]:
        """Every place of a table."""
        types: tuple[str, ...] = UNPOOLED_TYPES if use.is_sequence else ("TW", "RW", "CW", "TWRW", "GRID", "DP")
        if not self.dedup and use.is_sequence:
            types = (*types, "DP")  # TorchRec cannot copy un-pooled tables; the side to compare with may do it anyway
        if not self.dedup and self.world.device_type == "cpu":
            types = tuple(t for t in types if t in PLAIN_CPU_TYPES)
        loads = self._loads()
        ranks = np.argsort(loads, kind="stable")
        for num_columns in self._splits(use, self.world.size):
            kind = "TW" if num_columns == 1 else "CW"
            (_, widest), *_ = cut_width(use.dim, num_columns)
            shard = shard_bytes(use.num_embeddings, widest, self.optimizer)
            fitting = ranks[self.used[ranks] + shard <= self.machine.memory_bytes][:num_columns]
            if len(fitting) == num_columns:
                yield TablePlace(kind, tuple(cut_columns(use, fitting.tolist())))
        if "RW" in types and can_divide_rows(use.num_embeddings, self.world.size, self.world.device_type):
            if use.table not in self._row_wise:  # it is the same whatever the ranks have to do
                place = TablePlace("RW", _filled(cut_rows(use, range(self.world.size), 0, use.dim)))
                self._row_wise[use.table] = place
            yield self._row_wise[use.table]
        if "TWRW" in types:
            yield from self._places_on_hosts(use, loads)
        if "DP" in types and use.num_embeddings * use.dim <= self.max_copied and self.optimizer in CPU_OPTIMIZERS:
            yield TablePlace("DP")

    def _places_on_hosts(self, use: TableUse, loads: Array) -> Iterator[TablePlace]:
        """Rows over the ranks of one host, or of several hosts of which each holds some columns."""
        world = self.world
        if world.num_hosts < 2 or world.size % world.host_size:
            return
        if not can_divide_rows(use.num_embeddings, world.host_size, world.device_type):
            return
        hosts = np.argsort(loads.reshape(-1, world.host_size).sum(1), kind="stable")
        fullest = self.used.reshape(-1, world.host_size).max(1)
        height = -(-use.num_embeddings // world.host_size)
        for num_columns in self._splits(use, world.num_hosts):
            spans = cut_width(use.dim, num_columns)
            shard = shard_bytes(height, spans[0][1], self.optimizer)
            fitting = hosts[fullest[hosts] + shard <= self.machine.memory_bytes][:num_columns]
            if len(fitting) == num_columns:
                shards = [cut_rows(use, world.ranks_of(h), *span) for h, span in zip(fitting, spans, strict=True)]
                yield TablePlace("TWRW" if num_columns == 1 else "GRID", _filled([s for own in shards for s in own]))

    def _splits(self, use: TableUse, most: int) -> list[int]:
        """Into how many column shards a table may be cut. One shard more must make the widest shard narrower."""
        counts = range(1, min(most, max(1, use.dim // MIN_WIDTH)) + 1)
        if not self.dedup:
            return [n for n in counts if n == 1 or use.dim % (n * WIDTH_UNIT) == 0]
        fewest = {cut_width(use.dim, n)[0][1]: n for n in reversed(counts)}
        return sorted(fewest.values())

    def _loads(self) -> Array:
        """How busy each rank is, from the time of its shards and their memory, each as a share of the fullest."""
        time = rank_ms(self.ledger.total, self.machine)
        return time / max(time.max(), 1e-9) + self.used / max(self.used.max(), 1.0)

    def _describe_shortage(self, use: TableUse) -> str:
        """What a user can do about a table that fits nowhere."""
        total = sum(shard_bytes(u.num_embeddings, u.dim, self.optimizer) for u in self.uses)
        ranks = int(-(-total // self.machine.memory_bytes))
        remedy = f"start at least {ranks} ranks" if ranks > self.world.size else "start more ranks"
        size = shard_bytes(use.num_embeddings, use.dim, self.optimizer)
        return (
            f"plan: table '{use.table}' ({use.num_embeddings:,} x {use.dim}, {size / 2**30:,.1f} GiB with optimizer "
            f"state) fits nowhere beside the others: all tables take {total / 2**30:,.1f} GiB, and {self.world.size} "
            f"ranks of {self.machine.name} have {self.machine.memory_bytes / 2**30:,.1f} GiB each; {remedy}, or make "
            f"tables smaller (tables.{use.table}.dim)"
        )


def _filled(shards: Sequence[Shard]) -> tuple[Shard, ...]:
    """Shards without empty ones, which tables with few rows have."""
    return tuple(s for s in shards if s.num_rows)
