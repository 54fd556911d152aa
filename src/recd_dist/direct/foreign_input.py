"""Opens flat Parquet files as samples for a model that is trained already, on whichever kind of table.

::

    schema of the model --> columns that it reads --.
    files --footers--> columns and types -----------+--the ETL's SQL--> conversions --> units --> DirectTable
    how its table was made --> texts or numbers ----'

What the model reads must be there; labels and keys may be missing, and every other column is passed over. Nothing is
measured but how equal rows are found: table sizes, transforms and means are those of the model.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from recd_dist.direct.conversions import conversions_of
from recd_dist.direct.footers import FlatFiles, read_flat_files
from recd_dist.direct.measured_units import MIN_GAIN, MeasuredUnits
from recd_dist.direct.units import count_rows_of, cut_units, sequences_of
from recd_dist.errors import DataError, nearest
from recd_dist.etl.source.column_sql import is_list, is_text
from recd_dist.etl.source.described_queries import RawQuery
from recd_dist.etl.source.inspection import inspect_columns
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_groups import FeatureSource, GroupSource
from recd_dist.reader.direct_files import DirectFiles
from recd_dist.reader.direct_table import HASH, NEIGHBOURS, Conversion, DirectManifest, DirectTable, manifest_parts
from recd_dist.table.flat import identifier
from recd_dist.table.location import location
from recd_dist.table.manifest import FeatureStats
from recd_dist.table.schema import SAMPLE, Feature, Kind, Schema

_SPLIT = "input"


@dataclass(frozen=True)
class TableOrigin:
    """How the table was made that a model is trained on, as far as it is known.

    Attributes:
        keys: the raw column of each key.
        features: options of features by the name of their column, as a data config has them.
        samples: the query of the samples, with ``{path}`` in it; None where files were read as they are.
        sql: what the ETL ran, which tells where it hashed texts; empty where nobody knows.
        csv, null_values: how text files are written.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)
    samples: str | None = None
    sql: str = ""
    csv: Mapping[str, Any] = field(default_factory=dict)
    null_values: Sequence[str] = ()

    def hashes(self, column: str) -> bool:
        """Whether the ETL has hashed the texts of a column."""
        name = re.escape(identifier(column))
        return re.search(rf"md5_number_lower\({name}|list_transform\({name}, lambda x: \(md5_", self.sql) is not None


def open_foreign_input(path: str, name: str, schema: Schema, origin: TableOrigin) -> DirectTable:
    """Opens files whose samples a model shall score.

    Args:
        path: a file, a folder, a pattern, or a table of Iceberg or Delta; here or in a store.
        name: what names the input, for messages: ``data.path=x.parquet``, or ``data.sql``.
        schema: the features and labels of the model.
        origin: how the table of its training was made.

    Returns:
        All samples in one split, in the order of the files. A label that is not there is missing in each.

    Raises:
        ConfigError, DataError: a column that the model reads is not there, or is something else than in training.
    """
    wanted = _columns_of(schema)
    try:
        flat = read_flat_files(path, _AllBut({*wanted, *schema.labels}))
    except DataError as error:  # of a query its rows lie in a file that nobody has named
        raise DataError(str(error).replace(f"data.path={path}", name)) from error
    _require_columns(name, schema, flat, origin)
    source = _source_of(path, schema, flat, origin)
    absent = [label for label in schema.labels if label not in flat.types]
    types = {**flat.types, **dict.fromkeys(absent, "FLOAT")}
    raw = RawQuery(f"select * from '{path}'", types, flat.durations)
    try:
        inspection = inspect_columns(source, raw, {})
    except DataError as error:
        raise DataError(str(error).replace("data source 'input'", name)) from error
    conversions = conversions_of(source, inspection, types) | dict.fromkeys(absent, Conversion(()))
    features = tuple(_as_trained(f, schema, flat.types) for f in inspection.schema.features)
    return _table_of(path, flat, replace(inspection.schema, features=features), conversions, absent)


@dataclass(frozen=True)
class _AllBut:
    """Every name but some."""

    names: set[str]

    def __contains__(self, name: object) -> bool:
        return name not in self.names


def _columns_of(schema: Schema) -> dict[str, str]:
    """The columns that a model reads, each with the group with whose rows it repeats."""
    columns: dict[str, str] = {}
    for feature in schema.features:
        for name in feature.made_from or (feature.name,):
            columns.setdefault(name, feature.home)
        if feature.weights is not None:
            columns[feature.weights] = feature.home
    return columns


def _require_columns(name: str, schema: Schema, flat: FlatFiles, origin: TableOrigin) -> None:
    """Refuses files that lack a column, or have numbers where the table of the training was made of texts."""
    wanted = _columns_of(schema)
    missing = [column for column in wanted if column not in flat.types]
    if missing:
        more = f" and {len(missing) - 1} more ({', '.join(missing[1:6])})" if missing[1:] else ""
        raise DataError(
            f"{name}: no column '{missing[0]}'{more}, which the model reads{nearest(missing[0], flat.types)}; make it "
            "by a query, such as data.sql=\"select *, ... from 'FILE'\""
        )
    numbers = {feature.name for feature in schema.dense} | set(schema.weights.values())
    for column in [column for column in wanted if column not in numbers] if origin.sql else ():
        if origin.hashes(column) != is_text(kind := flat.types[column].removesuffix("[]")):
            was = "text" if origin.hashes(column) else "numbers"
            raise DataError(
                f"{name}: column '{column}' is {kind}, and was {was} in the table of the training, so that its ids "
                f'would be others; bring it back by a query, such as data.sql="select * replace ({column}::'
                f"{'varchar' if origin.hashes(column) else 'bigint'} as {column}) from 'FILE'\""
            )


def _source_of(path: str, schema: Schema, flat: FlatFiles, origin: TableOrigin) -> Source:
    """The files as a source of the ETL with the features of the model, and without keys."""
    groups: dict[str, list[str]] = {}
    weights = set(schema.weights.values())
    wanted = _columns_of(schema)
    for column, group in wanted.items():
        if group != SAMPLE and column not in weights:
            groups.setdefault(group, []).append(column)
    features = {}
    for column in wanted:
        if column not in weights:
            features[column] = _feature_source(column, schema, flat.types[column], origin)
    known = {*wanted, *schema.labels}
    return Source(
        name="input",
        path=path,
        labels=schema.labels,
        groups={name: GroupSource(tuple(columns)) for name, columns in groups.items()},
        features=features,
        drop=tuple(column for column in flat.types if column not in known),
    )


def _feature_source(column: str, schema: Schema, kind: str, origin: TableOrigin) -> FeatureSource:
    """What the model says of a column, or of an input of what it makes."""
    if column not in schema:
        options = dict(origin.features.get(column) or {})
        wanted = options.get("kind")
        return FeatureSource(options.get("table"), Kind(wanted) if wanted else None)
    feature = schema[column]
    is_number = kind.startswith(("FLOAT", "DOUBLE", "DECIMAL"))
    natural = feature.kind is Kind.ids and not is_list(kind) and not is_number
    return FeatureSource(feature.table, None if natural else feature.kind, feature.weights)


def _as_trained(feature: Feature, schema: Schema, types: Mapping[str, str]) -> Feature:
    """A feature with the kind of the model's: a single id may stand where it has lists of no or one."""
    if feature.name in schema and feature.kind is Kind.id and not is_list(types[feature.name]):
        return replace(feature, kind=schema[feature.name].kind)
    return feature


def _table_of(
    path: str, flat: FlatFiles, schema: Schema, conversions: Mapping[str, Conversion], absent: Sequence[str]
) -> DirectTable:
    """The table, whose groups are found in the cheapest way that finds them."""
    parts = cut_units(flat.files)
    num = count_rows_of(parts)
    if not num:
        raise DataError(f"{path}: holds no samples")
    labels = {name: _stats(num if name in absent else _num_missing(flat, name)) for name in schema.labels}
    manifest = DirectManifest(
        name="input",
        split=_SPLIT,
        schema=schema,
        num_samples=num,
        num_sessions=num,
        num_requests=num,
        group_rows={},
        features={},
        ids={},
        labels=labels,
        parts=manifest_parts(flat.files, parts, flat.root),
        source={"columns": list(flat.types)},
        sequences=sequences_of(parts),
    )
    table = DirectTable(location(path), manifest, flat.files, tuple(parts), conversions, {})
    if not schema.dedup_groups:
        return table
    measured = MeasuredUnits.read(DirectFiles(table, schema))
    found = {group: measured.measure_group(schema, group) for group in schema.dedup_groups}
    ways = {g: HASH if of.by_hash >= MIN_GAIN * of.by_neighbours else NEIGHBOURS for g, of in found.items()}
    factors = {g: of.by_hash if ways[g] == HASH else of.by_neighbours for g, of in found.items()}
    rows = {group: max(round(num / factor), 1) for group, factor in factors.items()}
    return replace(table, manifest=replace(manifest, group_rows=rows), ways=ways)


def _num_missing(flat: FlatFiles, label: str) -> int:
    """Samples without a label; 1 where the footers do not say: it may be missing."""
    told = flat.range_of(label).num_null
    return 1 if told is None else max(told, 1)


def _stats(num_null: int) -> FeatureStats:
    return FeatureStats(0, 0, 0, float("nan"), num_null)
