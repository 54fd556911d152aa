"""``recd etl --verify``: is the table the source? Counts and checksums of every column.

::

    source   7 samples   sum of hashes of `history`   sum of hashes of whole samples
    table    6 samples   "                            "                                 as a user's SQL sees it
    left out 1 sample    "                            "                                 noted by the ETL, by reason

For every column, source = table + left out. A value that moved to another row shows only in the hashes of whole
samples.

Checksums do not depend on order. So both sides are read as streams, and nothing is sorted or kept: DuckDB joins one
part of the table at a time within the memory limit, and a group with its own query takes 40 bytes for each of its rows.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt

from recd_dist.errors import DataError, nearest
from recd_dist.etl.checksum.sample_sums import ROW, Sums, compared_keys
from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.place.new_manifests import DROPPED_CHECKSUMS
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.raw.duckdb_memory import retry_with_fewer_threads
from recd_dist.etl.source.budget import Budget
from recd_dist.etl.source.inspection import TEST, Inspection, inspect
from recd_dist.etl.source.source import Source
from recd_dist.etl.verify.differing_sample import describe_difference
from recd_dist.etl.verify.sides import ALL, Comparison, SourceSide, TableSide
from recd_dist.etl.verify.verification import ComparedColumn, Verification
from recd_dist.screen.phase_progress import PhaseProgress
from recd_dist.table.flat import string_literal
from recd_dist.table.location import Location
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import SESSION_ID, Feature, Kind, Schema

_COUNTED_ONLY = ("session_cut",)  # reasons of Manifest.dropped for which nothing was left out, like those in _kept

Tables = Mapping[str, tuple[Location, Manifest]]
"""Per split the directory of its table and its manifest."""


def verify(source: Source, table_root: Location, *, memory_limit: str = "1GB", progress: bool = True) -> Verification:
    """Compares the tables of a source with the source.

    Args:
        source: the source that the tables were made from; for a table that was appended to, one of everything in it.
        table_root: directory of the tables, one per split.
        memory_limit: memory that the whole run may take; DuckDB spills beside the tables.
        progress: show a progress bar.

    Raises:
        DataError: no table is there, it cannot be read, or the source has other columns now.
        ConfigError: the memory limit is no size, or too small.
    """
    budget = Budget.of(memory_limit)
    tables = {split: (table_root / split, Manifest.load(table_root / split)) for split in source.splits}
    manifest = next(iter(tables.values()))[1]
    source = source.like_table(manifest.sessions, source.readable_by)  # verified are values, whatever their encodings
    dropped = _sum_dropped(manifest)
    parent = table_root.parent
    place = parent if isinstance(parent, Path) and os.access(parent, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix=".verify-", dir=place) as work,
        engine.connect(f"{budget.engine_bytes + budget.shard_bytes}B", spill=Path(work)) as connection,
        PhaseProgress(progress) as bars,
    ):
        connection.execute("set preserve_insertion_order = false")
        inspection = inspect(source, connection)
        source_columns = engine.describe_query(connection, inspection.samples, "samples query")
        comparison = _match_columns(inspection, manifest.schema, compared_keys(source))
        lookups = {
            group: Lookup.of_query(group, connection, inspection.groups[group], Path(work, f"{group}.rows"))
            for group in comparison.own
        }
        splits, sessions = _splits(source, tables, comparison, TEST in source_columns, dropped, connection)
        ours = TableSide(connection, tables, comparison, splits)
        theirs = SourceSide(connection, inspection, comparison, lookups, splits, sessions)
        num_in_table = sum(m.num_samples for _, m in tables.values())
        totals = {"source": num_in_table + dropped.num_samples, "table": num_in_table}
        begin_pass = partial(_begin_pass, bars, totals)

        def compare() -> Verification:
            in_source, in_table = theirs.sum_samples(begin_pass("source")), ours.sum_samples(begin_pass("table"))
            skipped = _subtract_dropped(in_source[splits[0]], dropped, comparison)
            result = _result(in_source, in_table, dropped.num_samples, skipped)
            if result.equal or dropped.num_samples:
                return result
            example = describe_difference(theirs, ours, _differing_bucket(in_source, in_table), begin_pass)
            return _result(in_source, in_table, 0, skipped, example)

        return retry_with_fewer_threads(connection, compare)


def _sum_dropped(manifest: Manifest) -> Sums:
    """Sums the checksums of the samples that policies left out, as the ETL noted them.

    Raises:
        DataError: the manifest has no checksums of samples that were left out.
    """
    noted: Mapping[str, Mapping[str, int]] = manifest.source.get(DROPPED_CHECKSUMS, {})
    total, num_reasons = Sums(), 0
    columns: dict[str, list[int]] = {}
    for reason, count in manifest.dropped.items():
        if not count or reason in _COUNTED_ONLY or reason.endswith("_kept"):
            continue
        if reason not in noted:
            raise DataError(
                f"the table leaves out {count:,} samples ({reason}) and has no checksums of them, so it cannot be "
                "compared; make it again with `recd etl`"
            )
        num_reasons += 1
        total.num_samples += count
        for name, value in noted[reason].items():
            columns.setdefault(name, []).append(value)
    for name, values in columns.items():
        if len(values) == num_reasons:  # a column that was noted for some of the reasons cannot be compared
            total.add_sum(name, sum(values))
    return total


def _match_columns(inspection: Inspection, schema: Schema, keys: Mapping[str, str]) -> Comparison:
    """Makes sure that source and table have the same columns.

    Args:
        inspection: the inspected source.
        schema: schema of the table.
        keys: key columns that both sides have, and their names in the source's normalised query.

    Raises:
        DataError: the message names every column that only one side has, and every feature that is ids on one side and
            numbers on the other.
    """
    in_source = [f.name for f in inspection.schema.features]
    mistakes = [
        f"feature '{f.name}' is in the table, not in the source{nearest(f.name, in_source)}"
        for f in schema.features
        if f.name not in in_source
    ]
    for f in inspection.schema.features:
        if f.name not in schema:
            mistakes.append(f"feature '{f.name}' is in the source, not in the table")
        elif (f.kind is Kind.dense) != (schema[f.name].kind is Kind.dense) or f.weights != schema[f.name].weights:
            mistakes.append(f"feature '{f.name}' is {f.kind} in the source and {schema[f.name].kind} in the table")
    if inspection.schema.labels != schema.labels:
        mistakes.append(
            f"labels are {list(inspection.schema.labels)} in the source and {list(schema.labels)} in the table"
        )
    if mistakes:
        raise DataError(
            "the table was made from another description of the source: "
            + "\n  ".join(mistakes)
            + "\n  verify with the options that made it, or make it again with `recd etl`"
        )
    own: dict[str, tuple[Feature, ...]] = {}
    for feature in inspection.schema.features:
        if feature.group in inspection.groups:
            own[feature.group] = (*own.get(feature.group, ()), schema[feature.name])
    return Comparison(schema, keys, own)


def _splits(
    source: Source,
    tables: Tables,
    comparison: Comparison,
    has_test: bool,
    dropped: Sums,
    connection: duckdb.DuckDBPyConnection,
) -> tuple[tuple[str, ...], npt.NDArray[np.int64] | None]:
    """The splits that can be told apart in the source.

    Args:
        source: the source.
        tables: per split its directory and manifest.
        comparison: what is compared.
        has_test: a column of the samples query says which samples are of the test split.
        dropped: sums of the samples that were left out, which no split owns.
        connection: an open DuckDB.

    Returns:
        Names of the splits, or :data:`ALL` alone; and the sessions of the test split, int64 in ascending order, where
        only the table tells them.
    """
    if dropped.num_samples or len(tables) == 1:
        return (ALL,) if dropped.num_samples else source.splits, None
    if has_test:
        return source.splits, None
    if SESSION_ID not in comparison.keys:
        return (ALL,), None
    table, manifest = tables[source.splits[1]]
    files = ", ".join(string_literal(str(table / part.samples.path)) for part in manifest.parts)
    query = f"select distinct {SESSION_ID} from read_parquet([{files}]) order by 1"
    return source.splits, np.asarray(connection.execute(query).fetchnumpy()[SESSION_ID], np.int64)


def _subtract_dropped(in_source: Sums, dropped: Sums, comparison: Comparison) -> tuple[str, ...]:
    """Subtracts the samples that were left out from the source's sums.

    Args:
        in_source: sums of the source; columns that were not noted of the samples left out are removed.
        dropped: sums of the samples that were left out.
        comparison: what is compared.

    Returns:
        A text that names the removed columns, if there are some.
    """
    if not dropped.num_samples:
        return ()
    in_source.num_samples -= dropped.num_samples
    unknown = [name for name in (*comparison.columns, ROW) if name not in dropped.columns]
    for name in unknown:
        in_source.columns.pop(name)
    for name in in_source.columns:
        in_source.add_sum(name, -dropped.columns[name])
    return (f"{', '.join(unknown)}: not noted of the samples left out",) if unknown else ()


def _result(
    in_source: Mapping[str, Sums],
    in_table: Mapping[str, Sums],
    num_dropped: int,
    skipped: tuple[str, ...],
    example: str = "",
) -> Verification:
    counts = {split: (sums.num_samples, in_table[split].num_samples) for split, sums in in_source.items()}
    columns = [
        ComparedColumn(split, name, value, in_table[split].columns.get(name, 0))
        for split, sums in in_source.items()
        for name, value in sums.columns.items()
    ]
    columns.sort(key=lambda c: c.column == ROW)
    return Verification(counts, tuple(columns), num_dropped, skipped, example)


def _differing_bucket(in_source: Mapping[str, Sums], in_table: Mapping[str, Sums]) -> int:
    """The first bucket of sessions whose samples differ; -1 where samples only lie in different splits."""
    total = np.zeros_like(next(iter(in_source.values())).buckets)
    for split, sums in in_source.items():
        total += sums.buckets - in_table[split].buckets
    return int(np.argmax(total != 0)) if total.any() else -1


def _begin_pass(bars: PhaseProgress, num_samples: Mapping[str, int], side: str) -> Callable[[int], None]:
    """Begins a pass over one side; returns what is called with numbers of samples."""
    bars.start_comparing(side, num_samples[side])
    return bars.advance
