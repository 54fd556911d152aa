"""What group discovery returns: keys, features, groups, proposals and a verdict."""

from dataclasses import asdict, dataclass
from typing import Any

from recd_dist.suggest.batch_factors import BATCH
from recd_dist.suggest.guess_keys import Choice
from recd_dist.suggest.savings import Estimate
from recd_dist.table.stats.batch_cost import DIM
from recd_dist.table.stats.json_values import to_json_value
from recd_dist.table.stats.row_repeats import Spread


@dataclass(frozen=True)
class Coverage:
    """How much of the source was read.

    Attributes:
        num_samples, num_samples_total: number of samples that were read, and of all samples.
        num_sessions, num_sessions_total: number of sessions that were read, and of all sessions; beyond 65,536 sessions
            the total is an estimate.
        share: share of the samples that were read, from 0 to 1.
        num_keyless: number of rows without a session, which are left out.
        is_cut: whether a session was too large for memory and is cut.
        has_session, has_time: whether the source has these keys.
        seconds: how long it took, in seconds.
    """

    num_samples: int
    num_samples_total: int
    num_sessions: int
    num_sessions_total: int
    share: float
    num_keyless: int
    is_cut: bool
    has_session: bool
    has_time: bool
    seconds: float


@dataclass(frozen=True)
class FeatureSummary:
    """One feature.

    Attributes:
        name, kind: name and kind of the feature, as in the schema.
        group: the suggested group; ``sample`` is never deduplicated.
        num_per_sample: mean number of ids (or of dense numbers) that a sample carries.
        stay_rate: d, the share of neighbours in a session that have the same value; nan without neighbours.
        dedup_factor: values that samples carry per value stored, if the feature is deduplicated by itself.
        shift_rate: share of its changes that only append to a list.
        window_factor: values that samples carry per value stored with windows; nan where windows do not pay.
        flat_bytes: bytes on disk of the whole source, flat and in order of time.
        stored_bytes: bytes on disk of the whole source as suggested.
        num_missing: number of missing values in the sample.
        verdict: what to do with the feature, in plain words.
    """

    name: str
    kind: str
    group: str
    num_per_sample: float
    stay_rate: float
    dedup_factor: float
    shift_rate: float
    window_factor: float
    flat_bytes: float
    stored_bytes: float
    num_missing: int
    verdict: str


@dataclass(frozen=True)
class GroupSummary:
    """A suggested group.

    Attributes:
        name, features: name of the group and names of its features, as in the YAML.
        num_rows: number of unique rows in the sample, of all splits.
        stay_rate: d of its rows; nan without neighbours.
        dedup_factor: samples per unique row of the train split.
        factor_error: how far that may be off where only some sessions were read, as a share of it: twice the standard
            error. 0 where all were.
        clustered_at: batch size -> samples per unique row in batches of the table; None where the sample is smaller.
        in_time_at: batch size -> samples per unique row in batches in order of time; None where the sample is smaller.
    """

    name: str
    features: tuple[str, ...]
    num_rows: int
    stay_rate: float
    dedup_factor: float
    factor_error: float
    clustered_at: dict[int, float | None]
    in_time_at: dict[int, float | None]


@dataclass(frozen=True)
class Proposal:
    """One way to lay out the table, and what it comes to.

    Attributes:
        name: ``flat``, ``sorted``, ``suggested`` or ``config``.
        title: what it is, in plain words.
        groups: name of a group -> names of its features.
        estimate: storage of the whole table, everything else of a batch.
    """

    name: str
    title: str
    groups: dict[str, tuple[str, ...]]
    estimate: Estimate


@dataclass(frozen=True)
class Suggestion:
    """Everything that group discovery says about a source.

    Attributes:
        name, path: name and path of the source.
        date: when it was made, to the minute.
        looked: how much of the source was read.
        choices: keys and labels that were given or guessed.
        left_out: column that cannot be a feature -> the reason.
        session: samples per session.
        histogram: (least samples, most samples, number of sessions) for each bin; bins double in width.
        features: features in schema order.
        groups: the suggested groups.
        proposals: the proposals; ``flat`` comes first and is the base of every ratio.
        verdict: whether the table is worth making, in plain words.
        is_worth_it: whether the flat table has at least 1.5 times as many ids, or bytes on disk.
        is_described: whether the source has its own query or groups, so that there is a data config already.
        groups_yaml: the ``groups`` of a data config.
        yaml: a whole data config with these groups.
    """

    name: str
    path: str
    date: str
    looked: Coverage
    choices: tuple[Choice, ...]
    left_out: dict[str, str]
    session: Spread
    histogram: tuple[tuple[int, int, int], ...]
    features: tuple[FeatureSummary, ...]
    groups: tuple[GroupSummary, ...]
    proposals: tuple[Proposal, ...]
    verdict: str
    is_worth_it: bool
    is_described: bool
    groups_yaml: str
    yaml: str

    def proposal(self, name: str) -> Proposal:
        """The proposal of that name."""
        return next(p for p in self.proposals if p.name == name)

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold; a number that does not exist is None. docs/suggest.md explains the keys."""
        value: dict[str, Any] = to_json_value(asdict(self) | {"batch_samples": BATCH, "dim": DIM})
        return value
