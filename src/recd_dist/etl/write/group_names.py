"""Names of suggested groups, from the config or from the names of their features."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from recd_dist.etl.write.repeating_features import RepeatingFeature


def name_groups(
    groups: Sequence[Sequence[RepeatingFeature]], configured: Mapping[str, Sequence[str]], columns: AbstractSet[str]
) -> list[str]:
    """Names groups so that no two names are equal and no column of row numbers collides with a feature.

    Args:
        groups: the features of each group.
        configured: the groups of the config, name -> features.
        columns: the names of all features.

    Returns:
        One name for each group.
    """
    names: list[str] = []
    for members in groups:
        features = [member.name for member in members]
        largest = max(members, key=lambda member: member.num_values() * member.width).name.removesuffix("_id")
        name = _config_name(set(features), configured) or members[0].origin or _common_words(features) or largest
        if name in ("sample", "samples", "row"):
            name += "_group"
        base, number = name, 2
        while name in names or f"{name}_row" in columns:
            name, number = f"{base}_{number}", number + 1
        names.append(name)
    return names


def _config_name(features: AbstractSet[str], configured: Mapping[str, Sequence[str]]) -> str | None:
    """The config's group that shares more than half of the features; None if there is no such group."""
    shares = {name: len(features & set(of)) / len(features | set(of)) for name, of in configured.items()}
    best = max(shares, key=lambda name: shares[name], default=None)
    return best if best is not None and shares[best] > 0.5 else None


def _common_words(features: Sequence[str]) -> str:
    """Words that the names of several features begin with: (``user_age``, ``user_city``) -> ``user``."""
    if len(features) < 2:
        return ""
    words = [name.split("_") for name in features]
    common = []
    for column in zip(*words, strict=False):
        if len(set(column)) > 1:
            break
        common.append(column[0])
    name = "_".join(common)
    return name if len(name) >= 3 else ""
