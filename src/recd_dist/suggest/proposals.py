"""Group discovery: what deduplication would gain on raw logs, on one page.

::

    source --keys--> keys, labels --sample--> whole sessions --measure--> flags --merge--> groups --estimate--> savings
           names, data       as the ETL orders them           per feature       by cost           written, counted

One call for each stage. Nothing is written but a few temporary files; memory is bounded by the sample.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from recd_dist.errors import ConfigError
from recd_dist.etl.etl_run import Options
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.inspection import Inspection, inspect
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_queries import samples_query
from recd_dist.etl.write.propose_groups import ProposedGroup, group_as_configured, propose_groups
from recd_dist.screen.phase_progress import PhaseProgress
from recd_dist.suggest.features import SampledFeature, measure_features
from recd_dist.suggest.guess_keys import guess_keys
from recd_dist.suggest.sample import BYTES, SAMPLES, SessionSample, read_sample
from recd_dist.suggest.sample_columns import SampleColumns
from recd_dist.suggest.savings import estimate_savings
from recd_dist.suggest.storage_bytes import StorageBytes
from recd_dist.suggest.suggested_config import groups_to_yaml, to_yaml
from recd_dist.suggest.suggestion import Proposal, Suggestion
from recd_dist.suggest.summaries import summarize_coverage, summarize_features, summarize_groups, summarize_sessions
from recd_dist.suggest.verdict import judge_table
from recd_dist.table.schema import SAMPLE, Schema

_NO_LABEL = "no_label"


@dataclass(frozen=True)
class _Measured:
    """The sampled sessions in the order of one table.

    Attributes:
        columns: the columns of the samples.
        features: every feature over them.
        storage: measures bytes on disk.
    """

    columns: SampleColumns
    features: tuple[SampledFeature, ...]
    storage: StorageBytes


@dataclass(frozen=True)
class _Draft:
    """A proposal before it is estimated.

    Attributes:
        title: what it is, in plain words.
        groups: its groups.
        measured: the samples in the order that its table would have.
    """

    title: str
    groups: tuple[ProposedGroup, ...]
    measured: _Measured


def suggest(
    source: Source,
    *,
    data_config: Mapping[str, Any] | None = None,
    num_samples: int = SAMPLES,
    max_bytes: int = BYTES,
    options: Options | None = None,
    progress: bool = True,
) -> Suggestion:
    """Reads a sample of a source and proposes groups.

    Args:
        source: a source with or without keys, labels and groups. What it says is kept, what it lacks is proposed.
        data_config: the data config of the source; the YAML keeps its transforms and tables.
        num_samples: about how many samples to read, in whole sessions.
        max_bytes: bytes of memory that the samples may take.
        options: the options of the ETL that would make the table; None takes its defaults. The flat table is always
            zstd-3.
        progress: whether to show a progress bar.

    Raises:
        DataError: a path, query or column does not fit, or the source has no rows.
        ConfigError: the sample would be empty, or the compression is unknown.
    """
    began, options = time.monotonic(), options or Options()
    _check(num_samples, options)
    with PhaseProgress(progress) as bar, engine.connect(options.memory_limit) as connection:
        guess = guess_keys(source, connection)
        described = _with_label(guess.source)
        inspection = inspect(described, connection)
        bar.start_reading()
        sample = read_sample(described, inspection, connection, num_samples, max_bytes, options, bar.advance)
        measure = partial(_measure, described, inspection, options.compression, bar)
        drafts = _draft_proposals(inspection, source, measure(sample), measure)
        suggested = drafts["suggested"]
        bar.start_measuring(_num_measurements(drafts.values()))
        proposals = tuple(_estimate(name, draft) for name, draft in drafts.items())
        summaries = summarize_features(suggested.measured.features, suggested.groups, suggested.measured.storage)
    session, histogram = summarize_sessions(sample)
    features, groups = suggested.measured.features, suggested.groups
    verdict, is_worth_it = judge_table(proposals, session, sample.rules.has_session, bool(groups), features)
    return Suggestion(
        name=source.name,
        path=source.path,
        date=datetime.now().strftime("%Y-%m-%d %H:%M"),
        looked=summarize_coverage(sample, time.monotonic() - began),
        choices=guess.choices,
        left_out=dict(guess.left_out),
        session=session,
        histogram=histogram,
        features=summaries,
        groups=summarize_groups(groups, suggested.measured.columns),
        proposals=proposals,
        verdict=verdict,
        is_worth_it=is_worth_it,
        is_described=source.samples is not None or source.groups is not None,
        groups_yaml=groups_to_yaml(guess.source, groups),
        yaml=to_yaml(guess.source, groups, data_config),
    )


def _check(num_samples: int, options: Options) -> None:
    options.check()
    if num_samples < 1:
        raise ConfigError(f"--sample {num_samples}: must be at least 1")


def _with_label(source: Source) -> Source:
    """A source that can be inspected: where it has no label, a column of zeros is one for the time being."""
    if source.labels:
        return source
    sql = samples_query(source).sql
    return replace(source, samples=f"select *, 0::float as {_NO_LABEL} from ({sql}\n)", labels=(_NO_LABEL,))


def _measure(
    source: Source, inspection: Inspection, compression: str, bar: PhaseProgress, sample: SessionSample
) -> _Measured:
    """Measures the features of the sampled sessions, in their order."""
    columns = SampleColumns(inspection, sample)
    windows = {name: feature.window for name, feature in source.features.items()}
    features = tuple(measure_features(columns, windows))
    labels = inspection.schema.labels
    how = (compression, source.readable_by, lambda: bar.advance(1))
    return _Measured(columns, features, StorageBytes(columns, features, labels, *how))


def _draft_proposals(
    inspection: Inspection, source: Source, measured: _Measured, measure: Callable[[SessionSample], _Measured]
) -> dict[str, _Draft]:
    """The proposals by name: the flat table first, the config's groups last if it has any.

    Samples of equal time are ordered by a hash of their groups, so that other groups may mean another order.
    """
    schema = inspection.schema
    configured = {group: tuple(f.name for f in schema.of_group(group)) for group in schema.dedup_groups}
    groups, suggested = propose_groups(measured.features, measured.columns.new_session, configured), measured
    if measured.columns.sample.has_ties:
        suggested = measure(measured.columns.sample.rearranged(_with_groups(schema, groups)))
        groups = group_as_configured(suggested.features, {group.name: group.features for group in groups})
    drafts = {
        "flat": _Draft("as it is: flat, in order of time", (), suggested),
        "sorted": _Draft("sorted by session, nothing deduplicated", (), suggested),
        "suggested": _Draft("suggested groups", groups, suggested),
    }
    if source.groups is not None:
        drafts["config"] = _Draft("the config's groups", group_as_configured(measured.features, configured), measured)
    return drafts


def _with_groups(schema: Schema, groups: Iterable[ProposedGroup]) -> Schema:
    """The schema with other groups; those with their own query keep their names, by which their keys are found."""
    group_of = {name: group.name for group in groups if group.members[0].origin is None for name in group.features}
    linked = {m.name: m.origin for group in groups for m in group.members if m.origin is not None}
    features = (replace(f, group=linked.get(f.name) or group_of.get(f.name, SAMPLE)) for f in schema.features)
    return Schema(tuple(features), schema.labels)


def _estimate(name: str, draft: _Draft) -> Proposal:
    groups = {group.name: group.features for group in draft.groups}
    measured = draft.measured
    estimate = estimate_savings(draft.groups, measured.features, measured.storage, in_time_order=name == "flat")
    return Proposal(name, draft.title, groups, estimate)


def _num_measurements(drafts: Collection[_Draft]) -> int:
    """About how many columns will be written: the length of the progress bar."""
    columns = {
        (name, group.flags.tobytes() if len(group.flags) < 1 << 16 else group.num_rows)
        for draft in drafts
        for group in draft.groups
        for name in group.features
    }
    features = next(iter(drafts)).measured.features
    return 2 * len(features) + len(columns) + sum(feature.has_windows(feature.flags) for feature in features)
