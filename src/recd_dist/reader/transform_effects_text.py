"""What transforms change, as a table for people."""

import math
from collections.abc import Sequence

from recd_dist.reader.transform_effects import ROW_GROUPS, Effect, Looks
from recd_dist.screen.numbers import count
from recd_dist.screen.plain_table import PlainTable


def render_effects(effects: Sequence[Effect]) -> PlainTable:
    """A row for each transform: what it changed, and what values look like before and after."""
    columns = ("feature", "changed", "unknown", "distinct", "length", "least", "most", "transform")
    table = PlainTable("what transforms change, once for each stored row", columns, left=("transform",))
    before = ""
    for effect in effects:
        changed = f"{100 * effect.num_changed / effect.num_compared:.1f}%" if effect.num_compared else "made"
        unknown = f"{100 * effect.num_unknown / effect.num_compared:.1f}%" if effect.num_unknown else ""
        table.add_row(
            effect.feature if effect.feature != before else "",
            changed,
            unknown,
            *(_arrow(effect.before, effect.after, what) for what in ("distinct", "length", "min", "max")),
            effect.transform,
        )
        before = effect.feature
    table.caption = (
        f"Of {ROW_GROUPS} row groups at most. changed: the share of values that became others; of lists that were cut "
        "or filled, the share of rows. distinct: how many different values there are."
    )
    return table


def _arrow(before: Looks | None, after: Looks, what: str) -> str:
    """A number before and after: once where it stayed."""
    shown = [_number(looks.to_json()[what], what) for looks in (before, after) if looks is not None]
    return shown[0] if len(set(shown)) == 1 else " > ".join(shown)


def _number(value: float, what: str) -> str:
    if what == "distinct":
        return count(value)
    return "-" if math.isnan(value) else f"{value:.4g}"
