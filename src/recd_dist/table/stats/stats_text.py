"""What ``recd stats`` prints: the numbers of a table as text that fits any width."""

import math
from collections.abc import Iterable
from functools import partial

from rich.console import Group
from rich.text import Text

from recd_dist.screen.numbers import count, rate, size
from recd_dist.screen.plain_table import PlainTable
from recd_dist.table.schema import SAMPLE, Kind
from recd_dist.table.stats.batch_cost import DIM, STEP, Cost
from recd_dist.table.stats.row_repeats import BATCH_SIZES, SESSION_BATCH, Spread
from recd_dist.table.stats.table_stats import FeatureStat, GroupStat, TableStats

_size = partial(size, gap="", next_unit_from=1024)

_SIDES = ("expanded", "unique")

_WORTH = 1.5
"""Dedup factor from which a group pays for itself; RecD's rule of thumb."""


def render(stats: TableStats) -> Group:
    """The numbers of a table as something that rich prints.

    Args:
        stats: the numbers of one split.

    Returns:
        Lines about the whole table, a table of groups, what a batch costs, advice, and a table of features.
    """
    lines = [Text(line) for line in _heading_lines(stats)]
    advice = [Text(line) for line in _advice_lines(stats)]
    return Group(*lines, Text(), _groups_table(stats), _batch_table(stats), *advice, _features_table(stats.features))


def _heading_lines(stats: TableStats) -> Iterable[str]:
    """Lines about the whole table."""
    yield f"{stats.name}/{stats.split}: {stats.num_samples:,} samples, {stats.num_sessions:,} sessions"
    yield f"  samples per session   {_spread_text(stats.session)}"
    if stats.num_requests < stats.num_samples:
        yield f"  samples per request   {_spread_text(stats.request)}"
    in_time = stats.per_session_in_time_order
    before = "" if math.isnan(in_time) else f"{in_time:.2f} of a session in time order, "
    yield f"  in a batch of {SESSION_BATCH}    {before}{stats.per_session_clustered:.2f} clustered"
    yield "  labels                " + ", ".join(f"{name} {mean:.4f}" for name, mean in stats.label_means.items())
    disk = f"  on disk               {_size(stats.num_bytes)}"
    if stats.num_table_bytes != stats.num_bytes:
        disk += f", all splits {_size(stats.num_table_bytes)}"
    if stats.num_raw_bytes:
        disk += f"; raw files {_size(stats.num_raw_bytes)} ({stats.num_raw_bytes / stats.num_table_bytes:.2f}x)"
    yield disk


def _groups_table(stats: TableStats) -> PlainTable:
    """The table of how often the rows of each group repeat."""
    batches = [f"batch\n{size}" for size in BATCH_SIZES]
    heads = ("group", "features", "rows", "d", "dedup", *batches, "pre-\ndicted", "disk")
    table = PlainTable("groups: samples per unique row in the table, in batches, and as S and d predict", heads)
    for group in _groups_to_show(stats):
        numbers = [group.dedup_factor, *(group.dedup_factor_at[size] for size in BATCH_SIZES), group.predicted]
        is_total = group.name == stats.total.name
        table.add_row(
            "all ids" if is_total else group.name,
            str(group.num_features),
            "" if is_total else f"{group.num_rows:,}",
            rate(group.stay_rate),
            *("-" if group.name == SAMPLE else f"{number:.2f}" for number in numbers),
            _size(group.num_bytes),
            style="bold" if is_total else "",
        )
    return table


def _batch_table(stats: TableStats) -> PlainTable:
    """The table of what each group of a batch costs to move, expanded and unique."""
    table = PlainTable(
        f"a batch of {STEP} samples: to the embeddings and back (pooled rows of {DIM} float32)",
        (
            "group",
            "ids\nexpanded",
            "\nunique",
            "input\nexpanded",
            "\nunique",
            "output\nexpanded",
            "\nunique",
            "bytes\nsaved",
        ),
    )
    for group in _groups_to_show(stats):
        cells = _cost_cells(group.expanded, group.unique)
        table.add_row(group.name, *cells, style="bold" if group is stats.total else "")
    return table


def _groups_to_show(stats: TableStats) -> list[GroupStat]:
    """The groups that have features or rows of their own, then all groups together."""
    return [*(g for g in stats.groups if g.num_features or g.name != SAMPLE), stats.total]


def _cost_cells(expanded: Cost, unique: Cost) -> list[str]:
    """Cells of ids, input bytes and output bytes, each expanded and unique, and of the share of bytes saved."""
    before = expanded.input_bytes + expanded.output_bytes
    after = unique.input_bytes + unique.output_bytes
    return [
        count(expanded.ids),
        count(unique.ids),
        _size(expanded.input_bytes),
        _size(unique.input_bytes),
        _size(expanded.output_bytes),
        _size(unique.output_bytes),
        f"{1 - after / before:.0%}" if before else "-",
    ]


def _advice_lines(stats: TableStats) -> Iterable[str]:
    """Advice on groups that hardly repeat and on features that could form a group."""
    for group in stats.groups:
        has_windows = any(f.group == group.name and f.window for f in stats.features)
        if group.name != SAMPLE and group.dedup_factor < _WORTH and not has_windows:
            yield f"Group '{group.name}' repeats only {group.dedup_factor:.2f} times: in `sample` it would cost less."
    for feature in stats.features:
        if feature.group == SAMPLE and feature.kind == Kind.ids and feature.stay_rate >= 1 / _WORTH:
            yield f"'{feature.name}' is the same in {feature.stay_rate:.0%} of neighbours: give it a group."


def _features_table(features: tuple[FeatureStat, ...]) -> PlainTable:
    """The table of features, below their groups: a name stands once, also where group or table have it too."""
    heads = ("feature", "kind", "per\nsample", "most", "d", "expanded", "stored", "dedup", "disk")
    table = PlainTable("features, by group", heads, left=("kind",))
    for group in dict.fromkeys(f.group for f in features):
        members = [f for f in features if f.group == group]
        is_alone = [f.name for f in members] == [group]
        if not is_alone:
            table.add_row(group, style="bold")
        for f in members:
            shared = "" if f.table in (None, f.name) else f" (table {f.table})"
            table.add_row(
                f"{'' if is_alone else '  '}{f.name}{shared}",
                f.kind,
                f"{f.num_per_sample:.1f}",
                str(f.max_length),
                rate(f.stay_rate),
                count(f.num_expanded),
                count(f.num_stored),
                "-" if f.group == SAMPLE else f"{f.dedup_factor:.2f}",
                _size(f.num_bytes),
            )
    return table


def _spread_text(spread: Spread) -> str:
    return f"mean {spread.mean:.2f}, median {spread.median:g}, max {spread.max}"
