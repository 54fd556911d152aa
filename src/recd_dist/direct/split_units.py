"""Divides the units of flat files into the splits ``train`` and ``test``.

The direct reader knows the numbers of rows before it reads them. So a share is taken from the end of the files, from
where a session begins on, and a predicate may only be about what names of folders say.
"""

import logging

import duckdb
import numpy as np

from recd_dist.direct.footers import FlatFiles
from recd_dist.direct.units import Parts, count_rows_of, take_rows_between
from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.raw.duckdb_sql import connect, short_message
from recd_dist.reader.direct_files import DirectFiles
from recd_dist.reader.direct_table import DirectTable
from recd_dist.reader.order import RowGroup
from recd_dist.table.flat import identifier, string_literal
from recd_dist.table.schema import SESSION_ID

logger = logging.getLogger(__name__)

_TRAIN, _TEST = "train", "test"


def split_units(split: str | float | None, table: DirectTable, flat: FlatFiles) -> dict[str, Parts]:
    """The parts of each split.

    Args:
        split: the share of the last samples that are the test split; or a predicate about columns that folders give,
            which is true for test samples; None for no test split.
        table: all samples.
        flat: the files.

    Raises:
        ConfigError: a predicate about something else, or a split without a sample.
        DataError: damaged files.
    """
    parts = list(table.units)
    if split is None:
        return {_TRAIN: parts}
    if isinstance(split, str):
        divided = _split_folders(split, parts, flat)
    else:
        num = count_rows_of(parts)
        border = _session_start(table, num - round(num * split))
        divided = {_TRAIN: take_rows_between(parts, 0, border), _TEST: take_rows_between(parts, border, num)}
        logger.info(
            "data.split=%g: the last %s of %s samples, in order of the files", split, f"{num - border:,}", f"{num:,}"
        )
    for name, of in divided.items():
        if not of:
            raise ConfigError(f"data.split={split}: no sample is left for the split '{name}'; take data.split=null")
    return divided


def _session_start(table: DirectTable, border: int) -> int:
    """The first sample of the session that holds a sample; of the part of it that lies in the same unit."""
    place = 0
    for part, entry in enumerate(table.manifest.parts):
        for index, size in enumerate(entry.samples.row_groups):
            if place < border < place + size:
                rows, _ = DirectFiles(table).read_normalised(RowGroup(part, index, size))
                if SESSION_ID not in rows.column_names:
                    return border
                sessions = rows[SESSION_ID].to_numpy()
                starts = np.flatnonzero(np.append(True, sessions[1:] != sessions[:-1]))
                start = int(starts[np.searchsorted(starts, border - place, "right") - 1])
                return place + start if start or place else border
            place += size
    return border


def _split_folders(predicate: str, parts: Parts, flat: FlatFiles) -> dict[str, Parts]:
    """Whole folders, by a predicate about their names."""
    is_test: dict[tuple[tuple[str, str | None], ...], bool] = {}
    for file in flat.files:
        key = tuple(file.folders.items())
        if key not in is_test:
            texts = [(n, "null" if v is None else string_literal(v)) for n, v in key]
            values = [f"{text}::{flat.types[n]} as {identifier(n)}" for n, text in texts] or ["1"]
            try:
                with connect(threads=1) as connection:
                    sql = f"select coalesce(({predicate}\n)::boolean, false) from (select {', '.join(values)})"
                    is_test[key] = bool(connection.execute(sql).fetchall()[0][0])
            except (duckdb.Error, DataError) as error:
                known = ", ".join(n for n, _ in key) or "none here"
                raise ConfigError(
                    f"data.split={predicate}: read directly, it may ask for columns that names of folders give "
                    f"({known}) and nothing else ({short_message(error)}); take data.split=0.1, or `recd etl`"
                ) from error
    divided: dict[str, Parts] = {_TRAIN: [], _TEST: []}
    for units in parts:
        test = is_test[tuple(flat.files[units[0][0].file].folders.items())]
        divided[_TEST if test else _TRAIN].append(units)
    return divided
