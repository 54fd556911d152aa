"""Opens what a run shall score that is no table: Parquet files, other files, or the rows of a query."""

import hashlib
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from recd_dist.direct.foreign_input import TableOrigin, open_foreign_input
from recd_dist.direct.query_file import describe_input, input_query, needs_query, write_query
from recd_dist.errors import UserError
from recd_dist.job.open_table import is_direct
from recd_dist.job.options import PredictConfig, TrainConfig
from recd_dist.job.score_places import scores_directory, work_directory
from recd_dist.reader.direct_table import DirectTable
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.location import file_size, location
from recd_dist.table.schema import Schema


def origin_of(trained: TrainConfig) -> TableOrigin:
    """How the table of a run was made: as its manifest says, or the run's own config where the table is gone.

    Args:
        trained: the config of the run.
    """
    data = asdict(trained.data)
    known: dict[str, Any] = {}
    if not is_direct(trained):
        with suppress(UserError):
            known = dict(ClusteredTable.load(location(trained.data.table) / "train").manifest.source)
    keys = {name: column for name, column in (known.get("keys") or data["keys"]).items() if column}
    samples = known.get("samples", data["samples"])
    ran = (known.get("samples_sql"), *dict(known.get("groups_sql") or {}).values())
    sql = "\n".join(str(text) for text in ran if text)
    return TableOrigin(
        keys, known.get("features") or data["features"], samples or None, sql, data["csv"], data["null_values"]
    )


def check_input(config: PredictConfig, trained: TrainConfig) -> None:
    """Refuses a query that is wrong, before a rank starts; it is not run.

    Args:
        config: names the files, or has the query.
        trained: the config of the run.

    Raises:
        ConfigError, DataError: the query is wrong, at its line and column; files are not there.
    """
    origin = origin_of(trained)
    if needs_query(config.data.path, config.data.sql, origin):
        describe_input(*input_query(config.data.path, config.data.sql, origin))


def open_input(config: PredictConfig, trained: TrainConfig, schema: Schema) -> DirectTable:
    """Opens the files, or runs the query and opens its rows, which stay beside the scores until these are whole.

    Args:
        config: names the files, or has the query.
        trained: the config of the run.
        schema: the features and labels of the run.

    Raises:
        ConfigError, DataError: the query is wrong; files are not there, or lack what the model reads.
    """
    origin, path = origin_of(trained), config.data.path
    name = "data.sql" if config.data.sql is not None else f"data.path={path}"
    if needs_query(path, config.data.sql, origin):
        query, option = input_query(path, config.data.sql, origin)
        digest = hashlib.sha256(query.sql.encode()).hexdigest()[:16]
        rows = work_directory(scores_directory(config)) / f"input-{digest}.parquet"
        if file_size(rows) is None:  # a prediction that goes on scores the rows that it began with
            write_query(query, option, rows)
        path = str(rows)
    return open_foreign_input(str(path), name, schema, origin).of_partitions(config.data.partitions)
