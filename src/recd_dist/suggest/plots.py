"""Plots of the HTML report as inline SVG, made from plain numbers.

Only ``report.py`` uses them. Colours are CSS variables that the page defines for light and dark; every text is escaped.
A plot is as wide as the page's column and as high as its bars need, so that 70 features stay readable.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from recd_dist.screen.numbers import shorten

WIDTH = 1040
NUM_COLOURS = 8
"""Number of groups with a colour of their own; all others share one."""

_ROW = 20
_LETTER = 6.6  # mean width of a 12 px letter


@dataclass(frozen=True)
class Bar:
    """A bar of a bar plot, or two bars of which the second shows what remains.

    Attributes:
        name: name of the feature, at the left of the bar.
        value: length of the bar.
        label: text at the right of the bar.
        colour: CSS colour of the bar, or of the second bar if there are two.
        rest: length of the second bar, below the first; None for a single bar.
    """

    name: str
    value: float
    label: str
    colour: str
    rest: float | None = None


@dataclass(frozen=True)
class Line:
    """Two curves of a group.

    Attributes:
        name: name of the group.
        solid: (batch size, factor) in batches of the table.
        dashed: (batch size, factor) in batches in order of time.
        colour: CSS colour of both.
    """

    name: str
    solid: Sequence[tuple[int, float]]
    dashed: Sequence[tuple[int, float]]
    colour: str


def colour(rank: int | None) -> str:
    """CSS colour of a group.

    Args:
        rank: the rank of the group in the legend; None for ``sample``.
    """
    if rank is None:
        return "var(--muted)"
    return f"var(--c{rank + 1})" if rank < NUM_COLOURS else "var(--other)"


def histogram(bins: Sequence[tuple[int, int, int]]) -> str:
    """A plot of how many sessions have how many samples.

    Args:
        bins: (least samples, most samples, number of sessions) for each bin; bins double in width.
    """
    height, left, top, bottom = 310, 70, 42, 46
    inner = height - top - bottom
    most = max((num for *_, num in bins), default=1)
    ticks = nice_ticks(most)
    scale = inner / max(ticks[-1], 1)
    slot = min(110.0, (WIDTH - left - 20) / max(len(bins), 1))
    parts = []
    for tick in ticks:
        y = top + inner - tick * scale
        parts.append(_rule(left, y, left + slot * len(bins), y))
        parts.append(_text(left - 8, y + 4, f"{tick:,.0f}", "end", "tick"))
    for i, (low, high, num) in enumerate(bins):
        x, tall = left + i * slot, num * scale
        parts.append(_rect(x + 2, top + inner - tall, slot - 4, tall, "var(--c1)", f"{low}-{high} samples: {num:,}"))
        parts.append(_text(x + slot / 2, top + inner - tall - 5, f"{num:,}", "middle", "value"))
        name = f"{low:,}" if low == high else f"{low:,}–{high:,}"
        parts.append(_text(x + slot / 2, top + inner + 17, name, "middle", "tick"))
    parts.append(_text(left, 14, "sessions", "start", "axis"))
    parts.append(_text(left + slot * len(bins) / 2, height - 8, "samples per session", "middle", "axis"))
    return _svg(height, parts, "samples per session")


def bar_plot(bars: Sequence[Bar], ticks: Sequence[float], tick_labels: Sequence[str], axis: str) -> str:
    """A plot of horizontal bars.

    Args:
        bars: bars from top to bottom.
        ticks: numbers on the horizontal axis; the last one is its end.
        tick_labels: the text of each tick.
        axis: title of the horizontal axis, with the unit.
    """
    left = 12 + _LETTER * min(34, max((len(bar.name) for bar in bars), default=1)) + 8
    right = 16 + _LETTER * max((len(bar.label) for bar in bars), default=1)
    inner, end = WIDTH - left - right, max(ticks[-1], 1e-12)
    top, bar_height = 44, _ROW + 4 if any(bar.rest is not None for bar in bars) else _ROW
    height = top + bar_height * len(bars) + 10
    parts = [_text(left, 14, axis, "start", "axis")]
    for tick, label in zip(ticks, tick_labels, strict=True):
        x = left + inner * tick / end
        parts.append(_rule(x, top - 6, x, height - 8))
        parts.append(_text(x, top - 12, label, "middle", "tick"))
    for i, bar in enumerate(bars):
        y = top + i * bar_height
        parts.append(_text(left - 8, y + bar_height / 2 + 4, shorten(bar.name, 34), "end", "name", bar.name))
        wide = inner * bar.value / end
        if bar.rest is None:
            parts.append(_rect(left, y + 3, wide, bar_height - 6, bar.colour, f"{bar.name}: {bar.label}"))
        else:
            half = bar_height / 2 - 3
            parts.append(_rect(left, y + 3, wide, half, "var(--before)", f"{bar.name}: {bar.label}"))
            parts.append(
                _rect(left, y + 3 + half, inner * bar.rest / end, half, bar.colour, f"{bar.name}: {bar.label}")
            )
            wide = max(wide, inner * bar.rest / end)
        parts.append(_text(left + wide + 7, y + bar_height / 2 + 4, bar.label, "start", "value"))
    return _svg(height, parts, axis)


def curve_plot(lines: Sequence[Line], axis: str) -> str:
    """A plot of lines over a logarithmic axis of batch sizes; each name stands at the right end of its line.

    Args:
        lines: the curves of each group.
        axis: title of the vertical axis.
    """
    left, top, bottom = 60, 34, 46
    right = 20 + _LETTER * max((min(len(line.name), 30) for line in lines), default=1)
    height = max(380, top + bottom + 16 * len(lines))
    points = [p for line in lines for p in (*line.solid, *line.dashed)]
    sizes = sorted({size for size, _ in points}) or [1]
    low, high = min((f for _, f in points), default=1.0), max((f for _, f in points), default=1.0)
    is_log = high > 12 * max(low, 1)
    ticks = _log_ticks(high) if is_log else nice_ticks(high)
    span = max(math.log2(sizes[-1] / sizes[0]), 1.0)
    inner_x, inner_y = WIDTH - left - right, height - top - bottom

    def x_of(size: float) -> float:
        return left + inner_x * math.log2(size / sizes[0]) / span

    def y_of(factor: float) -> float:
        share = math.log(max(factor, 1)) / math.log(ticks[-1]) if is_log else factor / ticks[-1]
        return top + inner_y * (1 - share)

    parts = [_text(left, 14, axis + (" (logarithmic)" if is_log else ""), "start", "axis")]
    for tick in ticks:
        parts.append(_rule(left, y_of(tick), left + inner_x, y_of(tick)))
        parts.append(_text(left - 8, y_of(tick) + 4, f"{tick:g}", "end", "tick"))
    for size in sizes:
        parts.append(_rule(x_of(size), top, x_of(size), top + inner_y))
        parts.append(_text(x_of(size), top + inner_y + 17, f"{size:,}", "middle", "tick"))
    parts.append(_text(left + inner_x / 2, height - 8, "batch size, samples", "middle", "axis"))
    ends = []
    for line in lines:
        parts += _curves(line, x_of, y_of)
        ends.append((x_of(line.solid[-1][0]), y_of(line.solid[-1][1])) if line.solid else (left, top + inner_y))
    label_ys = move_apart([y for _, y in ends], 15, top, top + inner_y)
    for line, (x, y), label_y in zip(lines, ends, label_ys, strict=True):
        edge = left + inner_x
        parts.append(
            f'<polyline points="{x:.1f},{y:.1f} {edge:.1f},{y:.1f} {edge + 12:.1f},{label_y:.1f}" class="leader"/>'
        )
        parts.append(_text(edge + 16, label_y + 4, shorten(line.name, 30), "start", "name", line.name))
    return _svg(height, parts, axis)


def _curves(line: Line, x_of: Callable[[float], float], y_of: Callable[[float], float]) -> list[str]:
    """The dashed and the solid curve of a group, and a point for each batch size of the solid one."""
    parts = []
    for curve, style in ((line.dashed, "stroke-dasharray:5 4;opacity:.8"), (line.solid, "")):
        path = " ".join(f"{x_of(size):.1f},{y_of(factor):.1f}" for size, factor in curve)
        parts.append(f'<polyline points="{path}" class="curve" style="stroke:{line.colour};{style}"/>')
    parts += [
        f'<circle cx="{x_of(size):.1f}" cy="{y_of(factor):.1f}" r="3" style="fill:{line.colour}">'
        f"<title>{escape(line.name)}, batch {size:,}: {factor:.2f}</title></circle>"
        for size, factor in line.solid
    ]
    return parts


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """A legend as HTML.

    Args:
        entries: (name, CSS colour) of each entry.
    """
    items = "".join(
        f'<span class="entry"><span class="swatch" style="background:{shade}"></span>{escape(name)}</span>'
        for name, shade in entries
    )
    return f'<p class="legend">{items}</p>'


def nice_ticks(most: float, num: int = 5) -> list[float]:
    """About ``num`` ticks from 0 to ``most`` or beyond, at steps of 1, 2 or 5 times a power of ten."""
    step = 10 ** math.floor(math.log10(max(most, 1e-9) / num))
    step = next(step * times for times in (1, 2, 5, 10) if step * times * num >= most * 0.999)
    return [i * step for i in range(math.ceil(most / step - 1e-9) + 1)]


def _log_ticks(most: float) -> list[float]:
    ticks = [1.0]
    for power in range(0, 12):
        for times in (1, 2, 5):
            tick = float(times * 10**power)
            if tick > ticks[-1]:
                ticks.append(tick)
            if ticks[-1] >= most:
                return ticks
    return ticks


def move_apart(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Moves labels apart so that none overlaps another, and no further than needed.

    Args:
        positions: where the labels belong.
        gap: the least distance between two labels.
        low: the least position that a label may have.
        high: the largest position that a label may have.

    Returns:
        The position of each label.
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    blocks: list[tuple[float, int]] = []  # where a run of labels begins, on average, and how many labels it has
    for rank, i in enumerate(order):
        blocks.append((positions[i] - rank * gap, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (above, num_above), (below, num_below) = blocks[-2:]
            num = num_above + num_below
            blocks[-2:] = [((above * num_above + below * num_below) / num, num)]
    starts = [start for start, num in blocks for _ in range(num)]
    limit = high - (len(positions) - 1) * gap
    moved = [0.0] * len(positions)
    for rank, i in enumerate(order):
        moved[i] = max(low, min(starts[rank], limit)) + rank * gap
    return moved


def _svg(height: float, parts: Sequence[str], title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _text(x: float, y: float, text: str, anchor: str, kind: str, title: str = "") -> str:
    hint = f"<title>{escape(title)}</title>" if title and title != text else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}{hint}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="rule"/>'


def _rect(x: float, y: float, width: float, height: float, shade: str, title: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{max(height, 0):.1f}" rx="2" '
        f'style="fill:{shade}"><title>{escape(title)}</title></rect>'
    )
