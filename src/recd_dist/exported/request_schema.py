"""What a request must hold: the features of the user's row, and those of its candidates.

::

    user          history [7, 8, 9]   region 3          features that repeat: one row for the whole request
    candidates    item    [4, 5, 6]   price [.1 .2 .3]  features of the samples: one value for each candidate
"""

from collections.abc import Sequence
from dataclasses import dataclass

from recd_dist.table.schema import SAMPLE, Feature, Kind, Schema


class RequestError(ValueError):
    """A request that cannot be scored.

    Args:
        feature: the feature that is wrong; None where it is none in particular.
        message: what is wrong, and what helps.
    """

    def __init__(self, feature: str | None, message: str) -> None:
        super().__init__(message if feature is None else f"feature '{feature}': {message}")
        self.feature = feature


@dataclass(frozen=True)
class RequestFeature:
    """A feature as a request gives it.

    Attributes:
        name: its name.
        kind: one id, a list of ids, or one number.
        weights: the name under which the weights of its ids are given; None where they have none.
        takes_text: whether an id may be a text, which is then hashed as the ETL hashes it.
    """

    name: str
    kind: Kind
    weights: str | None
    takes_text: bool


@dataclass(frozen=True)
class RequestSchema:
    """The features of a request.

    Attributes:
        user: those of the user's row.
        candidate: those of each candidate.
    """

    user: tuple[RequestFeature, ...]
    candidate: tuple[RequestFeature, ...]

    @staticmethod
    def of(stored: Schema, hashes_text: Sequence[str]) -> "RequestSchema":
        """The features that a request gives for a model.

        Args:
            stored: the features of the table that the model reads, in the groups of the table.
            hashes_text: the features of which any 63-bit id is good, so that texts are.
        """

        def given(features: Sequence[Feature]) -> tuple[RequestFeature, ...]:
            return tuple(RequestFeature(f.name, f.kind, f.weights, f.name in hashes_text) for f in features)

        return RequestSchema(
            given([f for f in stored.features if f.home != SAMPLE]),
            given([f for f in stored.features if f.home == SAMPLE]),
        )
