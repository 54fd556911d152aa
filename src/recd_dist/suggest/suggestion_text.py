"""A suggestion as text that fits any width."""

from collections.abc import Iterable

from rich.console import Group
from rich.text import Text

from recd_dist.screen.numbers import count, rate, ratio, size
from recd_dist.screen.plain_table import PlainTable
from recd_dist.suggest.batch_factors import BATCH
from recd_dist.suggest.suggestion import Suggestion
from recd_dist.table.schema import SAMPLE

METRICS: tuple[tuple[str, str, bool], ...] = (
    ("storage_bytes", "on disk, all samples", True),
    ("decoded_bytes", "decoded", True),
    ("gathered_rows", "rows gathered", False),
    ("ids", "ids sent and looked up", False),
    ("sent_bytes", "ids and lengths sent", True),
    ("vector_bytes", "vectors back", True),
    ("pooled_rows", "rows pooled", False),
    ("attention_rows", "attention keys, values", False),
)
"""Rows of the table of proposals: a field of :class:`Estimate`, its words, and whether it counts bytes."""

_SHORT = {"flat": "flat", "sorted": "sorted", "suggested": "suggested", "config": "config"}
_YAML = {
    True: "these groups for a data config, such as my_configs/data/mine.yaml (--html has the whole config):",
    False: "a data config with these groups, for my_configs/data/mine.yaml:",
}
_SHOWN_SIZES = (512, 4096, 65536)


def render(suggestion: Suggestion) -> Group:
    """A suggestion as something that rich prints.

    Args:
        suggestion: the suggestion.

    Returns:
        The heading, the verdict, tables of proposals, groups and features, and the YAML to paste.
    """
    yaml = suggestion.groups_yaml if suggestion.is_described else suggestion.yaml
    return Group(
        *(Text(line) for line in heading_lines(suggestion)),
        Text(),
        Text(suggestion.verdict, style="bold green" if suggestion.is_worth_it else "bold yellow"),
        Text(),
        _proposals_table(suggestion),
        *(Text(f"  {_SHORT[p.name]}: {p.title}") for p in suggestion.proposals),
        Text(),
        *([_groups_table(suggestion)] if suggestion.groups else []),
        _features_table(suggestion),
        Text(f"{_YAML[suggestion.is_described]}", style="bold"),
        Text(yaml.rstrip(), no_wrap=True, overflow="ignore"),
    )


def heading_lines(suggestion: Suggestion) -> Iterable[str]:
    """Lines that say what was read, which keys and labels it has, and which columns were left out."""
    looked = suggestion.looked
    share = "all of them" if looked.share == 1 else f"{looked.share:.1%}, whole sessions by hash"
    yield f"{suggestion.name}: {suggestion.path}"
    yield (
        f"  looked at     {looked.num_samples:,} of {looked.num_samples_total:,} samples ({share}) in "
        f"{looked.num_sessions:,} of {'~' if looked.share < 1 else ''}{looked.num_sessions_total:,} sessions, "
        f"{looked.seconds:.1f} s"
    )
    if looked.share < 1:
        yield "                bytes on disk are scaled up; what neighbouring sessions share is underestimated"
    if looked.num_keyless:
        yield f"                {looked.num_keyless:,} rows without a session were left out; `recd etl` refuses them"
    if looked.is_cut:
        yield "                one session is larger than the memory for the sample, and was cut"
    for choice in suggestion.choices:
        column = choice.column or "-"
        sure = f"{choice.sure}: " if choice.sure not in ("given", "none") else ""
        yield f"  {choice.role:<13} {column}" + ("" if choice.sure == "given" else f"  ({sure}{choice.why})")
    for column, why in suggestion.left_out.items():
        yield f"  left out      {column}  ({why})"
    session = suggestion.session
    yield f"  sessions      mean {session.mean:.2f} samples, median {session.median:g}, most {session.max:,}"


def _proposals_table(suggestion: Suggestion) -> PlainTable:
    names = [_SHORT[proposal.name] for proposal in suggestion.proposals]
    heads = ["", names[0], *(head for name in names[1:] for head in (name, "\nless"))]
    table = PlainTable(f"what each proposal comes to; all but the bytes on disk for a batch of {BATCH} samples", heads)
    flat, *others = suggestion.proposals
    table.add_row("groups", str(len(flat.groups)), *(cell for p in others for cell in (str(len(p.groups)), "")))
    for field, words, is_bytes in metrics_of(suggestion):
        before = getattr(flat.estimate, field)
        show = size if is_bytes else count
        cells = [show(before)]
        for proposal in others:
            value = getattr(proposal.estimate, field)
            cells += [show(value), ratio(before, value)]
        table.add_row(words, *cells)
    return table


def metrics_of(suggestion: Suggestion) -> list[tuple[str, str, bool]]:
    """Rows of METRICS; rows of attention only where there are histories."""
    flat = suggestion.proposals[0].estimate
    return [row for row in METRICS if getattr(flat, row[0])]


def _groups_table(suggestion: Suggestion) -> PlainTable:
    sizes = [s for s in _SHOWN_SIZES if any(s in g.in_time_at for g in suggestion.groups)]
    heads = ["group", "features", "d", "all", *(head for s in sizes for head in (f"batch\n{s}", "in\ntime"))]
    table = PlainTable("suggested groups: samples per unique row, in batches of the table and in order of time", heads)
    for group in suggestion.groups:
        cells = [number for s in sizes for number in (group.clustered_at.get(s), group.in_time_at.get(s))]
        error = group.factor_error * group.dedup_factor
        table.add_row(
            group.name,
            str(len(group.features)),
            rate(group.stay_rate),
            f"{group.dedup_factor:.2f}" + (f" ±{error:.2f}" if group.factor_error else ""),
            *("-" if number is None else f"{number:.2f}" for number in cells),
        )
    return table


def _features_table(suggestion: Suggestion) -> PlainTable:
    """The table of features, below their groups."""
    heads = ("feature", "per\nsample", "d", "flat", "stored", "verdict")
    table = PlainTable("features, by suggested group; `sample` is never deduplicated", heads, left=("verdict",))
    for group in (*(g.name for g in suggestion.groups), SAMPLE):
        members = [f for f in suggestion.features if f.group == group]
        is_alone = [f.name for f in members] == [group]
        if members and not is_alone:
            table.add_row(group, style="bold")
        for f in members:
            table.add_row(
                f"{'' if is_alone else '  '}{f.name}",
                f"{f.num_per_sample:.1f}",
                rate(f.stay_rate),
                size(f.flat_bytes),
                size(f.stored_bytes),
                f.verdict,
            )
    return table
