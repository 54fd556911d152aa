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
        num_samples, num_sessions, num_requests: counts of the part.
        group_rows: per group the number of its stored rows.
        features: per feature its sums over the samples.
        ids: per embedding table its distinct ids.
        part: the part's files, as the manifest lists them.
    """

    num_samples: int
    num_sessions: int
    num_requests: int
    group_rows: dict[str, int]
    features: dict[str, FeatureSums]
    ids: dict[str, DistinctIds]
    part: Part

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; ``PartResult.from_json`` is its inverse."""
        return {
            "num_samples": self.num_samples,
            "num_sessions": self.num_sessions,
            "num_requests": self.num_requests,
            "group_rows": self.group_rows,
            "features": {name: sums.to_json() for name, sums in self.features.items()},
            "ids": {table: ids.to_json() for table, ids in self.ids.items()},
            "parts": [self.part.to_json()],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "PartResult":
        """The result that ``to_json`` turned into JSON."""
        return PartResult(
            num_samples=value["num_samples"],
            num_sessions=value["num_sessions"],
            num_requests=value["num_requests"],
            group_rows=dict(value["group_rows"]),
            features={name: FeatureSums.from_json(sums) for name, sums in value["features"].items()},
            ids={table: DistinctIds.from_json(ids) for table, ids in value["ids"].items()},
            part=Part.from_json(value["parts"][0]),
        )
