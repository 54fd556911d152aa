"""``statistics.parquet``: what was measured of each part, one row per part and feature or label.

The manifest's statistics are made of these sums. Since each part has its own, parts are added, replaced and merged
without reading the others.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.errors import DataError
from recd_dist.etl.write.feature_sums import FeatureSums

STATISTICS = "statistics.parquet"

PartStatistics = dict[str, FeatureSums]
"""Per feature and label its sums over one part; tables of older releases have none of labels."""


def save_statistics(path: Path, parts: Mapping[int, PartStatistics]) -> None:
    """Writes the statistics of a table's parts.

    Args:
        path: the file.
        parts: the statistics of each part, by its number.
    """
    rows = [
        {"part": number, "feature": feature, **asdict(sums)}
        for number, features in sorted(parts.items())
        for feature, sums in features.items()
    ]
    schema = pa.schema(
        [("part", pa.int64()), ("feature", pa.string())]
        + [(f.name, pa.float64() if f.type in (float, "float") else pa.int64()) for f in fields(FeatureSums)]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def load_statistics(path: Path) -> dict[int, PartStatistics]:
    """Reads the statistics that ``save_statistics`` wrote.

    Args:
        path: the file.

    Raises:
        DataError: there is no such file, or it is not Parquet.
    """
    try:
        with path.open("rb") as file:
            rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}); make the table again with `recd etl`") from error
    parts: dict[int, PartStatistics] = {}
    for row in rows:
        part, feature = row.pop("part"), row.pop("feature")
        parts.setdefault(part, {})[feature] = FeatureSums(**row)
    return parts


def sum_parts(parts: Mapping[int, PartStatistics]) -> PartStatistics:
    """Adds up the statistics of some parts, by number; they stay as they are."""
    total: PartStatistics = {}
    for features in parts.values():
        for feature, sums in features.items():
            total.setdefault(feature, FeatureSums()).merge(sums)
    return total
