"""A plan as text for people: places, choices with reasons, and what a step costs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

from rich.console import Group, RenderableType

from recd_dist.plan.cost import StepTime
from recd_dist.plan.plan_summary import PlanEstimate, StepCost
from recd_dist.plan.saved_plan import format_spans
from recd_dist.plan.table_plan import TablePlan
from recd_dist.screen.plain_table import PlainTable

NUM_REASONS = 12
"""How many tables are shown with their reasons, those that cost most first; ``--json`` has all."""

BAR_WIDTH = 24
"""Characters of the longest bar."""

_SIZES = ("MiB a\nrank", "kB a step\nunique", "\nexpanded", "ms a step\nunique", "\nexpanded")


@dataclass(frozen=True)
class GroupSummary:
    """How one group of the table is trained.

    Attributes:
        group: name of the group.
        features: names of its id features.
        is_expanded: True if the group is trained with a row for every sample.
        reason: why it is trained like that, in words.
    """

    group: str
    features: tuple[str, ...]
    is_expanded: bool
    reason: str


def render_plan(plan: TablePlan, table: str, groups: Sequence[GroupSummary]) -> RenderableType:
    """Renders a whole plan.

    Args:
        plan: the plan.
        table: path of the clustered table that the plan is for.
        groups: how each group of the table is trained; empty if the table has no groups.
    """
    group_table = [_render_groups(plan, groups)] if groups else []
    return Group(_render_tables(plan, table), *group_table, _render_reasons(plan), _render_totals(plan))


def _render_tables(plan: TablePlan, clustered: str) -> PlainTable:
    """Where each table lies, what travels of it, and what it costs."""
    machine, world = plan.machine, plan.world
    hosts = f"{world.num_hosts} host{'s'[: world.num_hosts > 1]}"
    title = f"{clustered} on {world.size} ranks, {hosts} ({machine.name}), {plan.step.batch_size} samples a rank"
    title += ", inside the host first" if plan.exchange == "by_host" else ""
    table = PlainTable(title, ("table", "rows x dim", "groups", "sends", "lies", *_SIZES), ("groups", "sends", "lies"))
    for row in plan.tables:
        size = f"{row.num_embeddings:,} x {row.dim}"
        sent = (f"{row.unique_bytes / 1e3:,.1f}", f"{row.expanded_bytes / 1e3:,.1f}")
        times = (_format_ms(row.unique_ms), _format_ms(row.expanded_ms))
        memory = f"{row.rank_bytes / 2**20:,.2f}"
        table.add_row(
            row.table, size, row.groups, row.send, f"{row.sharding} {format_spans(row.ranks)}", memory, *sent, *times
        )
    table.caption = "bytes and milliseconds of the mean rank, without latencies and kernel calls"
    return table


def _render_groups(plan: TablePlan, groups: Sequence[GroupSummary]) -> PlainTable:
    """How each group of the table is trained."""
    table = PlainTable("Groups", ("group", "trained", "samples a row\nin a batch", "why"), ("trained", "why"))
    for group in groups:
        members = [f for f in group.features if f in plan.step.rows]
        factor = f"{plan.step.batch_size / plan.step.rows[members[0]]:.1f}" if members else ""
        table.add_row(group.group, "expanded" if group.is_expanded else "unique rows", factor, group.reason)
    return table


def _render_reasons(plan: TablePlan) -> PlainTable:
    """Why rows or ids travel, for the tables that cost most."""
    table = PlainTable("What travels, and why (the tables that cost most)", ("table", "sends", "why"), ("sends", "why"))
    by_cost = sorted(plan.tables, key=lambda row: -row.unique_ms)
    for row in by_cost[:NUM_REASONS]:
        table.add_row(row.table, row.send, row.reason)
    for send, count in Counter(row.send for row in by_cost[NUM_REASONS:]).items():
        table.add_row(f"{count} more", send, "")
    return table


def _render_totals(plan: TablePlan) -> PlainTable:
    """What a step costs, by part."""
    unique, expanded, memory_bytes = plan.estimate.unique, plan.estimate.expanded, plan.machine.memory_bytes
    table = PlainTable("A step of the tables, by formula", ("", "unique", "expanded", ""), ("",))
    for part in fields(StepTime):
        times = [getattr(cost.time, part.name) for cost in (unique, expanded)]
        if any(times):
            table.add_row(part.name.replace("_", "-"), *(f"{_format_ms(ms)} ms" for ms in times), "")
    table.add_section()
    ratio = _format_ratio(unique.time.total, expanded.time.total)
    table.add_row("together", f"{_format_ms(unique.time.total)} ms", f"{_format_ms(expanded.time.total)} ms", ratio)
    dense_ms = plan.estimate.dense_ms
    if dense_ms:
        both = [f"{_format_ms(cost.time.total + dense_ms)} ms" for cost in (unique, expanded)]
        table.add_row("dense layers, roughly", f"{_format_ms(dense_ms)} ms", f"{_format_ms(dense_ms)} ms")
        table.add_row("whole step, roughly", *both, f"{plan.estimate.step_ratio:.2f}x")
    ratio = _format_ratio(unique.num_bytes, expanded.num_bytes)
    table.add_row("sent by a rank", _format_kb(unique), _format_kb(expanded), ratio)
    if plan.world.num_hosts > 1:
        sides = unique, expanded
        exchanged = [cost.between_bytes for cost in sides]
        table.add_row("  to other hosts", *(f"{n / 1e3:,.1f} kB" for n in exchanged), _format_ratio(*exchanged))
        if any(cost.copied_bytes for cost in sides):
            copied = [cost.copied_bytes for cost in sides]
            total = [cost.bytes_to_other_hosts for cost in sides]
            table.add_row("  and gradients of copied tables", *(f"{n / 1e3:,.1f} kB" for n in copied), "")
            table.add_row("  to other hosts in all", *(f"{n / 1e3:,.1f} kB" for n in total), _format_ratio(*total))
    fits = plan.estimate.rank_bytes <= memory_bytes
    remedy = "" if fits else "more than there is: choose another sharding or more ranks"
    memory = f"{plan.estimate.rank_bytes / 2**20:,.1f} MiB"
    table.add_row("tables of the fullest rank", memory, f"of {memory_bytes / 2**30:,.0f} GiB", remedy)
    meanwhile = "Input is of the next batch: it counts only where it is longer than all the rest."
    if plan.world.num_hosts > 1 and all(c.copied_bytes and not c.between_bytes for c in (unique, expanded)):
        meanwhile += " Every rank holds a copy of all tables, on either side: hosts exchange gradients only."
    table.caption = f"{meanwhile}\n{_describe_share(plan)}\nFigures: {plan.machine.source}."
    return table


def _describe_share(plan: TablePlan) -> str:
    """What share of a whole step the tables' part is, and how that was estimated."""
    estimate = plan.estimate
    if not estimate.dense_ms or not estimate.unique.time.total:
        return "The tables' share of a whole step is unknown, since the dense layers are."
    return (
        f"The tables' part is about {estimate.tables_share:.0%} of a step, so that a whole step gains about "
        f"{estimate.step_ratio:.2f}x. The dense layers are estimated by their parameters: 6 operations a parameter and "
        f"sample, on either side (on unique rows it is less), {plan.machine.dense_flops_per_s / 1e9:,.0f} billion "
        "operations a second. Attention, products between "
        "features, the reader and Python are unknown and come on top: compare samples/s of `recd train` with dedup=on "
        "and dedup=off."
    )


def render_simulation(estimates: Sequence[PlanEstimate], plan: TablePlan) -> PlainTable:
    """Renders how a step grows with the number of ranks, each of which has a batch of its own.

    Args:
        estimates: the estimate for each number of ranks.
        plan: a plan for the same machines.
    """
    title = f"More ranks, each with as large a batch ({plan.machine.name}); planned anew for each number"
    table = PlainTable(title, ("ranks", "hosts", *_SIZES, "gain", "fewer bytes to\nother hosts", ""), ("",))
    most = max(e.expanded.time.total for e in estimates)
    for estimate in estimates:
        unique, expanded = estimate.unique, estimate.expanded
        hosts = -(-estimate.world_size // plan.machine.local_world_size(estimate.world_size))
        table.add_row(
            str(estimate.world_size),
            str(hosts),
            f"{estimate.rank_bytes / 2**20:,.1f}",
            f"{unique.num_bytes / 1e3:,.1f}",
            f"{expanded.num_bytes / 1e3:,.1f}",
            _format_ms(unique.time.total),
            _format_ms(expanded.time.total),
            _format_ratio(unique.time.total, expanded.time.total),
            _format_ratio(unique.bytes_to_other_hosts, expanded.bytes_to_other_hosts),
            _draw_bar(unique.time.total / most, expanded.time.total / most),
        )
    table.caption = "█ unique, ░ what expanded takes beyond it"
    return table


def render_differences(differences: Sequence[tuple[str, str, str]], path: str) -> PlainTable:
    """Renders what differs between a saved plan and this one.

    Args:
        differences: what ``saved_plan.compare_plans`` lists.
        path: file of the saved plan.
    """
    table = PlainTable(f"Compared with {path}", ("", "saved plan", "this plan"), ("saved plan", "this plan"))
    for row in differences:
        table.add_row(*row)
    if not differences:
        table.add_row("nothing differs", "", "")
    return table


def _draw_bar(unique: float, expanded: float) -> str:
    """One bar for two shares of BAR_WIDTH: the first is full, what the second has beyond it is light."""
    full, length = round(unique * BAR_WIDTH), round(max(unique, expanded) * BAR_WIDTH)
    return "█" * full + "░" * (length - full)


def _format_ms(number: float) -> str:
    if number == 0:
        return "0"
    return f"{number:,.1f}" if number >= 100 else f"{number:.2f}" if number >= 0.1 else f"{number:.3f}"


def _format_kb(cost: StepCost) -> str:
    return f"{cost.num_bytes / 1e3:,.1f} kB"


def _format_ratio(unique: float, expanded: float) -> str:
    return f"{expanded / unique:.2f}x" if unique else "-"
