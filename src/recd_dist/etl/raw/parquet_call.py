"""Parquet files: their footers are compared before anything is read, and the widest type of each column is taken."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.etl.raw.common_types import arrow_type_name, common_types
from recd_dist.etl.raw.folder_columns import folder_option
from recd_dist.etl.raw.found_files import FoundFile, list_literal
from recd_dist.etl.raw.read_options import ReadOptions
from recd_dist.etl.raw.sql_errors import double_names
from recd_dist.table.announcement import Announcement
from recd_dist.table.flat import identifier, string_literal
from recd_dist.table.location import arrow_input, report_store_errors


@dataclass(frozen=True)
class Footer:
    """What the footer of a Parquet file tells.

    Attributes:
        num_rows: its rows.
        num_bytes: about their bytes in memory.
        columns: name and DuckDB type of each column.
    """

    num_rows: int
    num_bytes: int
    columns: tuple[tuple[str, str], ...]


def read_footers(files: Sequence[FoundFile]) -> list[Footer | None]:
    """Reads the footer of each file; None where it cannot be read, which the engine will say."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(_read_footer, files))


def pin_parquet(
    files: tuple[FoundFile, ...], call_options: dict[str, str], options: ReadOptions, notices: list[Announcement]
) -> str:
    """Compares the columns of Parquet files, and says how to read them.

    Args:
        files: the files that are read as one table.
        call_options: SQL of each option of the query's call.
        options: what the data config says.
        notices: gets what was decided.

    Returns:
        SQL of a table that stands in the place of the call.

    Raises:
        DataError: the columns of two files do not go together.
    """
    footers = read_footers(files)
    known = [(file.name, dict(footer.columns)) for file, footer in zip(files, footers, strict=True) if footer]
    more = dict[str, str]()
    if known and "union_by_name" not in call_options:
        types = common_types(known, "read_parquet")
        if any(columns != types for _, columns in known):
            more["union_by_name"] = "true"
    _announce_double_names(files, footers, notices)
    names = list(dict.fromkeys(name for _, columns in known for name in columns))
    if known and "hive_partitioning" not in call_options and (folders := folder_option(files, names, notices)):
        more["hive_partitioning"] = folders
    text = "".join(f", {name} = {value}" for name, value in (call_options | more).items())
    call = f"read_parquet({list_literal(files)}{text})"
    texts = dict.fromkeys(name for _, columns in known for name, kind in columns.items() if kind == "VARCHAR")
    if not options.null_values or not texts:
        return call
    nulls = ", ".join(map(string_literal, options.null_values))
    replaced = [f"case when {n} not in ({nulls}) then {n} end as {n}" for n in map(identifier, texts)]
    return f"(select * replace ({', '.join(replaced)}) from {call})"


def _announce_double_names(
    files: tuple[FoundFile, ...], footers: Sequence[Footer | None], notices: list[Announcement]
) -> None:
    """Says which columns DuckDB reads under another name, since SQL does not tell upper from lower case."""
    for file, footer in zip(files, footers, strict=True):
        for first, second in double_names(name for name, _ in footer.columns) if footer else ():
            found = f"{file.name}: '{first}' and '{second}' are one name in SQL, and the second is read as '{second}_1'"
            notices.append(Announcement(found, 1, f"data.drop=[{second}_1] leaves it out; or rename it in the files"))
            return


@lru_cache(maxsize=4096)
def _read_footer(file: FoundFile) -> Footer | None:
    try:
        with report_store_errors(file.path):
            metadata = pq.read_metadata(arrow_input(file.path))
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError):
        return None
    num_bytes = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    columns = tuple((field.name, arrow_type_name(field.type)) for field in schema)
    return Footer(metadata.num_rows, num_bytes, columns)
