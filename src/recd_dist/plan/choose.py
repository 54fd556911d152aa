"""What travels of each table, unique rows or distinct ids, by what either costs the step; with the reason in words.

| sent | cheap where | dear where |
|---|---|---|
| unique rows | lists are long and seldom share ids | rows are split over ranks: each sends partial sums |
| distinct ids | ids repeat; partial sums or un-pooled vectors are many | ids must be found, vectors gathered |

Each table of which ids are sent is looked up by itself, which is one more kernel call. A table costs what the step
gains without it, half by the slowest ranks and half by the mean one: alone, the slowest would hide what is saved on
others. Tables are settled one by one, the dearest first, twice. Where TorchRec's planner has placed a table, dividing
its rows over all ranks is tried too: it knows that as partial sums only, while distinct ids need none. So is a copy on
every rank, of a pooled table that is small: TorchRec's planner took a minute when it was offered that for 1024 ranks.

Whether a *group* is deduplicated at all follows from the table on disk (``job.group_choices``), as it shapes the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from recd_dist.embedding.exchange.classes import Send
from recd_dist.embedding.placement import Placed, Placement
from recd_dist.plan.cost import Work, mean_ms, near_slowest_ms, no_work, num_calls, work_of
from recd_dist.plan.machines import Machine
from recd_dist.plan.step_rows import StepRows, TableUse

MARGIN = 0.9
"""Another way must cost less than this share of the usual one: the model is not exact."""

PASSES = 2

MAX_COPIED = 2**24
"""Numbers of a table (64 MiB) of which every rank may hold a copy."""


@dataclass(frozen=True)
class Way:
    """One way to hold and send a table."""

    send: Send
    place: Placed


@dataclass(frozen=True)
class SendChoice:
    """What travels of a table.

    Attributes:
        send: the choice.
        place: where the table lies.
        rows_ms, ids_ms: what either costs a step, at that place.
        reason: in words.
    """

    send: Send
    place: Placed
    rows_ms: float
    ids_ms: float
    reason: str


def choose_send(
    uses: Sequence[TableUse],
    placement: Placement,
    step: StepRows,
    world_size: int,
    machine: Machine,
    pinned: Mapping[str, Send] | None = None,
    others: Mapping[str, Sequence[Placed]] | None = None,
) -> dict[str, SendChoice]:
    """For each table what travels of it.

    Args:
        uses: the tables, with what usually travels.
        placement: where they lie.
        step: rows and ids of one rank's batch.
        world_size: W.
        machine: what a rank's device and links cost.
        pinned: by table what the config says.
        others: by table other places that it may take.
    """
    tables = _Tables(uses, placement, step, world_size, machine)
    ways = {u.table: _ways(u, placement[u.table], (others or {}).get(u.table, ()), pinned or {}) for u in uses}
    for _ in range(PASSES):
        for table in sorted(ways, key=lambda t: -tables.cost(t, tables.chosen[t])):
            usual, *rest = ways[table]
            costs = {way: tables.cost(table, way) for way in rest}
            best = min(costs, key=costs.__getitem__, default=usual)
            tables.chosen[table] = best if costs and costs[best] < MARGIN * tables.cost(table, usual) else usual
    return {u.table: _choice(u, tables, placement, pinned or {}) for u in uses}


def _ways(use: TableUse, place: Placed, others: Sequence[Placed], pinned: Mapping[str, Send]) -> list[Way]:
    """The ways open to a table, the usual first."""
    usual: tuple[Send, ...] = ("ids", "rows") if use.is_sequence else ("rows", "ids")
    if not place.shards:
        return [Way("rows", place)]  # nothing travels
    sends = (pinned[use.table],) if use.table in pinned else usual
    places = [place, *(other for other in others if other.sharding != place.sharding)]
    return [Way(send, where) for where in places for send in (sends if where.shards else ("rows",))]


class _Tables:
    """All tables with the way each has for now.

    Attributes:
        chosen: by table.
    """

    def __init__(
        self, uses: Sequence[TableUse], placement: Placement, step: StepRows, world_size: int, machine: Machine
    ) -> None:
        self.uses = {u.table: u for u in uses}
        self.step, self.world_size, self.machine = step, world_size, machine
        self.chosen = {u.table: Way(u.send, placement[u.table]) for u in uses}
        self._works: dict[tuple[str, Send, str], Work] = {}

    def cost(self, table: str, way: Way) -> float:
        """Milliseconds of a step that a table costs in some way, the others as they are now."""
        others = {t: w for t, w in self.chosen.items() if t != table}
        return self._step_ms({**others, table: way}) - self._step_ms(others)

    def _step_ms(self, ways: Mapping[str, Way]) -> float:
        total = sum((self._work(t, w) for t, w in ways.items()), no_work(self.world_size))
        uses = [replace(self.uses[t], send=w.send) for t, w in ways.items()]
        calls = num_calls(uses, {t: w.place for t, w in ways.items()}, dedup=True)
        between = (near_slowest_ms(total, self.machine) + mean_ms(total, self.machine)) / 2
        return between + calls * self.machine.call_ms

    def _work(self, table: str, way: Way) -> Work:
        key = table, way.send, way.place.sharding  # a place itself may have thousands of shards to hash
        if key not in self._works:
            use = replace(self.uses[table], send=way.send)
            self._works[key] = work_of(use, way.place, self.step, self.world_size, self.machine, dedup=True)
        return self._works[key]


def _choice(use: TableUse, tables: _Tables, placement: Placement, pinned: Mapping[str, Send]) -> SendChoice:
    """What was chosen, in words."""
    chosen, before = tables.chosen[use.table], placement[use.table]
    rows_ms, ids_ms = (tables.cost(use.table, replace(chosen, send=send)) for send in ("rows", "ids"))
    repeats = tables.step.num_ids(use.features, dedup=True) / max(1.0, tables.step.num_distinct(use))
    counted = use.table in tables.step.distinct_ids
    reasons = [f"ids repeat {repeats:.1f}x in a batch" if counted else "repeats of ids not counted"]
    if use.table in pinned:
        reasons = ["plan.send says so"]
    if not chosen.place.shards:
        reasons, rows_ms, ids_ms = ["every rank holds a copy: nothing travels"], 0.0, 0.0
    else:
        reasons.append(f"ids cost {ids_ms:.2f} ms, rows {rows_ms:.2f} ms")
    if chosen.place != before:
        reasons.append(f"{chosen.place.sharding} instead of {before.sharding}: no rank is asked by all")
    return SendChoice(chosen.send, chosen.place, rows_ms, ids_ms, "; ".join(reasons))


def expanded_places(
    uses: Sequence[TableUse], placement: Placement, others: Mapping[str, Placed], step: StepRows, machine: Machine
) -> dict[str, Placed]:
    """Where tables would lie if every sample sent its own copy: each the cheapest of three places.

    The yardstick is given what suits it: its rows divided over all ranks, or a copy on every rank, where that is
    cheaper than where deduplicated batches want the table. (TorchRec cannot replicate un-pooled tables: it is granted.)

    Args:
        uses: the tables.
        placement: where they lie.
        others: of tables whose rows may be divided over all ranks, that place.
        step: rows and ids of one rank's batch.
        machine: what a rank's device and links cost.
    """
    world_size = 1 + max((r for p in (*placement.values(), *others.values()) for r in p.ranks), default=0)
    found = dict(placement)

    def work(use: TableUse, place: Placed) -> Work:
        return work_of(use, place, step, world_size, machine, dedup=False)

    works = {u.table: work(u, found[u.table]) for u in uses}
    for use in sorted(uses, key=lambda u: -mean_ms(works[u.table], machine)):
        rest = sum((w for t, w in works.items() if t != use.table), no_work(world_size))
        places = [found[use.table], *([others[use.table]] if use.table in others else [])]
        if use.num_embeddings * use.dim <= MAX_COPIED:
            places.append(Placed("DP"))
        ways = [(work(use, place), place) for place in places]
        costs = [near_slowest_ms(rest + w, machine) + mean_ms(rest + w, machine) for w, _ in ways]
        works[use.table], found[use.table] = ways[costs.index(min(costs))]
    return found
