"""What the numbers say in plain words: a verdict on each feature and on the table."""

import math
from collections.abc import Iterable, Sequence

from recd_dist.etl.write.propose_groups import repeats_enough
from recd_dist.suggest.features import SampledFeature
from recd_dist.suggest.suggestion import Proposal
from recd_dist.table.schema import SAMPLE
from recd_dist.table.stats.row_repeats import Spread

WORTH_IT = 1.5
"""Ratio of ids, or of bytes on disk, from which the table is worth making."""

_LITTLE = 1.1


def judge_feature(feature: SampledFeature, group: str) -> str:
    """Says what to do with a feature, and why.

    Args:
        feature: the feature over the sampled sessions.
        group: the name of its suggested group, or ``sample``.
    """
    if group == SAMPLE:
        return _why_not_grouped(feature)
    num_values, num_stored = feature.num_values(), max(feature.num_values(feature.flags), 1)
    what = "ids" if feature.feature.is_sparse else "numbers"
    text = f"{num_values / num_stored:.1f}x fewer {what}" if num_values else "empty"
    if feature.has_windows(feature.flags):
        return f"{text}, {num_values / max(feature.num_new, 1):.1f}x with windows"
    return text


def _why_not_grouped(feature: SampledFeature) -> str:
    factor = len(feature.flags) / max(feature.num_rows, 1)
    if not feature.num_pairs:
        return "every session has one sample: nothing repeats"
    if not feature.num_values():
        return "always empty"
    if not repeats_enough(feature):
        return "changes nearly always" if factor < _LITTLE else f"repeats only {factor:.2f}x"
    if not feature.is_of_session:
        return f"repeats {factor:.1f}x by chance"
    return f"repeats {factor:.1f}x, too narrow to pay"


def judge_table(
    proposals: Iterable[Proposal],
    session: Spread,
    has_session: bool,
    has_groups: bool,
    features: Sequence[SampledFeature],
) -> tuple[str, bool]:
    """Says whether the table is worth making, and why.

    Args:
        proposals: the proposals, of which ``flat`` and ``suggested`` are compared.
        session: samples per session.
        has_session: whether the source has a session key.
        has_groups: whether any group is suggested.
        features: every feature.

    Returns:
        The verdict, and whether the table is worth making.
    """
    estimates = {proposal.name: proposal.estimate for proposal in proposals}
    flat, best = estimates["flat"], estimates["suggested"]
    if not has_session:
        return "nothing to gain without a session: no column says which samples belong together; name one", False
    if session.max == 1:
        return "nothing to gain: every session has one sample", False
    ids = flat.ids / best.ids if best.ids else 1.0
    size = flat.storage_bytes / best.storage_bytes
    numbers = f"{ids:.1f}x fewer ids to look up and send, {_smaller(size)} on disk"
    if not has_groups:
        return f"nothing to gain from groups: no feature repeats enough (sorted by session: {_smaller(size)})", False
    if ids >= WORTH_IT or size >= WORTH_IT:
        return f"worth it: {numbers}", True
    if ids >= _LITTLE or size >= _LITTLE:
        return f"little to gain: {numbers}", False
    stay_rates = [feature.stay_rate for feature in features if not math.isnan(feature.stay_rate)]
    mean = f", features stay the same {sum(stay_rates) / len(stay_rates):.0%} of the time" if stay_rates else ""
    return f"nothing to gain: {session.mean:.1f} samples a session{mean}", False


def _smaller(ratio: float) -> str:
    """A ratio of sizes in words: 2.0 -> ``2.0x smaller``."""
    if 0.95 < ratio < 1.05:
        return "the same size"
    return f"{ratio:.1f}x smaller" if ratio > 1 else f"{1 / ratio:.1f}x larger"
