"""Turns raw columns into those of a table: the same ids, numbers and keys that the ETL would store.

::

    raw          visit 'a7'         | item uint16 | history large_list<int32> | city 'Oslo' 'Oslo' 'Rome'
    normalised   session int64      | item int64  | history list<int32>       | city int64, two texts hashed
    how          the ETL's own SQL  | cast        | as it is                  | the ETL's SQL, once a text

Columns whose types fit already are passed on as pyarrow has decoded them. All others go through the SQL that the ETL
itself runs, so that both ways come to the same ids. Texts come as dictionaries, and each text is hashed once a unit.
"""

from collections.abc import Iterable, Mapping

import duckdb
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.reader.direct_table import Conversion
from recd_dist.reader.row_group_columns import Origin
from recd_dist.table.flat import identifier
from recd_dist.table.flat_columns import as_lists, in_one_chunk, is_any_list
from recd_dist.table.location import first_line

_TYPES = {
    "int64": pa.int64(),
    "float32": pa.float32(),
    "list<int64>": pa.list_(pa.int64()),
    "list<float32>": pa.list_(pa.float32()),
}


class Normaliser:
    """Makes the columns of samples of raw columns.

    Args:
        conversions: how each column is made.
    """

    def __init__(self, conversions: Mapping[str, Conversion]) -> None:
        self.conversions = conversions
        self._connection: duckdb.DuckDBPyConnection | None = None

    @property
    def raw_columns(self) -> list[str]:
        """The raw columns that are needed, each once."""
        return list(dict.fromkeys(raw for conversion in self.conversions.values() for raw in conversion.raw))

    @property
    def texts(self) -> list[str]:
        """The raw columns of which each text is converted once."""
        return [conversion.raw[0] for conversion in self.conversions.values() if conversion.per_value]

    def raw_columns_of(self, names: Iterable[str]) -> set[str]:
        """The raw columns that some columns need."""
        return {raw for name in names for raw in self.conversions[name].raw}

    def normalise(self, raw: pa.Table, origin: Origin, names: Iterable[str] | None = None) -> pa.Table:
        """The columns, each in one chunk.

        Args:
            raw: the raw columns, N rows.
            origin: where they come from, for messages.
            names: the columns to make; None for all.

        Raises:
            DataError: a value that does not fit, such as a number beyond 64 bits.
        """
        columns, in_sql = dict[str, pa.Array](), dict[str, str]()
        wanted, raw = list(self.conversions if names is None else names), _with_plain_lists(raw)
        for name in wanted:
            conversion = self.conversions[name]
            try:
                if conversion.per_value:
                    columns[name] = self._convert_texts(raw[conversion.raw[0]], conversion.sql)
                elif conversion.sql:
                    in_sql[name] = conversion.sql
                else:
                    columns[name] = _fit(in_one_chunk(raw[conversion.raw[0]]), conversion.cast)
            except (pa.ArrowException, duckdb.Error) as error:
                column = conversion.raw[0]
                raise DataError(f"{origin}: column '{column}' cannot be converted ({first_line(error)})") from error
        if in_sql:
            needed = dict.fromkeys(column for name in in_sql for column in self.conversions[name].raw)
            try:
                found = self._select(raw.select(list(needed)), in_sql)
            except duckdb.Error as error:
                names = ", ".join(needed)
                raise DataError(f"{origin}: columns {names} cannot be converted ({first_line(error)})") from error
            columns |= {name: in_one_chunk(found[name]) for name in in_sql}
        return pa.table({name: columns[name] for name in wanted})

    def _convert_texts(self, column: pa.ChunkedArray, sql: str) -> pa.Array:
        """The ids of texts, or of lists of texts: each distinct text is converted once."""
        is_encoded = pa.types.is_dictionary(column.type)
        array = in_one_chunk(column.unify_dictionaries() if is_encoded else column)
        if pa.types.is_list(array.type):
            ids = self._convert_texts(pa.chunked_array([array.values]), sql)
            return pa.ListArray.from_arrays(array.offsets, ids, mask=array.is_null() if array.null_count else None)
        if pa.types.is_string_view(array.type):
            array = array.cast(pa.string())  # Arrow makes no dictionaries of views
        encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        texts = pa.table({"x": encoded.dictionary})
        ids = in_one_chunk(self._select(texts, {"x": sql})["x"])
        return ids.take(encoded.indices)

    def _select(self, raw: pa.Table, expressions: Mapping[str, str]) -> pa.Table:
        """Runs expressions over a table, in the order of its rows."""
        if self._connection is None:
            self._connection = duckdb.connect()
            for option in ("enable_progress_bar = false", "TimeZone = 'UTC'", "threads = 1"):
                self._connection.execute(f"set {option}")
        self._connection.register("raw", raw)
        selected = ", ".join(f"{sql} as {identifier(name)}" for name, sql in expressions.items())
        found: pa.Table = self._connection.sql(f"select {selected} from raw").to_arrow_table()
        self._connection.unregister("raw")
        return found


def _fit(array: pa.Array, cast: str) -> pa.Array:
    """The array as plain numbers or lists, of a type where one is asked for."""
    if not cast:
        return array
    wanted = _TYPES[cast]
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array if array.type == wanted else array.cast(wanted, safe=pa.types.is_integer(wanted))


def _with_plain_lists(raw: pa.Table) -> pa.Table:
    """The columns, whose lists all have offsets of 32 bits."""
    return pa.table(
        {
            name: as_lists(in_one_chunk(column)) if is_any_list(column.type) else column
            for name, column in zip(raw.column_names, raw.columns, strict=True)
        }
    )
