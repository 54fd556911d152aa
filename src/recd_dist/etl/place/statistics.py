"""What was measured of each part, beside the manifest: parts are added, replaced and merged without reading the rest.

::

    TABLE/statistics.parquet    one row per part and feature: the sums that the manifest's statistics are made of
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
"""Per feature what was measured on one part."""


def save_statistics(path: Path, parts: Mapping[int, PartStatistics]) -> None:
    """Writes the statistics of a table's parts, by number.

    Args:
        path: of the file.
        parts: number of a part -> feature -> sums.
    """
    rows = [
        {"part": number, "feature": feature, **asdict(measured)}
        for number, features in sorted(parts.items())
        for feature, measured in features.items()
    ]
    schema = pa.schema(
        [("part", pa.int64()), ("feature", pa.string())]
        + [(f.name, pa.float64() if f.type in (float, "float") else pa.int64()) for f in fields(FeatureSums)]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def load_statistics(path: Path) -> dict[int, PartStatistics]:
    """What ``save_statistics`` wrote.

    Raises:
        DataError: no such file, or not one.
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


def summed(parts: Mapping[int, PartStatistics]) -> PartStatistics:
    """The sums over some parts."""
    total: PartStatistics = {}
    for features in parts.values():
        for feature, measured in features.items():
            total.setdefault(feature, FeatureSums()).merge(measured)
    return total
