"""Names of the transforms by which one feature comes from others, so that the table need not hold it.

In a data config such a transform stands first: ``both: {transforms: [{cross: {of: [country, device], n: 1000}}]}``. The
ETL passes these features over; the reader makes them from stored rows.
"""

from collections.abc import Mapping
from typing import Any

MAKERS = ("copy", "cross", "one_hot")


def maker_of(options: Any) -> str | None:
    """The transform that makes a feature; None for one that the table holds.

    Args:
        options: the options of the feature in a data config, of any form: what is wrong with them is said elsewhere.
    """
    steps = options.get("transforms") if isinstance(options, Mapping) else None
    first = steps[0] if isinstance(steps, list | tuple) and steps else None
    name = next(iter(first), None) if isinstance(first, Mapping) else first
    return name if name in MAKERS else None


def made_names(features: Any) -> set[str]:
    """The names of a data config's features that are made.

    Args:
        features: ``data.features``, of any form.
    """
    return (
        {str(name) for name, options in features.items() if maker_of(options)}
        if isinstance(features, Mapping)
        else set()
    )
