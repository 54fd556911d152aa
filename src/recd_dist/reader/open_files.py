"""Opens the files of a table for reading, whichever kind of table it is."""

from recd_dist.errors import ConfigError
from recd_dist.reader.direct_files import DirectFiles
from recd_dist.reader.direct_table import DirectTable
from recd_dist.reader.table_files import TableFiles
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.schema import Schema

AnyTable = ClusteredTable | DirectTable
"""A table that can be trained on: made by the ETL, or flat Parquet files as they are."""

AnyFiles = TableFiles | DirectFiles
"""Its files, read row group by row group."""


def open_files(table: AnyTable, schema: Schema | None = None) -> AnyFiles:
    """Opens the files of a table.

    Args:
        table: one split.
        schema: the features to read: all of the table's, or fewer.

    Raises:
        ConfigError: a feature, label or weights that the table does not have.
    """
    return DirectFiles(table, schema) if isinstance(table, DirectTable) else TableFiles(table, schema)


def require_clustered(table: AnyTable, option: str) -> ClusteredTable:
    """The table, where it was made by the ETL.

    Args:
        table: one split.
        option: what needs such a table, for the message.

    Raises:
        ConfigError: it is flat files that are read directly.
    """
    if isinstance(table, DirectTable):
        raise ConfigError(
            f"{option}: not for files that are read directly ({table.path}); make a table with `recd etl`"
        )
    return table
