"""Group discovery: what deduplication would gain on raw logs, before anyone makes a table of them.

::

    source --keys--> keys, labels --sample--> whole sessions --look--> flags --merge--> groups --measure--> savings
           names, data            by hash                   per feature      by cost           written, counted

One call per stage. Nothing is written but a few temporary files; memory is bounded by the sample.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from recd_dist.errors import ConfigError
from recd_dist.etl.source import duckdb_sql as engine
from recd_dist.etl.source.inspection import SESSION, Inspection, inspect
from recd_dist.etl.source.source import Source
from recd_dist.etl.write import cluster
from recd_dist.etl.write.form import WORTH_A_GROUP
from recd_dist.etl.write.parquet import checked_compression
from recd_dist.screen.progress import Progress
from recd_dist.suggest.features import Columns, Look, looks
from recd_dist.suggest.guess_keys import Choice, keyed
from recd_dist.suggest.propose_groups import Proposed, alone, configured, groups
from recd_dist.suggest.sample import BYTES, SAMPLES, Sampled, sampled
from recd_dist.suggest.savings import (
    BATCH,
    BATCH_SIZES,
    Estimate,
    Storage,
    clustered_at,
    estimate,
    in_time_at,
    shifting,
)
from recd_dist.suggest.suggested_config import groups_to_yaml, to_yaml
from recd_dist.suggest.verdict import of_feature, of_table
from recd_dist.table.schema import SAMPLE
from recd_dist.table.stats.table_stats import DIM, Spread

_NO_LABEL = "no_label"


@dataclass(frozen=True)
class Looked:
    """What was looked at.

    Attributes:
        num_samples, num_samples_total: read, and of the source.
        num_sessions, num_sessions_total: the same of sessions; the total is estimated beyond 65,536.
        share: of the samples that were read, 0..1.
        num_keyless: rows without a session, left out.
        is_cut: a session was too large for memory and is cut.
        has_session, has_time: the source has these keys.
        seconds: that it took.
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
class FeatureFound:
    """One feature.

    Attributes:
        name, kind: as in the schema.
        group: the suggested one; ``sample`` is never deduplicated.
        num_per_sample: ids (or numbers) a sample carries, mean.
        stay_rate: d, the share of neighbours in a session that are the same; nan without any.
        dedup_factor: values a sample carries per value stored, if the feature is deduplicated by itself.
        shift_rate: share of its changes that only append to a list.
        window_factor: values a sample carries per value stored, with windows; nan where they do not pay.
        flat_bytes: on disk, flat and in order of time, of the whole source.
        stored_bytes: on disk as suggested.
        num_missing: missing values among the sample's rows.
        verdict: in plain words.
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
class GroupFound:
    """A suggested group.

    Attributes:
        name, features: as the YAML has them.
        num_rows: unique rows of the sample.
        stay_rate: d of its rows.
        dedup_factor: samples per unique row.
        clustered_at: batch size -> samples per unique row in batches of the table; None where the sample is smaller.
        in_time_at: the same in order of time.
    """

    name: str
    features: tuple[str, ...]
    num_rows: int
    stay_rate: float
    dedup_factor: float
    clustered_at: dict[int, float | None]
    in_time_at: dict[int, float | None]


@dataclass(frozen=True)
class Proposal:
    """One way to lay the table out, and what it comes to.

    Attributes:
        name: ``flat``, ``sorted``, ``alone``, ``suggested`` or ``config``.
        title: in plain words.
        groups: name -> features.
        estimate: storage of the whole table, everything else of a batch.
    """

    name: str
    title: str
    groups: dict[str, tuple[str, ...]]
    estimate: Estimate


@dataclass(frozen=True)
class Suggestion:
    """Everything that was found.

    Attributes:
        name, path: of the source.
        date: when, to the minute.
        looked: what was read.
        choices: keys and labels, given or guessed.
        left_out: columns that cannot be features, with the reason.
        session: samples per session.
        histogram: (least, most, sessions) per bin; bins double.
        features: in schema order.
        groups: suggested.
        proposals: ``flat`` first, the base of every ratio.
        verdict: of the table, in plain words.
        is_worth_it: ids or bytes fall by half as much again, or more.
        is_described: the source has its own query or groups, so that there is a data config already.
        groups_yaml: the ``groups`` of a data config.
        yaml: a whole data config with them.
    """

    name: str
    path: str
    date: str
    looked: Looked
    choices: tuple[Choice, ...]
    left_out: dict[str, str]
    session: Spread
    histogram: tuple[tuple[int, int, int], ...]
    features: tuple[FeatureFound, ...]
    groups: tuple[GroupFound, ...]
    proposals: tuple[Proposal, ...]
    verdict: str
    is_worth_it: bool
    is_described: bool
    groups_yaml: str
    yaml: str

    def proposal(self, name: str) -> Proposal:
        """A proposal by its name."""
        return next(p for p in self.proposals if p.name == name)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; a number that does not exist is None. docs/suggest.md explains the keys."""
        value: dict[str, Any] = _plain(asdict(self) | {"batch_samples": BATCH, "dim": DIM})
        return value


def suggest(
    source: Source,
    *,
    given: Mapping[str, Any] | None = None,
    num_samples: int = SAMPLES,
    max_bytes: int = BYTES,
    compression: str = "zstd",
    memory_limit: str = "1GB",
    progress: bool = True,
) -> Suggestion:
    """Looks at a source and proposes groups.

    Args:
        source: with or without keys, labels and groups; what it says is kept, what it lacks is proposed.
        given: the data config that the source is of; what it says beyond the source is kept in the YAML.
        num_samples: to look at, about; whole sessions.
        max_bytes: of memory for them.
        compression: of the table, ``zstd`` or ``lz4``; the flat table is always zstd-3.
        memory_limit: of DuckDB.
        progress: show a bar.

    Raises:
        DataError: a path, query or column that does not fit, or no rows.
        ConfigError: a sample of no sample, or an unknown compression.
    """
    began = time.monotonic()
    _check(num_samples, compression)
    with Progress(progress) as bar, engine.connect(memory_limit) as connection:
        known = keyed(source, connection)
        inspection = inspect(_labelled(known.source), connection)
        bar.reading()
        read = sampled(inspection, connection, num_samples, max_bytes, bar.advance)
        columns = Columns(inspection, read)
        seen = tuple(looks(columns))
        proposed = _proposed(inspection, source, seen, columns.new_session)
        bar.measuring(_num_measures(seen, proposed))
        storage = Storage(columns, seen, known.source.labels, compression, lambda: bar.advance(1))
        proposals = tuple(_proposal(name, *found, seen, storage) for name, found in proposed.items())
        suggested = proposed["suggested"][1]
        features = _features(seen, suggested, storage)
    spread, histogram = _sessions(read)
    verdict, is_worth_it = of_table({p.name: p.estimate for p in proposals}, spread, read, suggested, seen)
    return Suggestion(
        name=source.name,
        path=source.path,
        date=datetime.now().strftime("%Y-%m-%d %H:%M"),
        looked=_looked(read, time.monotonic() - began),
        choices=known.choices,
        left_out=dict(known.left_out),
        session=spread,
        histogram=histogram,
        features=features,
        groups=tuple(_group(group, columns, read) for group in suggested),
        proposals=proposals,
        verdict=verdict,
        is_worth_it=is_worth_it,
        is_described=source.samples is not None or source.groups is not None,
        groups_yaml=groups_to_yaml(known.source, suggested),
        yaml=to_yaml(known.source, suggested, given),
    )


def _check(num_samples: int, compression: str) -> None:
    checked_compression(compression)
    if num_samples < 1:
        raise ConfigError(f"--sample {num_samples}: must be at least 1")


def _labelled(source: Source) -> Source:
    """Without a label a source cannot be inspected; 0 stands for it while we look."""
    if source.labels:
        return source
    path = engine.resolve_path(source.path)
    sql = engine.samples_query(source.samples, path)
    return replace(source, samples=f"select *, 0::float as {_NO_LABEL} from ({sql}\n)", labels=(_NO_LABEL,))


def _proposed(
    found: Inspection, source: Source, seen: Sequence[Look], new_session: npt.NDArray[np.bool_]
) -> dict[str, tuple[str, tuple[Proposed, ...]]]:
    """The proposals by name: title and groups."""
    names = {g: tuple(f.name for f in found.schema.of_group(g)) for g in found.schema.dedup_groups}
    result: dict[str, tuple[str, tuple[Proposed, ...]]] = {
        "flat": ("as it is: flat, in order of time", ()),
        "sorted": ("sorted by session, nothing deduplicated", ()),
        "alone": ("each feature by itself (groups: null)", alone(seen, WORTH_A_GROUP)),
        "suggested": ("suggested groups", groups(seen, new_session, names)),
    }
    if source.groups is not None:
        result["config"] = ("the config's groups", configured(seen, names))
    return result


def _proposal(name: str, title: str, made: Sequence[Proposed], seen: Sequence[Look], storage: Storage) -> Proposal:
    groups_of = {group.name: group.features for group in made}
    return Proposal(name, title, groups_of, estimate(made, seen, storage, in_time=name == "flat"))


def _num_measures(seen: Sequence[Look], proposed: dict[str, tuple[str, tuple[Proposed, ...]]]) -> int:
    """Columns that will be written, nearly: the bar's length."""
    rows = {
        (name, group.flags.tobytes() if len(group.flags) < 1 << 16 else group.num_rows)
        for _, made in proposed.values()
        for group in made
        for name in group.features
    }
    return 2 * len(seen) + len(rows) + sum(map(shifting, seen))


def _looked(read: Sampled, seconds: float) -> Looked:
    num_sessions = int(cluster.changed_numbers(read.samples[SESSION].to_numpy()).sum())
    return Looked(
        num_samples=read.num_samples,
        num_samples_total=read.num_total,
        num_sessions=num_sessions,
        num_sessions_total=num_sessions if read.share == 1 else max(read.num_sessions_total, num_sessions),
        share=read.share,
        num_keyless=read.num_keyless,
        is_cut=read.is_cut,
        has_session=read.has_session,
        has_time=read.has_time,
        seconds=seconds,
    )


def _sessions(read: Sampled) -> tuple[Spread, tuple[tuple[int, int, int], ...]]:
    """Samples per session, and how many sessions have 1, 2-3, 4-7, ... of them."""
    begins = np.flatnonzero(cluster.changed_numbers(read.samples[SESSION].to_numpy()))
    sizes = np.diff(np.append(begins, read.num_samples))
    bins = np.bincount(np.floor(np.log2(sizes)).astype(int))
    histogram = tuple((1 << i, (2 << i) - 1, int(num)) for i, num in enumerate(bins))
    return Spread(float(sizes.mean()), float(np.median(sizes)), int(sizes.max())), histogram


def _features(seen: Iterable[Look], suggested: Iterable[Proposed], storage: Storage) -> tuple[FeatureFound, ...]:
    group_of = {name: group for group in suggested for name in group.features}
    return tuple(_feature(look, group_of.get(look.name), storage) for look in seen)


def _feature(look: Look, proposed: Proposed | None, storage: Storage) -> FeatureFound:
    num_expanded, num_stored = look.num_values(), look.num_values(look.flags)
    group = proposed.name if proposed is not None else SAMPLE
    flags = proposed.flags if proposed is not None else np.ones(len(look.flags), np.bool_)
    with_windows = shifting(look) and group != SAMPLE
    stored = storage.rows(look.name, flags)
    return FeatureFound(
        name=look.name,
        kind=str(look.feature.kind),
        group=group,
        num_per_sample=num_expanded / len(look.flags),
        stay_rate=look.stay_rate,
        dedup_factor=num_expanded / num_stored if num_stored else len(look.flags) / max(int(look.flags.sum()), 1),
        shift_rate=look.shift_rate,
        window_factor=num_expanded / max(look.num_new, 1) if with_windows else math.nan,
        flat_bytes=storage.flat(look.name),
        stored_bytes=min(stored, storage.windows(look.name, flags)) if with_windows else stored,
        num_missing=look.num_missing,
        verdict=of_feature(look, group),
    )


def _group(group: Proposed, columns: Columns, read: Sampled) -> GroupFound:
    flags: npt.NDArray[np.bool_] = group.flags
    num_pairs = int((~columns.new_session).sum())
    changes = int((flags & ~columns.new_session).sum())
    sizes = [size for size in BATCH_SIZES if size <= read.num_total]
    return GroupFound(
        name=group.name,
        features=group.features,
        num_rows=group.num_rows,
        stay_rate=1 - changes / num_pairs if num_pairs else math.nan,
        dedup_factor=group.factor,
        clustered_at={size: clustered_at(flags, size) for size in sizes},
        in_time_at={size: in_time_at(flags, read.order, size, read.share) for size in sizes},
    )


def _plain(value: Any) -> Any:
    """JSON has no nan and only strings for keys."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
