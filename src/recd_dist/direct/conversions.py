"""From the ETL's SQL for each column to what the direct reader does with it."""

from collections.abc import Mapping

from recd_dist.etl.raw.duckdb_sql import TEXT_ID
from recd_dist.etl.source.column_sql import is_text
from recd_dist.etl.source.inspection import REQUEST, SESSION, TIMESTAMP, Inspection
from recd_dist.etl.source.source import Source
from recd_dist.reader.direct_table import Conversion
from recd_dist.table.flat import identifier
from recd_dist.table.schema import REQUEST_ID, SESSION_ID
from recd_dist.table.schema import TIMESTAMP as TIMESTAMP_KEY

_KEYS = {SESSION: SESSION_ID, REQUEST: REQUEST_ID, TIMESTAMP: TIMESTAMP_KEY}
_CASTS = {"::bigint": "int64", "::float": "float32", "::bigint[]": "list<int64>", "::float[]": "list<float32>"}


def conversions_of(source: Source, inspection: Inspection, types: Mapping[str, str]) -> dict[str, Conversion]:
    """How each column of the samples is made.

    Args:
        source: names the raw columns of keys.
        inspection: has the SQL of each column.
        types: the DuckDB type of each raw column.

    Returns:
        Conversions of keys (``session_id``, ``request_id``, ``timestamp``), labels, features and weights.
    """
    keys = {SESSION: source.session_columns}
    keys |= {
        alias: (source.keys[key],)
        for key, alias in (("request", REQUEST), ("timestamp", TIMESTAMP))
        if key in source.keys
    }
    found = {}
    for selected in inspection.select:
        sql, _, alias = selected.rpartition(" as ")
        if alias.startswith('"'):
            alias = alias[1:-1].replace('""', '"')
        raw = keys.get(alias, (alias,))
        if alias in _KEYS or not alias.startswith("__"):
            found[_KEYS.get(alias, alias)] = _conversion(sql, raw, types)
    return found


def _conversion(sql: str, raw: tuple[str, ...], types: Mapping[str, str]) -> Conversion:
    """The cheapest way that comes to what the SQL says."""
    if len(raw) > 1:
        return Conversion(raw, sql)
    name, kind = identifier(raw[0]), types[raw[0]]
    if sql == name:
        return Conversion(raw)
    if is_text(kind.removesuffix("[]")):
        per_text = TEXT_ID.replace("{}", "x::varchar") if kind.endswith("[]") else sql.replace(name, "x")
        return Conversion(raw, per_text, per_value=True)
    for cast, target in _CASTS.items():
        if sql == name + cast and "DECIMAL" not in kind:
            return Conversion(raw, cast=target)
    return Conversion(raw, sql)
