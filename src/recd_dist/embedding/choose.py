"""What travels of each table, unique rows or distinct ids, by what either costs; with the reason in words.

| sent | cheap where | dear where |
|---|---|---|
| unique rows | lists are long and seldom share ids | rows are split over ranks: each sends partial sums |
| distinct ids | ids repeat; partial sums or un-pooled vectors are many | ids must be found, vectors gathered |

Each table of which ids are sent is looked up by itself, which is one more kernel call. Whether a *group* is
deduplicated at all follows from the table on disk (``job.group_choices``), as it shapes the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from recd_dist.embedding.classes import Send
from recd_dist.embedding.cost import mean_ms, work_of
from recd_dist.embedding.floor import StepRows, TableUse
from recd_dist.embedding.machines import Machine
from recd_dist.embedding.shards import Placed, Placement

MARGIN = 0.9
"""The other way must cost less than this share of the usual one: the model is not exact."""


@dataclass(frozen=True)
class SendChoice:
    """What travels of a table.

    Attributes:
        send: the choice.
        rows_ms, ids_ms: what either costs a step.
        reason: in words.
    """

    send: Send
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
) -> dict[str, SendChoice]:
    """For each table what travels of it.

    Args:
        uses: the tables, with what usually travels.
        placement: where they lie.
        step: rows and ids of one rank's batch.
        world_size: W.
        machine: what a rank's device and links cost.
        pinned: by table what the config says.
    """
    return {u.table: _choice(u, placement[u.table], step, world_size, machine, pinned or {}) for u in uses}


def _choice(
    use: TableUse, place: Placed, step: StepRows, world_size: int, machine: Machine, pinned: Mapping[str, Send]
) -> SendChoice:
    ms: dict[Send, float] = {}
    ways: tuple[Send, ...] = ("rows", "ids")
    for way in ways:
        work = work_of(replace(use, send=way), place, step, world_size, machine, dedup=True)
        is_alone = way == "ids" or use.is_sequence
        ms[way] = mean_ms(work, machine) + (machine.call_ms if is_alone else 0.0)
    usual: Send = "ids" if use.is_sequence else "rows"
    other: Send = "rows" if use.is_sequence else "ids"
    send: Send = pinned.get(use.table, other if ms[other] < MARGIN * ms[usual] else usual)
    costs = f"ids cost {ms['ids']:.2f} ms, rows {ms['rows']:.2f} ms"
    repeats = step.num_ids(use.features, dedup=True) / max(1.0, step.num_distinct(use))
    seen = f"ids repeat {repeats:.1f}x in a batch" if use.table in step.distinct_ids else "repeats of ids not counted"
    if use.table in pinned:
        seen = "plan.send says so"
    elif not place.shards:
        send, seen = "rows", "every rank holds a copy"
    elif send == usual and ms[other] < ms[usual]:
        costs += ": too near to change"
    return SendChoice(send, ms["rows"], ms["ids"], f"{seen}; {costs}")
