"""What travels of each table: the cheaper of unique rows and distinct ids, and why.

| what travels | is cheap where | costs much where |
|---|---|---|
| unique rows | lists are long and seldom share ids | rows are divided over ranks: each rank sends a partial sum |
| distinct ids | ids repeat; or partial sums or un-pooled vectors are many | ids must be found and vectors gathered |

A table of which ids travel is looked up on its own, which is one more kernel call.

This is for tables whose places the config names. ``choose_places.py`` chooses places and what travels together. Tables
are decided one by one, those that cost most first, and all of them twice; ``step_ledger.py`` has the cost of each.

Whether a *group* is deduplicated at all is decided before, from the table on disk, because the shape of the model
depends on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from recd_dist.embedding.vocabulary.names import SENDS, Send
from recd_dist.embedding.vocabulary.placement import Placement, TablePlace
from recd_dist.plan.machines import Machine
from recd_dist.plan.step_ledger import Alternative, StepLedger
from recd_dist.plan.step_rows import StepRows, TableUse

MARGIN = 0.9
"""Another alternative must cost less than this share of the usual one, because the costs are not exact."""

PASSES = 2
"""How often every table is decided."""


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
) -> dict[str, TableChoice]:
    """Chooses for each table what travels of it.

    Args:
        uses: the tables, with what usually travels of each.
        placement: where the tables lie.
        step: rows and ids of one rank's batch.
        world_size: W, the number of ranks.
        machine: what a rank's device and links cost.
        pinned: what travels of the tables for which the config says so.
    """
    pinned = pinned or {}
    ledger = StepLedger(uses, step, world_size, machine)
    for use in uses:
        ledger.put(use.table, Alternative(use.send, placement[use.table]))
    copied: list[Send] = ["rows"]
    sends = {u.table: possible_sends(u, pinned) if placement[u.table].shards else copied for u in uses}
    for _ in range(PASSES):
        for table in sorted(sends, key=lambda t: -ledger.table_ms(t, ledger.chosen[t])):
            ledger.take_out(table)
            usual, *rest = [Alternative(send, placement[table]) for send in sends[table]]
            rest_ms = {alternative: ledger.table_ms(table, alternative) for alternative in rest}
            best = min(rest_ms, key=rest_ms.__getitem__, default=usual)
            is_better = bool(rest_ms) and rest_ms[best] < MARGIN * ledger.table_ms(table, usual)
            ledger.put(table, best if is_better else usual)
    return {u.table: explain_choice(u, ledger, pinned) for u in uses}


def possible_sends(use: TableUse, pinned: Mapping[str, Send]) -> list[Send]:
    """What may travel of a table, the usual first.

    Args:
        use: the table.
        pinned: what travels of the tables for which the config says so.
    """
    usual: Send = "ids" if use.is_sequence else "rows"
    return [pinned[use.table]] if use.table in pinned else [usual, *(send for send in SENDS if send != usual)]


def explain_choice(
    use: TableUse, ledger: StepLedger, pinned: Mapping[str, Send], place_reason: str = ""
) -> TableChoice:
    """What was chosen for a table, with the reason in words.

    Args:
        use: the table.
        ledger: the step, with all tables.
        pinned: what travels of the tables for which the config says so.
        place_reason: why the table lies where it lies, if that was chosen too.
    """
    chosen, step = ledger.chosen[use.table], ledger.step
    rows_ms, ids_ms = (ledger.table_ms(use.table, replace(chosen, send=send)) for send in SENDS)
    repeats = step.num_ids(use.features, dedup=True) / max(1.0, step.num_distinct(use))
    is_counted = use.table in step.distinct_ids
    reasons = [f"ids repeat {repeats:.1f}x in a batch" if is_counted else "how often ids repeat was not counted"]
    if use.table in pinned:
        reasons = ["plan.send says so"]
    if not chosen.place.shards:
        reasons, rows_ms, ids_ms = ["every rank holds a copy: nothing travels"], 0.0, 0.0
    else:
        reasons.append(f"ids cost {ids_ms:.2f} ms, rows {rows_ms:.2f} ms")
    reasons += [place_reason] if place_reason else []
    return TableChoice(chosen.send, chosen.place, rows_ms, ids_ms, "; ".join(reasons))
