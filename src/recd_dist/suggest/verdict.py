"""Plain words for what the numbers say: one verdict per feature, one for the table."""

import math
from collections.abc import Mapping, Sequence

from recd_dist.suggest.features import Look
from recd_dist.suggest.propose_groups import Proposed, repeats
from recd_dist.suggest.sample import Sampled
from recd_dist.suggest.savings import Estimate, shifting
from recd_dist.table.schema import SAMPLE
from recd_dist.table.stats.row_repeats import Spread

WORTH_IT = 1.5
"""Ratio of ids or of bytes on disk from which the table is worth making."""

_LITTLE = 1.1


def of_feature(look: Look, group: str) -> str:
    """What to do with a feature, and why.

    Args:
        look: the feature.
        group: the suggested group.
    """
    num_samples, num_rows = len(look.flags), max(int(look.flags.sum()), 1)
    factor = num_samples / num_rows
    if group == SAMPLE:
        if not look.num_pairs:
            return "every session has one sample: nothing repeats"
        if not look.num_values():
            return "always empty"
        if not repeats(look):
            return "changes nearly always" if factor < _LITTLE else f"repeats only {factor:.2f}x"
        if not look.is_of_session:
            return f"repeats {factor:.1f}x by chance"
        return f"repeats {factor:.1f}x, too narrow to pay"
    stored = max(look.num_values(look.flags), 1)
    what = "ids" if look.feature.is_sparse else "numbers"
    text = f"{look.num_values() / stored:.1f}x fewer {what}" if look.num_values() else "empty"
    if shifting(look):
        return f"{text}, {look.num_values() / max(look.num_new, 1):.1f}x with windows"
    return text


def of_table(
    estimates: Mapping[str, Estimate],
    session: Spread,
    read: Sampled,
    suggested: Sequence[Proposed],
    looks: Sequence[Look],
) -> tuple[str, bool]:
    """Whether the table is worth making, and why.

    Returns:
        The verdict, and True if it is.
    """
    flat, best = estimates["flat"], estimates["suggested"]
    if not read.has_session:
        return "nothing to gain without a session: no column says which samples belong together; name one", False
    if session.max == 1:
        return "nothing to gain: every session has one sample", False
    ids = flat.ids / best.ids if best.ids else 1.0
    size = flat.storage_bytes / best.windowed_bytes
    numbers = f"{ids:.1f}x fewer ids to look up and send, {_smaller(size)} on disk"
    if not suggested:
        return f"nothing to gain from groups: no feature repeats enough (sorted by session: {_smaller(size)})", False
    if ids >= WORTH_IT or size >= WORTH_IT:
        return f"worth it: {numbers}", True
    if ids >= _LITTLE or size >= _LITTLE:
        return f"little to gain: {numbers}", False
    d = [look.stay_rate for look in looks if not math.isnan(look.stay_rate)]
    mean = f", features stay the same {sum(d) / len(d):.0%} of the time" if d else ""
    return f"nothing to gain: {session.mean:.1f} samples a session{mean}", False


def _smaller(ratio: float) -> str:
    if 0.95 < ratio < 1.05:
        return "the same size"
    return f"{ratio:.1f}x smaller" if ratio > 1 else f"{1 / ratio:.1f}x larger"
