"""A written part, with what was measured of its samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recd_dist.etl.write.distinct_ids import DistinctIds
from recd_dist.etl.write.feature_sums import FeatureSums
from recd_dist.table.manifest import Part


@dataclass(frozen=True)
class PartResult:
    """A written part, with what was measured of its samples.

    Attributes:
        part: the part's files and numbers, as the manifest lists them.
        features: the sums of each feature and label over the samples.
        ids: the distinct ids of each embedding table.
    """

    part: Part
    features: dict[str, FeatureSums]
    ids: dict[str, DistinctIds]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; ``PartResult.from_json`` is its inverse."""
        return {
            "parts": [self.part.to_json()],
            "features": {name: sums.to_json() for name, sums in self.features.items()},
            "ids": {table: ids.to_json() for table, ids in self.ids.items()},
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "PartResult":
        """The result that ``to_json`` turned into JSON."""
        return PartResult(
            part=Part.from_json(value["parts"][0]),
            features={name: FeatureSums.from_json(sums) for name, sums in value["features"].items()},
            ids={table: DistinctIds.from_json(ids) for table, ids in value["ids"].items()},
        )
