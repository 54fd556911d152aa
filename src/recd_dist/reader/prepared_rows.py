"""Makes stored rows ready for batches: transformed, checked, ids as their tables look them up.

Each stored row is seen once in a shuffle window, so that the cost is that of unique rows, and an error can name file,
row group and row.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.reader import kernels
from recd_dist.reader.number_chains import NumberChains
from recd_dist.reader.row_group_columns import DecodedRowGroup, Origin
from recd_dist.reader.transform import Transforms
from recd_dist.screen.command_line import command_line, override
from recd_dist.table.column import Array, Column, Rows, Windows
from recd_dist.table.schema import Feature, Schema, Table


class RowPreparation:
    """Makes the rows of features ready for batches.

    Args:
        schema: the features to make ready, in the groups of the table.
        stored: the features that are read; some of ``schema`` may be made from them.
        tables: the embedding tables that the features look up, by name.
        transforms: fitted.
        on_bad_id: ``error``, or ``drop`` an id outside its table (from its list; a single one becomes an empty list).
        on_nan: ``error``, or ``zero`` for dense values and weights that are not finite.

    Attributes:
        counts: for each feature the ids dropped and the dense values and weights set to zero, so far.
        id_dtype: of ids that are ready, int32 or int64.

    Raises:
        ConfigError: a feature without its table, transforms not fitted, an unknown policy.
    """

    def __init__(
        self,
        schema: Schema,
        stored: Schema,
        tables: Mapping[str, Table],
        transforms: Transforms,
        on_bad_id: str,
        on_nan: str,
    ) -> None:
        for name, value, known in (("on_bad_id", on_bad_id, ("error", "drop")), ("on_nan", on_nan, ("error", "zero"))):
            if value not in known:
                raise ConfigError(f"reader.{name}={value}: unknown{nearest(value, known)}")
        for feature in schema.sparse:
            if feature.table not in tables:
                raise ConfigError(
                    f"feature '{feature.name}': no table '{feature.table}'{nearest(str(feature.table), tables)}"
                )
        if not transforms.is_fitted:
            raise ConfigError(
                "transforms: some have no mean and std, or min and max; fit them on the training table first"
            )
        read = [tables[t] for t in schema.tables]
        is_wide = any(table.mapped is not None or table.num_embeddings >= 2**31 for table in read)
        self.id_dtype = np.dtype(np.int64 if is_wide else np.int32)
        self.counts: Counter[str] = Counter()
        self._tables, self._transforms, self._stored = tables, transforms, stored
        self._on_bad_id, self._on_nan = on_bad_id, on_nan

    def limits(self, schema: Schema) -> dict[str, int]:
        """Features whose int32 ids may stay as they are stored, where they lie in [0, limit), with the limit."""
        if self.id_dtype != np.int32:
            return {}
        tables = {f.name: self._tables[str(f.table)] for f in schema.sparse if f.name not in self._transforms.steps}
        return {name: table.num_embeddings for name, table in tables.items() if not table.hashed}

    def chains(self, features: Sequence[Feature]) -> NumberChains:
        """The transforms of dense features that are stored side by side."""
        return NumberChains([self._transforms.steps.get(f.name, ()) for f in features])

    def numbers(self, feature: Feature, row_group: DecodedRowGroup, origin: Origin) -> Column:
        """Transforms dense values, which must be finite before and after, unless a transform fills in what is not.

        Args:
            feature: a dense feature.
            row_group: the rows, as they are stored.
            origin: where they come from, for messages.

        Raises:
            DataError: a value that is not finite.
        """
        if not feature.made_from and not self._transforms.fills(feature.name):
            stored = row_group.columns[feature.name]
            finite = self._check_numbers(feature, stored, origin, "")
            if finite is not stored:
                row_group = replace(row_group, columns={feature.name: finite})
        rows = self._transforms.rows(feature, row_group, self._stored, self.counts)
        found = self._check_numbers(feature, rows, origin, " after its transforms")
        return Column(found.values.astype(np.float32, copy=False))

    def _check_numbers(self, feature: Feature, rows: Rows, origin: Origin, when: str) -> Rows:
        """The same numbers where they are finite; otherwise with zeros, or an error that names the first."""
        bad = ~np.isfinite(rows.values)
        if not bad.any():
            return rows
        row = int(bad.argmax())
        if self._on_nan == "error":
            raise DataError(
                f"{origin}, row {row}: dense feature '{feature.name}' is {rows.values[row]}{when}; mend it "
                "in the SQL, or set reader.on_nan=zero"
            )
        self.counts[f"{feature.name}: not finite"] += int(bad.sum())
        return Column(np.where(bad, np.float32(0), rows.values))

    def ids(self, feature: Feature, row_group: DecodedRowGroup, origin: Origin) -> Rows:
        """Transforms ids into [0, num_embeddings) of their table, unless it is mapped; weights must be finite.

        Windows stay windows as long as each value can be looked at by itself.

        Args:
            feature: an id feature.
            row_group: the rows, as they are stored.
            origin: where they come from, for messages.

        Raises:
            DataError: an id outside its table, or a weight that is not finite.
        """
        rows = self._transforms.rows(feature, row_group, self._stored, self.counts)
        if isinstance(rows, Windows):
            if self._are_fine(feature, rows):
                return replace(rows, values=self._to_rows(feature, rows.values))
            rows = rows.to_lists()
        column = rows
        if column.weights is not None:
            column = self._check_weights(feature, column, column.weights, origin)
        if not self._are_fine(feature, column):
            column = self._drop_bad_ids(feature, column, self._tables[str(feature.table)], origin)
        return replace(column, values=self._to_rows(feature, column.values))

    def _are_fine(self, feature: Feature, rows: Rows) -> bool:
        """Whether ids and weights of a feature need no look at single ones."""
        table, values = self._tables[str(feature.table)], rows.values
        if rows.weights is not None and not np.isfinite(rows.weights).all():
            return False
        is_any_good = table.hashed or table.mapped is not None or not len(values)
        return is_any_good or (values.min() >= 0 and values.max() < table.num_embeddings)

    def _to_rows(self, feature: Feature, values: Array) -> Array:
        """Ids as they are looked up."""
        table = self._tables[str(feature.table)]
        if table.hashed:
            values = values.astype(np.int64)
            kernels.hash_ids(values, table.num_embeddings, values)
        return values.astype(self.id_dtype, copy=False)

    def _check_weights(self, feature: Feature, column: Column, weights: Array, origin: Origin) -> Column:
        """Sets weights that are not finite to zero, or refuses the first of them."""
        bad = ~np.isfinite(weights)
        if not bad.any():
            return column
        if self._on_nan == "error":
            first = int(bad.argmax())
            raise DataError(
                f"{origin}, row {column.row_of(first)}: a weight of feature '{feature.name}' in column "
                f"'{feature.weights}' is {weights[first]}; mend it in the SQL, or set reader.on_nan=zero"
            )
        self.counts[f"{feature.name}: weight not finite"] += int(bad.sum())
        return replace(column, weights=np.where(bad, np.float32(0), weights))

    def _drop_bad_ids(self, feature: Feature, column: Column, table: Table, origin: Origin) -> Column:
        """Drops ids (with their weights) that their table has no row for, or refuses the first of them."""
        bad = (column.values < 0) | (column.values >= table.num_embeddings)
        if self._on_bad_id == "error":
            first = int(bad.argmax())
            value = int(column.values[first])
            where = ("data", "tables", table.name)
            rows = command_line(override((*where, "num_embeddings"), value + 1))
            grow = f"{rows} or more or " if value >= 0 else ""
            raise DataError(
                f"{origin}, row {column.row_of(first)}: feature '{feature.name}' holds id {value}, table "
                f"'{table.name}' has rows 0..{table.num_embeddings - 1}; train with {grow}"
                f"{command_line(override((*where, 'hashed'), True))}, or leave it out by reader.on_bad_id=drop"
            )
        self.counts[f"{feature.name}: id outside table '{table.name}'"] += int(bad.sum())
        offsets = np.arange(len(bad) + 1) if column.offsets is None else column.offsets
        weights = None if column.weights is None else column.weights[~bad]
        return Column(column.values[~bad], np.concatenate([[0], np.cumsum(~bad)])[offsets], weights)
