"""``recd etl --dry-run``: what a source would become, from its columns and three rows."""

from collections.abc import Iterable
from typing import Any

import duckdb
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.budget import Budget
from recd_dist.etl.source.examine_rows import examine_rows
from recd_dist.etl.source.input_files import InputFiles, find_input_files
from recd_dist.etl.source.inspection import (
    ORDER_KEY,
    REQUEST,
    SAMPLE_KEY,
    SESSION,
    TEST,
    TIMESTAMP,
    Inspection,
    inspect,
)
from recd_dist.etl.source.source import Source
from recd_dist.table.schema import SAMPLE

_Rows = dict[str, list[Any]]  # values by column
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
    """Shows the schema and the first rows of a source; nothing is written.

    Args:
        source: describes the raw logs.
        memory_limit: the memory limit of the ETL, such as ``1GB``.

    Returns:
        Text and a table, ready for a rich console.

    Raises:
        ConfigError, DataError: the mistakes that the ETL would find in the description, the columns or these rows.
    """
    files = find_input_files(source)
    with engine.connect(f"{Budget.of(memory_limit).engine_bytes}B") as connection:
        inspection = inspect(source, connection)
        found = (*files.announcements, *inspection.announcements, *examine_rows(source, inspection, connection))
        raw = {name: _first_rows(connection, query.sql, name) for name, query in inspection.queries.items()}
        samples = _first_rows(connection, inspection.samples, "samples query")
        groups = {
            name: _first_rows(connection, sql, f"query of group '{name}'") for name, sql in inspection.groups.items()
        }
    heading = [Text(line) for line in _heading_lines(source, files)]
    shown = _feature_table(inspection, {SAMPLE: samples} | groups, raw)
    keys = [Text(line) for line in _key_lines(source, samples, raw[SAMPLE])]
    return Group(*heading, shown, *keys, *(Text(f"  note        {one}") for one in found))


def _first_rows(connection: duckdb.DuckDBPyConnection, sql: str, where: str) -> _Rows:
    """The first rows of a query, by column."""
    with engine.report_query_errors(where):
        return dict(connection.sql(f"select * from ({sql}) limit {_NUM_ROWS}").to_arrow_table().to_pydict())


def _heading_lines(source: Source, files: InputFiles) -> Iterable[str]:
    num_bytes = sum(size for _, size, _ in files.files)
    rows = f", {files.num_rows:,} rows" if files.num_rows is not None else ""
    memory = f"about {files.memory_bytes / 1e6:,.0f} MB in memory"
    yield f"{source.name}: {len(files.files)} files, {num_bytes / 1e6:,.1f} MB{rows}; {memory}"
    yield f"  session     {source.session_words}"
    yield f"  labels      {', '.join(source.labels)}"
    split = f"the last {source.split:g} of the sessions" if isinstance(source.split, float) else source.split
    yield f"  split       {split or 'none'}"
    policy = source.policy
    chosen = {name: getattr(policy, name) for name in ("duplicates", "late", "time", "unlabelled")}
    yield f"  policies    {', '.join(f'{name} {what}' for name, what in chosen.items())}"
    if source.sample < 1:
        yield f"  sample      {source.sample:g} of the sessions"
    if source.partition:
        yield f"  partition   {source.partition}"


def _feature_table(inspection: Inspection, stored: dict[str, _Rows], raw: dict[str, _Rows]) -> Table:
    """One line for each feature, with its first values, and with the texts that are hashed.

    Args:
        inspection: the inspected source.
        stored: the first rows of each normalised query, by group; of the samples under ``sample``.
        raw: the same rows as the source has them.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("group", "feature", "kind", "table", "first rows"):
        table.add_column(name, overflow="fold", no_wrap=name != "first rows")
    before = ""
    for feature in inspection.schema.features:
        query = feature.group if feature.group in inspection.groups else SAMPLE
        rows = _with_texts(stored[query][feature.name], raw[query][feature.name])
        group = "found by measuring" if inspection.automatic and feature.group == SAMPLE else feature.group
        values = Text("  ".join(rows))  # brackets of lists are no markup
        table.add_row("" if group == before else group, feature.name, feature.kind, feature.table or "", values)
        before = group
    return table


def _key_lines(source: Source, samples: _Rows, raw: _Rows) -> Iterable[str]:
    """One line for each key, with its first values, and with the texts that are hashed."""
    session = source.session_column if len(source.session_columns) == 1 else None
    named = {SESSION: session, REQUEST: source.keys.get("request"), SAMPLE_KEY: source.keys.get("sample")}
    for column, name in _KEYS.items():
        if column in samples:
            texts = raw.get(named.get(column) or "", samples[column])
            yield f"  {name:<11} {'  '.join(_with_texts(samples[column], texts))}"


def _with_texts(stored: list[Any], raw: list[Any]) -> list[str]:
    """The values of a column in few letters; a text that is hashed stands before its hash: ``red = 5102..``."""
    return [
        f"{_short_text(text)} = {_short_text(value)}" if _is_text(text) else _short_text(value)
        for value, text in zip(stored, raw, strict=True)
    ]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and any(isinstance(item, str) for item in value))


def _short_text(value: Any) -> str:
    """A value in few letters: a list is shown by its beginning and its length."""
    if isinstance(value, list):
        shown = " ".join(map(str, value[:4]))
        return f"[{shown}{' ..' if len(value) > 4 else ''}]({len(value)})"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 2] + ".."
