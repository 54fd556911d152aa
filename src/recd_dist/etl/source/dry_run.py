"""``recd etl --dry-run``: what a source would become, from its columns and a few rows; nothing is written."""

from collections.abc import Iterable
from typing import Any

import duckdb
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from recd_dist.errors import DataError
from recd_dist.etl.budget import Budget
from recd_dist.etl.source import duckdb_sql as engine
from recd_dist.etl.source.input_files import Inputs, inputs
from recd_dist.etl.source.inspection import (
    ORDER_KEY,
    REQUEST,
    SAMPLE_KEY,
    SESSION,
    TEST,
    TIMESTAMP,
    Inspection,
    inspected,
)
from recd_dist.etl.source.source import Source
from recd_dist.table.schema import SAMPLE

_NUM_ROWS = 3
_WIDTH = 60
_KEYS = {
    SESSION: "session",
    REQUEST: "request",
    TIMESTAMP: "timestamp",
    SAMPLE_KEY: "sample key",
    ORDER_KEY: "order",
    TEST: "test split",
}


def dry_run(source: Source, memory_limit: str = "1GB") -> Group:
    """Schema and first rows of a source, as something rich prints.

    Args:
        source: to look at.
        memory_limit: of DuckDB.

    Raises:
        ConfigError, DataError: what the ETL itself would find in the description, the files' columns or these rows.
    """
    found = inputs(source)
    with engine.connect(f"{Budget.of(memory_limit).engine_bytes}B") as connection:
        inspection = inspected(source, connection)
        samples = _rows(connection, inspection.samples, "samples query")
        groups = {name: _rows(connection, sql, f"query of group '{name}'") for name, sql in inspection.groups.items()}
    parts: list[Any] = [Text(line) for line in _heading(source, found)]
    parts += [_features(inspection, samples, groups), *(Text(line) for line in _keys(samples))]
    return Group(*parts)


def _rows(connection: duckdb.DuckDBPyConnection, sql: str, where: str) -> dict[str, list[Any]]:
    """The first rows of a query, by column."""
    try:
        return dict(connection.sql(f"select * from ({sql}) limit {_NUM_ROWS}").to_arrow_table().to_pydict())
    except duckdb.Error as error:
        raise DataError(f"{where}: {engine.short(error)}") from error


def _heading(source: Source, found: Inputs) -> Iterable[str]:
    size = sum(size for _, size, _ in found.files)
    rows = f", {found.num_rows:,} rows" if found.num_rows is not None else ""
    memory = f"about {found.memory_bytes / 1e6:,.0f} MB in memory"
    yield f"{source.name}: {len(found.files)} files, {size / 1e6:,.1f} MB{rows}; {memory}"
    yield f"  session     {source.session_words}"
    yield f"  labels      {', '.join(source.labels)}"
    split = f"the last {source.split:g} of the sessions" if isinstance(source.split, float) else source.split
    yield f"  split       {split or 'none'}"
    policy = source.policy
    yield f"  policies    duplicates {policy.duplicates}, late {policy.late}, time {policy.time}"
    if source.sample < 1:
        yield f"  sample      {source.sample:g} of the sessions"
    if source.partition:
        yield f"  partition   {source.partition}"


def _features(inspection: Inspection, samples: dict[str, list[Any]], groups: dict[str, dict[str, list[Any]]]) -> Table:
    """One line a feature, with its first values."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("group", "feature", "kind", "table", "first rows"):
        table.add_column(name, overflow="fold", no_wrap=name != "first rows")
    before = ""
    for feature in inspection.schema.features:
        rows = groups.get(feature.group, samples)
        group = "found by measuring" if inspection.automatic and feature.group == SAMPLE else feature.group
        values = "  ".join(_short(value) for value in rows[feature.name])
        table.add_row("" if group == before else group, feature.name, feature.kind, feature.table or "", values)
        before = group
    return table


def _keys(samples: dict[str, list[Any]]) -> Iterable[str]:
    """The keys of the first rows."""
    for column, name in _KEYS.items():
        if column in samples:
            yield f"  {name:<11} {'  '.join(_short(value) for value in samples[column])}"


def _short(value: Any) -> str:
    """A value in few letters: of a list its length and beginning."""
    if isinstance(value, list):
        shown = " ".join(map(str, value[:4]))
        return f"[{shown}{' ..' if len(value) > 4 else ''}]({len(value)})"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 2] + ".."
