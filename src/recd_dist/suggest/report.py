"""A suggestion as one HTML file that needs no script, no font and no network."""

import math
from html import escape

from recd_dist.screen.numbers import count, rate, ratio, size
from recd_dist.suggest.batch_factors import BATCH
from recd_dist.suggest.plots import NUM_COLOURS, Bar, Line, bar_plot, colour, curve_plot, histogram, legend, nice_ticks
from recd_dist.suggest.suggestion import FeatureSummary, Suggestion
from recd_dist.suggest.suggestion_text import heading_lines, metrics_of
from recd_dist.table.schema import SAMPLE
from recd_dist.table.stats.batch_cost import DIM

_MAX_CURVES = 14

_STYLE = """
:root{color-scheme:light dark;--page:#fcfcfb;--card:#fff;--ink:#16181d;--soft:#5b616e;--line:#e4e5e9;--muted:#a9adb7;
--before:#c9ccd4;--other:#7d8597;--good:#0b7a43;--warn:#935f00;--c1:#2a78d6;--c2:#1baf7a;--c3:#d99200;--c4:#4a3aa7;
--c5:#e34948;--c6:#e87ba4;--c7:#008300;--c8:#eb6834}
@media (prefers-color-scheme:dark){:root{--page:#14161a;--card:#1b1e24;--ink:#e9eaee;--soft:#a3a9b6;--line:#31353e;
--muted:#6a7080;--before:#4a505d;--other:#8f97a8;--good:#4cc38a;--warn:#e0a83b;--c1:#3987e5;--c2:#199e70;--c3:#c98500;
--c4:#9085e9;--c5:#e66767;--c6:#d55181;--c7:#3f9b3f;--c8:#d95926}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 24px 64px}h1{font-size:26px;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:18px;margin:36px 0 4px}p{margin:4px 0 10px}.soft{color:var(--soft)}
.verdict{font-size:19px;font-weight:600;border-left:4px solid var(--warn);padding:8px 14px;background:var(--card);
margin:18px 0}.verdict.good{border-color:var(--good)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:12px;margin:16px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.tile b{display:block;font-size:26px;line-height:1.2}.tile span{color:var(--soft);font-size:13px}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:14px 16px;overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{font-weight:600;color:var(--soft);vertical-align:bottom}th:first-child,td:first-child,.words{text-align:left}
td.words{white-space:normal}tr:last-child td{border-bottom:0}td i{font-style:normal;color:var(--soft);padding-left:6px}
.best{font-weight:600}.long{white-space:normal;overflow-wrap:anywhere;max-width:230px}
svg{display:block;width:100%;height:auto;min-width:760px}svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,
Helvetica,Arial,sans-serif;fill:var(--ink);font-variant-numeric:tabular-nums}svg .tick,svg .axis{fill:var(--soft)}
svg .axis{font-weight:600}
svg .value{fill:var(--soft);paint-order:stroke;stroke:var(--card);stroke-width:4px}
.rule{stroke:var(--line);stroke-width:1}
.curve{fill:none;stroke-width:2;stroke-linejoin:round}.leader{fill:none;stroke:var(--muted);stroke-width:1}
.legend{font-size:13px;color:var(--soft);margin:2px 0 12px}.entry{display:inline-block;margin:0 16px 2px 0}
.swatch{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:6px;vertical-align:-1px}
pre{margin:0;font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;white-space:pre-wrap;
overflow-wrap:anywhere}footer{margin-top:36px;color:var(--soft);font-size:13px}
"""


def to_html(suggestion: Suggestion, command: str) -> str:
    """A suggestion as an HTML document with plots.

    Args:
        suggestion: the suggestion.
        command: the command that made it, which is shown at the end.
    """
    first, *rest = heading_lines(suggestion)
    sections = [
        f"<h1>{escape(suggestion.name)}: what deduplication would save</h1>",
        f'<p class="soft">{escape(first.partition(": ")[2])}</p>',
        f'<div class="verdict{" good" if suggestion.is_worth_it else ""}">{escape(suggestion.verdict)}</div>',
        _tiles(suggestion),
        _section("What was looked at", "", f"<pre>{escape(_unindent(rest))}</pre>"),
        _section("Proposals", _PROPOSALS, _proposals_table(suggestion)),
        _section("Samples per session", _SESSIONS, histogram(suggestion.histogram)),
        _section("d per feature", _STAY, _legend(suggestion) + _stay_rates(suggestion)),
        _curves_section(suggestion) if suggestion.groups else "",
        _section("Bytes on disk by feature", _BYTES, _bytes_on_disk(suggestion)),
        _section("Suggested groups", "", _groups_table(suggestion)) if suggestion.groups else "",
        _section("Features", "", _features_table(suggestion)),
        _section("The data config", _CONFIG, f"<pre>{escape(suggestion.yaml)}</pre>"),
        f"<footer><p>{escape(command)}</p><p>{escape(suggestion.date)}</p></footer>",
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(suggestion.name)}: groups</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


_PROPOSALS = (
    f"Storage is that of all samples; everything else is a batch of {BATCH:,} samples on one rank, with pooled vectors "
    f"of {DIM} float32. Grey: how many times less than the flat table."
)
_SESSIONS = "What repeats, repeats inside a session: short sessions leave little to save."
_STAY = "The share of neighbours in a session between which a feature stays the same. Coloured by suggested group."
_FACTORS = (
    "Samples per unique row in a batch. Solid: batches of the table, clustered by session. Dashed: the same batches in "
    "order of time, as logs arrive, where rows that the table stores once count once."
)
_BYTES = "Compressed files of all samples: flat and in order of time above, as suggested below."
_CONFIG = "For my_configs/data/mine.yaml; then <code>recd etl data=mine --config-dir my_configs</code>."


def _section(title: str, words: str, body: str) -> str:
    intro = f'<p class="soft">{words}</p>' if words else ""
    return f'<section><h2>{title}</h2>{intro}<div class="card">{body}</div></section>'


def _unindent(lines: list[str]) -> str:
    return "\n".join(line[2:] for line in lines)


def _tiles(suggestion: Suggestion) -> str:
    flat, best = suggestion.proposals[0].estimate, suggestion.proposal("suggested").estimate
    tiles = (
        ("fewer", "more", "ids sent and looked up", flat.ids, best.ids, False),
        ("smaller", "larger", "on disk", flat.storage_bytes, best.storage_bytes, True),
        ("fewer", "more", "bytes decoded", flat.decoded_bytes, best.decoded_bytes, True),
        ("fewer", "more", "vectors back", flat.vector_bytes, best.vector_bytes, True),
        ("fewer", "more", "keys and values of attention", flat.attention_rows, best.attention_rows, False),
    )
    return f'<div class="tiles">{"".join(_tile(*tile) for tile in tiles if tile[3])}</div>'


def _tile(less: str, more: str, what: str, before: float, after: float, is_bytes: bool) -> str:
    times = ratio(max(before, after), min(before, after))
    return (
        f'<div class="tile"><b>{times}</b>{less if after <= before else more} {what}<br>'
        f"<span>{_amount(before, is_bytes)} → {_amount(after, is_bytes)}</span></div>"
    )


def _amount(value: float, is_bytes: bool) -> str:
    return size(value) if is_bytes else count(value)


def _proposals_table(suggestion: Suggestion) -> str:
    base = suggestion.proposals[0].estimate
    head = "".join(f'<th class="long">{escape(p.title)}</th>' for p in suggestion.proposals)
    lines = ["<tr><td>groups</td>" + "".join(f"<td>{len(p.groups)}</td>" for p in suggestion.proposals) + "</tr>"]
    for field, words, is_bytes in metrics_of(suggestion):
        cells = []
        for p in suggestion.proposals:
            value, before = getattr(p.estimate, field), getattr(base, field)
            times = "" if p.name == "flat" else f"<i>{ratio(before, value)}</i>"
            best = ' class="best"' if p.name == "suggested" else ""
            cells.append(f"<td{best}>{_amount(value, is_bytes)}{times}</td>")
        indent = "&emsp;" if words.startswith(" ") else ""
        lines.append(f"<tr><td>{indent}{escape(words.strip())}</td>{''.join(cells)}</tr>")
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _legend_ranks(suggestion: Suggestion) -> dict[str, int]:
    """The rank of each group by its bytes; the first ranks have colours of their own."""
    weight = {g.name: sum(f.flat_bytes for f in suggestion.features if f.group == g.name) for g in suggestion.groups}
    return {name: i for i, name in enumerate(sorted(weight, key=lambda name: -weight[name]))}


def _colour(suggestion: Suggestion, feature: FeatureSummary) -> str:
    return colour(None if feature.group == SAMPLE else _legend_ranks(suggestion)[feature.group])


def _legend(suggestion: Suggestion, first: tuple[tuple[str, str], ...] = ()) -> str:
    ranks = _legend_ranks(suggestion)
    entries = [*first, *((name, colour(i)) for name, i in ranks.items() if i < NUM_COLOURS)]
    if len(ranks) > NUM_COLOURS:
        entries.append((f"{len(ranks) - NUM_COLOURS} more groups", colour(NUM_COLOURS)))
    if any(f.group == SAMPLE for f in suggestion.features):
        entries.append(("sample: not deduplicated", colour(None)))
    return legend(entries)


def _stay_rates(suggestion: Suggestion) -> str:
    known = [f for f in suggestion.features if not math.isnan(f.stay_rate)]
    if not known:
        return "<p>No session has two samples: there are no neighbours to compare.</p>"
    bars = [
        Bar(f.name, f.stay_rate, rate(f.stay_rate), _colour(suggestion, f))
        for f in sorted(known, key=lambda f: -f.stay_rate)
    ]
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    return bar_plot(bars, ticks, [f"{tick:g}" for tick in ticks], "d, share of neighbours")


def _curves_section(suggestion: Suggestion) -> str:
    """Factors against batch sizes, of the groups with the most bytes."""
    ranks = _legend_ranks(suggestion)
    lines = [
        Line(
            g.name,
            [(s, f) for s, f in g.clustered_at.items() if f is not None],
            [(s, f) for s, f in g.in_time_at.items() if f is not None],
            colour(ranks[g.name]),
        )
        for g in sorted(suggestion.groups, key=lambda g: ranks[g.name])[:_MAX_CURVES]
    ]
    num_more = len(suggestion.groups) - _MAX_CURVES
    more = f" {num_more} more groups are in the table below." if num_more > 0 else ""
    return _section("Factor against batch size", _FACTORS + more, curve_plot(lines, "samples per unique row"))


def _bytes_on_disk(suggestion: Suggestion) -> str:
    """Bytes of each feature, flat and as suggested."""
    bars = [
        Bar(
            f.name,
            f.flat_bytes,
            f"{size(f.flat_bytes)} → {size(f.stored_bytes)} · {ratio(f.flat_bytes, f.stored_bytes)}",
            _colour(suggestion, f),
            f.stored_bytes,
        )
        for f in sorted(suggestion.features, key=lambda f: -f.flat_bytes)
    ]
    unit = 1024 ** min(3, int(max(0, len(bin(int(bars[0].value))) - 3) // 10))
    ticks = [tick * unit for tick in nice_ticks(max(max(bar.value, bar.rest or 0) for bar in bars) / unit)]
    unit_name = {1: "B", 1024: "KiB", 1024**2: "MiB", 1024**3: "GiB"}[unit]
    shades = _legend(suggestion, (("flat, in order of time", "var(--before)"),))
    return shades + bar_plot(bars, ticks, [f"{tick / unit:g}" for tick in ticks], unit_name)


def _groups_table(suggestion: Suggestion) -> str:
    lines = [
        f'<tr><td>{escape(g.name)}</td><td>{rate(g.stay_rate)}</td><td>{g.dedup_factor:.2f}</td><td class="words">'
        f"{escape(', '.join(g.features))}</td></tr>"
        for g in suggestion.groups
    ]
    head = '<th>group</th><th>d</th><th>samples per row</th><th class="words">features</th>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _features_table(suggestion: Suggestion) -> str:
    lines = [
        f"<tr><td>{escape(f.name)}</td><td>{escape(f.kind)}</td><td>{escape(f.group)}</td>"
        f"<td>{f.num_per_sample:.1f}</td><td>{rate(f.stay_rate)}</td><td>{f.dedup_factor:.2f}</td>"
        f'<td>{f.shift_rate:.0%}</td><td class="words">{escape(f.verdict)}</td></tr>'
        for f in suggestion.features
    ]
    names = ("feature", "kind", "group", "per sample", "d", "factor", "shifts")
    head = "".join(f"<th>{name}</th>" for name in names) + '<th class="words">verdict</th>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
