"""Columns that the names of folders give: ``logs/dt=2026-11-25/a.parquet`` has the column dt, where its file has none.

DuckDB lets the folder's name win over a column of the file, which would turn a timestamp into its day without a word.
"""

import re
from collections.abc import Collection

from recd_dist.errors import DataError
from recd_dist.etl.raw.found_files import FoundFile
from recd_dist.table.announcement import Announcement

_FOLDER = re.compile(r"([^/=]+)=([^/]*)/")


def folder_option(files: tuple[FoundFile, ...], columns: Collection[str], notices: list[Announcement]) -> str | None:
    """Decides whether the names of folders become columns.

    Args:
        files: the files that are read together.
        columns: the columns that the files have themselves.
        notices: gets what was decided.

    Returns:
        The value of DuckDB's option ``hive_partitioning``; None where no folder has such a name.

    Raises:
        DataError: a folder's name is a column of the files, and another folder's name would be lost.
    """
    values: dict[str, set[str]] = {}
    keys = {tuple(match[0] for match in _FOLDER.findall(file.name)) for file in files}
    for file in files:
        for key, value in _FOLDER.findall(file.name):
            values.setdefault(key, set()).add(value)
    if not values:
        return None
    if len(keys) > 1:
        raise DataError(
            f"{files[0].name} and others: not all folders have the same key=value names ({', '.join(sorted(values))}); "
            "name files of one kind in data.path"
        )
    known = {column.lower() for column in columns}
    own = [key for key in values if key.lower() in known]
    others = [key for key in values if key not in own]
    if not own:
        shown = ", ".join(f"{key} (such as {min(values[key])})" for key in others)
        columns_of_names = "a column" if len(others) == 1 else "columns"
        found = f"the names of folders give {columns_of_names}: {shown}"
        notices.append(
            Announcement(found, len(others), f"data.drop=[{','.join(others)}] leaves that out", suspicious=False)
        )
        return "true"
    lost = [key for key in others if len(values[key]) > 1]
    if lost:
        raise DataError(
            f"{files[0].name}: column '{own[0]}' stands in the file and in the folder's name, and '{lost[0]}' only in "
            "the name; say which is meant with data.samples=\"select * from read_parquet('{path}', hive_partitioning = "
            'false)" (or true: then the folder wins)'
        )
    found = f"{', '.join(own)}: the files' own column is read, not the value in the folder's name"
    notices.append(Announcement(found, len(own), "", suspicious=False))
    return "false"
