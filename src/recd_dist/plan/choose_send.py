"""What travels of each table: the cheaper of unique rows and distinct ids, and why.

| what travels | is cheap where | costs much where |
|---|---|---|
| unique rows | lists are long and seldom share ids | rows are divided over ranks: each rank sends a partial sum |
| distinct ids | ids repeat; or partial sums or un-pooled vectors are many | ids must be found and vectors gathered |

A table of which ids travel is looked up on its own, which is one more kernel call.

The cost of a table is what the step would gain without it: half of that on about the slowest rank, half on the mean
rank. On the slowest rank alone, savings on other tables would not show. Tables are decided one by one, those that cost
most first, and all of them twice.

Where TorchRec's planner has placed the tables, two more places are tried for each. One is row-wise over all ranks: the
planner knows this place with partial sums only, but distinct ids need none. The other is a copy on every rank, for
small pooled tables: offered that for 1024 ranks, TorchRec's planner took a minute.

Whether a *group* is deduplicated at all is decided before, from the table on disk, because the shape of the model
depends on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from recd_dist.embedding.vocabulary.names import SENDS, Send
from recd_dist.embedding.vocabulary.placement import Placement, TablePlace
from recd_dist.plan.cost import StepWork, mean_ms, near_slowest_ms, no_work, num_calls, table_work
from recd_dist.plan.machines import Machine
from recd_dist.plan.step_rows import StepRows, TableUse

MARGIN = 0.9
"""Another alternative must cost less than this share of the usual one, because the costs are not exact."""

PASSES = 2
"""How often every table is decided."""

MAX_COPIED = 2**24
"""Largest table, in numbers (64 MiB), of which every rank may hold a copy."""


@dataclass(frozen=True)
class Alternative:
    """One alternative for a table.

    Attributes:
        send: what travels of the table.
        place: where the table lies.
    """

    send: Send
    place: TablePlace


@dataclass(frozen=True)
class TableChoice:
    """What was chosen for a table.

    Attributes:
        send: what travels of the table.
        place: where the table lies.
        rows_ms: milliseconds that the table costs a step at this place if rows travel.
        ids_ms: milliseconds that the table costs a step at this place if ids travel.
        reason: why this was chosen, in words.
    """

    send: Send
    place: TablePlace
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
    others: Mapping[str, Sequence[TablePlace]] | None = None,
) -> dict[str, TableChoice]:
    """Chooses for each table what travels of it, and where it lies if there is a choice.

    Args:
        uses: the tables, with what usually travels of each.
        placement: where the tables lie.
        step: rows and ids of one rank's batch.
        world_size: W, the number of ranks.
        machine: what a rank's device and links cost.
        pinned: what travels of the tables for which the config says so.
        others: for each table the other places that it may have.
    """
    pinned, others = pinned or {}, others or {}
    costs = _StepCosts(uses, placement, step, world_size, machine)
    alternatives = {u.table: _alternatives(u, placement[u.table], others.get(u.table, ()), pinned) for u in uses}
    for _ in range(PASSES):
        for table in sorted(alternatives, key=lambda t: -costs.table_ms(t, costs.chosen[t])):
            usual, *rest = alternatives[table]
            rest_ms = {alternative: costs.table_ms(table, alternative) for alternative in rest}
            best = min(rest_ms, key=rest_ms.__getitem__, default=usual)
            is_better = bool(rest_ms) and rest_ms[best] < MARGIN * costs.table_ms(table, usual)
            costs.chosen[table] = best if is_better else usual
    return {u.table: _explain_choice(u, costs, placement, pinned) for u in uses}


def _alternatives(
    use: TableUse, place: TablePlace, others: Sequence[TablePlace], pinned: Mapping[str, Send]
) -> list[Alternative]:
    """The alternatives of a table, the usual one first."""
    if not place.shards:
        return [Alternative("rows", place)]  # nothing travels
    usual: Send = "ids" if use.is_sequence else "rows"
    sends = [pinned[use.table]] if use.table in pinned else [usual, *(send for send in SENDS if send != usual)]
    places = [place, *(other for other in others if other.sharding != place.sharding)]
    copied: list[Send] = ["rows"]
    return [Alternative(send, where) for where in places for send in (sends if where.shards else copied)]


class _StepCosts:
    """What tables cost a step, given what is chosen for all of them at present.

    Attributes:
        uses: for each table how the model uses it.
        step: rows and ids of one rank's batch.
        chosen: for each table the alternative that is chosen at present.
    """

    def __init__(
        self, uses: Sequence[TableUse], placement: Placement, step: StepRows, world_size: int, machine: Machine
    ) -> None:
        self.uses = {u.table: u for u in uses}
        self.step, self._world_size, self._machine = step, world_size, machine
        self.chosen = {u.table: Alternative(u.send, placement[u.table]) for u in uses}
        self._works: dict[tuple[str, Send, str], StepWork] = {}

    def table_ms(self, table: str, alternative: Alternative) -> float:
        """Milliseconds that a table adds to the step under an alternative, beside the other tables."""
        others = {t: a for t, a in self.chosen.items() if t != table}
        return self._step_ms({**others, table: alternative}) - self._step_ms(others)

    def _step_ms(self, chosen: Mapping[str, Alternative]) -> float:
        total = sum((self._work(t, a) for t, a in chosen.items()), no_work(self._world_size))
        uses = [replace(self.uses[t], send=a.send) for t, a in chosen.items()]
        calls = num_calls(uses, {t: a.place for t, a in chosen.items()}, dedup=True)
        between = (near_slowest_ms(total, self._machine) + mean_ms(total, self._machine)) / 2
        return between + calls * self._machine.call_ms

    def _work(self, table: str, alternative: Alternative) -> StepWork:
        # The key has the sharding type and not the place, which may have thousands of shards to hash.
        key = table, alternative.send, alternative.place.sharding
        if key not in self._works:
            use = replace(self.uses[table], send=alternative.send)
            self._works[key] = table_work(
                use, alternative.place, self.step, self._world_size, self._machine, dedup=True
            )
        return self._works[key]


def _explain_choice(use: TableUse, costs: _StepCosts, placement: Placement, pinned: Mapping[str, Send]) -> TableChoice:
    """What was chosen for a table, with the reason in words."""
    chosen, before = costs.chosen[use.table], placement[use.table]
    rows_ms = costs.table_ms(use.table, replace(chosen, send="rows"))
    ids_ms = costs.table_ms(use.table, replace(chosen, send="ids"))
    repeats = costs.step.num_ids(use.features, dedup=True) / max(1.0, costs.step.num_distinct(use))
    is_counted = use.table in costs.step.distinct_ids
    reasons = [f"ids repeat {repeats:.1f}x in a batch" if is_counted else "how often ids repeat was not counted"]
    if use.table in pinned:
        reasons = ["plan.send says so"]
    if not chosen.place.shards:
        reasons, rows_ms, ids_ms = ["every rank holds a copy: nothing travels"], 0.0, 0.0
    else:
        reasons.append(f"ids cost {ids_ms:.2f} ms, rows {rows_ms:.2f} ms")
    if chosen.place != before:
        reasons.append(f"{chosen.place.sharding} instead of {before.sharding}, so that no rank answers all others")
    return TableChoice(chosen.send, chosen.place, rows_ms, ids_ms, "; ".join(reasons))


def expanded_places(
    uses: Sequence[TableUse], placement: Placement, others: Mapping[str, TablePlace], step: StepRows, machine: Machine
) -> dict[str, TablePlace]:
    """Where the tables would lie if every sample sent its own copy: for each table the cheapest of three places.

    The places are the one that deduplicated batches want, row-wise over all ranks, and a copy on every rank. So the
    expanded side, which deduplication is compared with, has what suits it. (TorchRec cannot replicate un-pooled
    tables; the comparison lets the expanded side do it anyway.)

    Args:
        uses: the tables.
        placement: where the tables lie for deduplicated batches.
        others: the row-wise place of each table whose rows can be divided over all ranks.
        step: rows and ids of one rank's batch.
        machine: what a rank's device and links cost.
    """
    world_size = 1 + max((r for p in (*placement.values(), *others.values()) for r in p.ranks), default=0)

    def work(use: TableUse, place: TablePlace) -> StepWork:
        return table_work(use, place, step, world_size, machine, dedup=False)

    chosen = dict(placement)
    works = {u.table: work(u, chosen[u.table]) for u in uses}
    for use in sorted(uses, key=lambda u: -mean_ms(works[u.table], machine)):
        rest = sum((w for t, w in works.items() if t != use.table), no_work(world_size))
        places = [chosen[use.table], *([others[use.table]] if use.table in others else [])]
        if use.num_embeddings * use.dim <= MAX_COPIED:
            places.append(TablePlace("DP"))
        alternatives = [(work(use, place), place) for place in places]
        costs = [near_slowest_ms(rest + w, machine) + mean_ms(rest + w, machine) for w, _ in alternatives]
        works[use.table], chosen[use.table] = alternatives[costs.index(min(costs))]
    return chosen
