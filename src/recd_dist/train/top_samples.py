"""The best samples of each request, by a score.

::

    part 0          request 7: .9 .2 .4    the best 2: .9 .4     each part keeps its own best, in which those of all
    part 1          request 7: .5 .8       the best 2: .8 .5     parts are
    all together    request 7: .9 .8       rank 1, 2
"""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.raw.duckdb_sql import connect
from recd_dist.table.flat import identifier, string_literal
from recd_dist.train.score_directory import ScoreDirectory

logger = logging.getLogger(__name__)

RANK = "rank"
"""The place of a sample among those of its request, 1 for the best."""

_NUMBER, _FIRST = "__number", "__first"  # the place of a sample, and of the first one of its request, in the input
_MEMORY = "1GB"


@dataclass(frozen=True)
class TopSamples:
    """Which samples are kept of each request.

    Attributes:
        num: so many, at most.
        score: the column of scores that decides; of equal ones the sample that comes first in the input is better, and
            nan is the worst.
        per: the column that tells requests apart.
    """

    num: int
    score: str
    per: str

    def reduce(self, rows: pa.Table, start: int) -> pa.Table:
        """The best samples of each request among some.

        Args:
            rows: samples that follow each other, N rows.
            start: the number of the first one in the input.

        Raises:
            DataError: a sample has no request.
        """
        if rows[self.per].null_count:
            row = start + int(np.argmax(rows[self.per].is_null().to_numpy()))
            raise DataError(f"top={self.num}: sample {row} has no '{self.per}'; name another column by per")
        rows = rows.append_column(_NUMBER, pa.array(np.arange(start, start + len(rows))))
        with connect(_MEMORY) as connection:
            connection.register("scored", rows)
            first = f"min({_NUMBER}) over (partition by {identifier(self.per)})"
            sql = f"select *, {first} as {_FIRST} from scored qualify {self._rank} <= {self.num} order by {_NUMBER}"
            best: pa.Table = connection.sql(sql).to_arrow_table()
        return best

    def columns(self, names: list[str]) -> list[str]:
        """The columns that are written, of those that there are."""
        return [*names, RANK]

    def merge(self, directory: ScoreDirectory, num_samples: int) -> dict[str, Any]:
        """Replaces parts that were reduced by one that holds the best of all, request after request.

        Args:
            directory: holds the parts of all ranks.
            num_samples: samples of all.

        Returns:
            How many samples are left.

        Raises:
            DataError: there is no room on the disk.
        """
        draft = directory.draft(num_samples)
        schema = directory.schema_of_parts(_NUMBER)
        rows = (batch for table in directory.read_parts() for batch in table.cast(schema).to_batches())
        reader = pa.RecordBatchReader.from_batches(schema, rows)
        request = identifier(self.per)
        with tempfile.TemporaryDirectory(prefix="recd_top_") as spill, connect(_MEMORY, spill=Path(spill)) as opened:
            opened.register("scored", reader)
            sql = (
                f"select * exclude ({_NUMBER}, {_FIRST}), {self._rank} as {RANK} from scored "
                f"qualify {RANK} <= {self.num} order by min({_FIRST}) over (partition by {request}), {RANK}"
            )
            try:
                opened.execute(f"copy ({sql}) to {string_literal(str(draft))} (format parquet, compression zstd)")
            except duckdb.Error as error:
                raise DataError(f"top={self.num}: {str(error).splitlines()[0]}") from error
        num = int(pq.read_metadata(draft).num_rows)
        directory.replace_parts(draft, num_samples)
        return {"top": {**asdict(self), "num_kept": num}}

    @property
    def _rank(self) -> str:
        score, request = identifier(self.score), identifier(self.per)
        return f"row_number() over (partition by {request} order by isnan({score}), {score} desc, {_NUMBER})"


def choose_top(num: int, by: str | None, per: str, tasks: Sequence[str], prefix: str) -> TopSamples:
    """Which samples are kept, as options say.

    Args:
        num: ``top``.
        by: ``top_by``.
        per: the column that tells requests apart.
        tasks: names of the tasks.
        prefix: begins the name of a column of scores.

    Raises:
        ConfigError: a number below 1, or a task that is unknown or not named where there are several.
    """
    if num < 1:
        raise ConfigError(f"top={num}: must be at least 1")
    if by is None and len(tasks) > 1:
        raise ConfigError(f"top={num}: the run has the tasks {', '.join(tasks)}; name one of them, top_by={tasks[0]}")
    if by is not None and by not in tasks:
        raise ConfigError(f"top_by={by}: the run has no such task; it has {', '.join(tasks)}")
    return TopSamples(num, f"{prefix}_{by or tasks[0]}", per)
