"""Group discovery: what deduplication would gain on raw logs, on one page.

::

    source --keys--> keys, labels --sample--> whole sessions --measure--> flags --merge--> groups --estimate--> savings
           names, data            by hash                     per feature       by cost           written, counted

One call for each stage. Nothing is written but a few temporary files; memory is bounded by the sample.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from recd_dist.errors import ConfigError
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.inspection import Inspection, inspect
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_queries import samples_query
from recd_dist.etl.write.choose_form import WORTH_A_GROUP
from recd_dist.etl.write.column_encodings import check_compression
from recd_dist.screen.phase_progress import PhaseProgress
from recd_dist.suggest.features import SampledFeature, measure_features
from recd_dist.suggest.guess_keys import guess_keys
from recd_dist.suggest.propose_groups import ProposedGroup, group_as_configured, group_each_feature, propose_groups
from recd_dist.suggest.sample import BYTES, SAMPLES, read_sample
from recd_dist.suggest.sample_columns import Flags, SampleColumns
from recd_dist.suggest.savings import estimate_savings
from recd_dist.suggest.storage_bytes import StorageBytes
from recd_dist.suggest.suggested_config import groups_to_yaml, to_yaml
from recd_dist.suggest.suggestion import Proposal, Suggestion
from recd_dist.suggest.summaries import summarize_coverage, summarize_features, summarize_groups, summarize_sessions
from recd_dist.suggest.verdict import judge_table

_NO_LABEL = "no_label"


@dataclass(frozen=True)
class _Draft:
    """A proposal before it is estimated; attributes as in :class:`Proposal`."""

    title: str
    groups: tuple[ProposedGroup, ...]


def suggest(
    source: Source,
    *,
    data_config: Mapping[str, Any] | None = None,
    num_samples: int = SAMPLES,
    max_bytes: int = BYTES,
    compression: str = "zstd",
    memory_limit: str = "1GB",
    progress: bool = True,
) -> Suggestion:
    """Reads a sample of a source and proposes groups.

    Args:
        source: a source with or without keys, labels and groups. What it says is kept, what it lacks is proposed.
        data_config: the data config of the source; the YAML keeps its transforms and tables.
        num_samples: about how many samples to read, in whole sessions.
        max_bytes: bytes of memory that the samples may take.
        compression: compression of the table, ``zstd`` or ``lz4``; the flat table is always zstd-3.
        memory_limit: memory limit of DuckDB.
        progress: whether to show a progress bar.

    Raises:
        DataError: a path, query or column does not fit, or the source has no rows.
        ConfigError: the sample would be empty, or the compression is unknown.
    """
    began = time.monotonic()
    _check(num_samples, compression)
    with PhaseProgress(progress) as bar, engine.connect(memory_limit) as connection:
        guess = guess_keys(source, connection)
        inspection = inspect(_with_label(guess.source), connection)
        bar.start_reading()
        sample = read_sample(inspection, connection, num_samples, max_bytes, bar.advance)
        columns = SampleColumns(inspection, sample)
        features = tuple(measure_features(columns))
        drafts = _draft_proposals(inspection, source, features, columns.new_session)
        suggested = drafts["suggested"].groups
        bar.start_measuring(_num_measurements(features, drafts.values()))
        storage = StorageBytes(columns, features, guess.source.labels, compression, lambda: bar.advance(1))
        proposals = tuple(_estimate(name, draft, features, storage) for name, draft in drafts.items())
        summaries = summarize_features(features, suggested, storage)
    session, histogram = summarize_sessions(sample)
    verdict, is_worth_it = judge_table(proposals, session, sample.has_session, bool(suggested), features)
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
        groups=summarize_groups(suggested, columns.new_session, sample),
        proposals=proposals,
        verdict=verdict,
        is_worth_it=is_worth_it,
        is_described=source.samples is not None or source.groups is not None,
        groups_yaml=groups_to_yaml(guess.source, suggested),
        yaml=to_yaml(guess.source, suggested, data_config),
    )


def _check(num_samples: int, compression: str) -> None:
    check_compression(compression)
    if num_samples < 1:
        raise ConfigError(f"--sample {num_samples}: must be at least 1")


def _with_label(source: Source) -> Source:
    """A source that can be inspected: where it has no label, a column of zeros is one for the time being."""
    if source.labels:
        return source
    sql = samples_query(source).sql
    return replace(source, samples=f"select *, 0::float as {_NO_LABEL} from ({sql}\n)", labels=(_NO_LABEL,))


def _draft_proposals(
    inspection: Inspection, source: Source, features: Sequence[SampledFeature], new_session: Flags
) -> dict[str, _Draft]:
    """The proposals by name: the flat table first, the config's groups last if it has any."""
    schema = inspection.schema
    configured = {group: tuple(f.name for f in schema.of_group(group)) for group in schema.dedup_groups}
    drafts = {
        "flat": _Draft("as it is: flat, in order of time", ()),
        "sorted": _Draft("sorted by session, nothing deduplicated", ()),
        "alone": _Draft("each feature by itself (groups: null)", group_each_feature(features, WORTH_A_GROUP)),
        "suggested": _Draft("suggested groups", propose_groups(features, new_session, configured)),
    }
    if source.groups is not None:
        drafts["config"] = _Draft("the config's groups", group_as_configured(features, configured))
    return drafts


def _estimate(name: str, draft: _Draft, features: Sequence[SampledFeature], storage: StorageBytes) -> Proposal:
    groups = {group.name: group.features for group in draft.groups}
    estimate = estimate_savings(draft.groups, features, storage, in_time_order=name == "flat")
    return Proposal(name, draft.title, groups, estimate)


def _num_measurements(features: Sequence[SampledFeature], drafts: Iterable[_Draft]) -> int:
    """About how many columns will be written: the length of the progress bar."""
    columns = {
        (name, group.flags.tobytes() if len(group.flags) < 1 << 16 else group.num_rows)
        for draft in drafts
        for group in draft.groups
        for name in group.features
    }
    return 2 * len(features) + len(columns) + sum(feature.windows_pay for feature in features)
