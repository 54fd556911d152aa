"""A plan as text for people: where tables lie, what was chosen and why, what a step comes to, how it grows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from recd_dist.plan.cost import StepTime
from recd_dist.plan.describe import Estimate, Side
from recd_dist.plan.saved import spans
from recd_dist.plan.table_plan import TablePlan

NUM_REASONS = 12
"""Tables whose reasons are shown, the dearest; all of them are in ``--json``."""

BAR_WIDTH = 24

_SIZES = ("MiB a\nrank", "kB a step\nunique", "\nexpanded", "ms a step\nunique", "\nexpanded")


@dataclass(frozen=True)
class GroupRow:
    """How one group of the table is trained.

    Attributes:
        group: its name.
        features: its sparse features.
        is_expanded: trained with a row per sample.
        reason: why, in words.
    """

    group: str
    features: tuple[str, ...]
    is_expanded: bool
    reason: str


def render_plan(plan: TablePlan, table: str, groups: Sequence[GroupRow]) -> RenderableType:
    """A whole plan.

    Args:
        plan: the plan.
        table: where the clustered table lies that it is for.
        groups: how each group of the table is trained; empty where the table has none.
    """
    shown = [_groups(plan, groups)] if groups else []
    totals = _totals(plan.estimate, plan.machine.memory_bytes, plan)
    return Group(_tables(plan, table), "", *shown, _reasons(plan), totals)


def _table(title: str, *columns: str, left: Sequence[str] = ()) -> Table:
    """An empty table whose columns are right-aligned but for those named; only left ones wrap."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in columns:
        is_left = name in left
        table.add_column(name, justify="left" if is_left else "right", overflow="fold", no_wrap=not is_left)
    return table


def _tables(plan: TablePlan, clustered: str) -> Table:
    machine, world = plan.machine, plan.world
    hosts = f"{world.num_hosts} host{'s'[: world.num_hosts > 1]}"
    title = f"{clustered} on {world.size} ranks, {hosts} ({machine.name}), {plan.step.batch_size} samples a rank"
    table = _table(title, "table", "rows x dim", "groups", "sends", "lies", *_SIZES, left=("groups",))
    for column in (0, 3, 4):
        table.columns[column].justify = "left"
    for row in plan.rows:
        size = f"{row.num_embeddings:,} x {row.dim}"
        sent = (f"{row.unique_bytes / 1e3:,.1f}", f"{row.expanded_bytes / 1e3:,.1f}")
        times = (_ms(row.unique_ms), _ms(row.expanded_ms))
        memory = f"{row.rank_bytes / 2**20:,.2f}"
        table.add_row(
            row.table, size, row.groups, row.send, f"{row.sharding} {spans(row.ranks)}", memory, *sent, *times
        )
    table.caption = "bytes and milliseconds of the mean rank, without latencies and kernel calls"
    table.caption_justify = "left"
    return table


def _groups(plan: TablePlan, groups: Sequence[GroupRow]) -> Table:
    """How each group of the table is trained."""
    table = _table("Groups", "group", "trained", "samples a row in a batch", "why", left=("group", "trained", "why"))
    for each in groups:
        members = [f for f in each.features if f in plan.step.rows]
        seen = f"{plan.step.batch_size / plan.step.rows[members[0]]:.1f}" if members else ""
        table.add_row(each.group, "expanded" if each.is_expanded else "unique rows", seen, each.reason)
    return table


def _reasons(plan: TablePlan) -> Table:
    """Why rows or ids travel, of the dearest tables."""
    table = _table(
        "What travels, and why (the dearest tables)", "table", "sends", "why", left=("table", "sends", "why")
    )
    dearest = sorted(plan.rows, key=lambda row: -row.unique_ms)
    for row in dearest[:NUM_REASONS]:
        table.add_row(row.table, row.send, row.reason)
    for send, count in Counter(row.send for row in dearest[NUM_REASONS:]).items():
        table.add_row(f"{count} more", send, "")
    return table


def _totals(estimate: Estimate, memory_bytes: float, plan: TablePlan) -> Table:
    """What a step comes to, by part."""
    table = _table("A step of the tables, by formula", "", "unique", "expanded", "", left=("",))
    for part in fields(StepTime):
        unique, expanded = (getattr(side.time, part.name) for side in (estimate.unique, estimate.expanded))
        if unique or expanded:
            table.add_row(part.name.replace("_", "-"), f"{_ms(unique)} ms", f"{_ms(expanded)} ms", "")
    table.add_section()
    unique, expanded = estimate.unique, estimate.expanded
    ratio = _ratio(unique.time.total, expanded.time.total)
    table.add_row("together", f"{_ms(unique.time.total)} ms", f"{_ms(expanded.time.total)} ms", ratio)
    table.add_row("sent by a rank", _kb(unique), _kb(expanded), _ratio(unique.num_bytes, expanded.num_bytes))
    if plan.world.num_hosts > 1:
        between = [f"{side.between_bytes / 1e3:,.1f} kB" for side in (unique, expanded)]
        table.add_row("  to other hosts", *between, "")
    full = "" if estimate.rank_bytes <= memory_bytes else "more than there is: choose another sharding or more ranks"
    memory = f"{estimate.rank_bytes / 2**20:,.1f} MiB"
    table.add_row("tables of the fullest rank", memory, f"of {memory_bytes / 2**30:,.0f} GiB", full)
    table.caption = f"Figures: {plan.machine.source}."
    table.caption_justify = "left"
    return table


def render_simulation(estimates: Sequence[Estimate], plan: TablePlan) -> Table:
    """How a step grows with the ranks, each with a batch of its own.

    Args:
        estimates: by number of ranks.
        plan: the plan whose machines they are of.
    """
    title = f"More ranks, each with as large a batch ({plan.machine.name}); planned anew for each number"
    table = _table(title, "ranks", "hosts", *_SIZES, "gain", "", left=("",))
    most = max(e.expanded.time.total for e in estimates)
    for each in estimates:
        unique, expanded = each.unique, each.expanded
        hosts = -(-each.world_size // plan.machine.local_world_size(each.world_size))
        table.add_row(
            str(each.world_size),
            str(hosts),
            f"{each.rank_bytes / 2**20:,.1f}",
            f"{unique.num_bytes / 1e3:,.1f}",
            f"{expanded.num_bytes / 1e3:,.1f}",
            _ms(unique.time.total),
            _ms(expanded.time.total),
            _ratio(unique.time.total, expanded.time.total),
            _bar(unique.time.total / most, expanded.time.total / most),
        )
    table.caption = "█ unique, ░ what expanded takes beyond it"
    table.caption_justify = "left"
    return table


def render_differences(found: Sequence[tuple[str, str, str]], path: str) -> Table:
    """What differs between a saved plan and this one.

    Args:
        found: from ``saved.differences``.
        path: of the saved plan.
    """
    table = _table(f"Compared with {path}", "", "there", "here", left=("", "there", "here"))
    for row in found:
        table.add_row(*row)
    if not found:
        table.add_row("nothing differs", "", "")
    return table


def _bar(unique: float, expanded: float) -> str:
    """Both as one bar of shares of BAR_WIDTH."""
    full, all_of_it = round(unique * BAR_WIDTH), round(max(unique, expanded) * BAR_WIDTH)
    return "█" * full + "░" * (all_of_it - full)


def _ms(number: float) -> str:
    if number == 0:
        return "0"
    return f"{number:,.1f}" if number >= 100 else f"{number:.2f}" if number >= 0.1 else f"{number:.3f}"


def _kb(side: Side) -> str:
    return f"{side.num_bytes / 1e3:,.1f} kB"


def _ratio(unique: float, expanded: float) -> str:
    return f"{expanded / unique:.2f}x" if unique else "-"
