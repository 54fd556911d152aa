"""Opens the table of a config: what the ETL made, or flat Parquet files as they are."""

import logging
from dataclasses import asdict, replace
from pathlib import Path

from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.etl.raw.duckdb_sql import resolve_path
from recd_dist.etl.raw.found_files import find_files
from recd_dist.job.check_servers import has_servers
from recd_dist.job.options import TrainConfig
from recd_dist.reader.direct_table import DirectTable
from recd_dist.reader.open_files import AnyTable
from recd_dist.reader.order import TIME
from recd_dist.screen.command_line import command_line
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.location import location
from recd_dist.table.manifest import is_table
from recd_dist.table.schema import SAMPLE, Schema

logger = logging.getLogger(__name__)

READERS = ("auto", "table", "direct")


def is_direct(config: TrainConfig) -> bool:
    """Whether a config reads flat Parquet files directly.

    Raises:
        ConfigError: ``data.reader`` is something else.
    """
    if config.data.reader not in READERS:
        raise ConfigError(f"data.reader={config.data.reader}: unknown{nearest(config.data.reader, READERS)}")
    return config.data.reader == "direct"


def open_table(config: TrainConfig) -> AnyTable:
    """Opens the split that is trained on, as far as the config names its partitions.

    Args:
        config: the config as loaded.

    Raises:
        ConfigError, DataError: there is no table, or files that do not fit; the message says what to type.
    """
    if is_direct(config):
        from recd_dist.direct.open_direct import open_direct

        _refuse_unable(config)
        if config.reader.follow:
            return _open_stream(config)
        return open_direct(asdict(config.data), config.reader.equal_rows)
    if config.reader.follow:
        raise ConfigError("reader.follow=true: parts that come are read with data.reader=direct; add it, or leave out")
    path = location(config.data.table) / "train"
    if not is_table(path):
        line = command_line("recd", "etl", f"data={config.data.name}")
        is_raw = config.data.path and config.data.source == "sql" and not config.data.samples
        direct = "; data.reader=direct trains on its Parquet files as they are" if is_raw else ""
        raise ConfigError(
            f"data.table={config.data.table}: no clustered table at '{path}'; make it with `{line}` (the same data "
            f"overrides), or correct data.table{direct}"
        )
    return ClusteredTable.load(path).of_partitions(config.data.partitions)


def _open_stream(config: TrainConfig) -> DirectTable:
    """The parts of a stream that are there, in the form that the run began with where it goes on.

    Raises:
        ConfigError: options that a stream has no use for.
        DataError: no part is there yet.
    """
    from recd_dist.direct.open_direct import open_direct
    from recd_dist.direct.stream_form import load_form
    from recd_dist.direct.stream_parts import table_of_present_parts

    for name, value, wanted in (("data.split", config.data.split, None), ("epochs", config.epochs, 1)):
        if value != wanted:
            raise ConfigError(
                f"reader.follow=true: {name}={value}: a stream has no end; write {name}={wanted or 'null'}"
            )
    if config.data.partitions is not None:
        raise ConfigError("reader.follow=true: data.partitions: all folders are followed; name them in data.path")
    form = load_form(Path(config.run_dir)) if config.resume else None
    if form is None:
        return open_direct(asdict(config.data), config.reader.equal_rows, only_whole=True)
    return table_of_present_parts(form, str(config.data.path))


def open_split_directly(
    trained: TrainConfig, schema: Schema | None, split: str, path: str | None, partitions: list[str] | None
) -> DirectTable:
    """Opens flat Parquet files to evaluate or score a run that was trained on such files.

    Args:
        trained: the config of the run.
        schema: the features of the run; the files must have them. None takes what is there, in no groups.
        split: the split of the run's own files.
        path: other files, of which all samples are taken; None for the run's own.
        partitions: values of folders to take; None for all.

    Raises:
        ConfigError, DataError: there is no such split, or files that do not fit.
    """
    from recd_dist.direct.open_direct import open_direct

    groups: dict[str, list[str]] = {}
    for feature in schema.features if schema is not None else ():
        if feature.home != SAMPLE:
            groups.setdefault(feature.home, []).append(feature.name)
    data = asdict(trained.data) | {"partitions": None}
    if path is not None:
        data |= {"path": path, "split": None}
    table = open_direct(data, trained.reader.equal_rows, groups)
    if path is not None:
        _warn_of_trained_files(table, trained, path)
    if path is None:
        return table.of_split(split).of_partitions(partitions)
    return replace(table, manifest=replace(table.manifest, split=split)).of_partitions(partitions)


def _warn_of_trained_files(table: DirectTable, trained: TrainConfig, path: str) -> None:
    """Says that files to evaluate are those that the run was trained on: a model knows what it has seen."""
    try:
        own = {file.name for file in find_files(resolve_path(str(trained.data.path)))}
    except (ConfigError, DataError):
        return  # the files of the training are gone
    if same := [file.name for file in table.raw_files if file.name in own]:
        logger.warning(
            "data.path=%s: %d of its %d files are those that the run was trained on (such as %s): the model has seen "
            "most of these samples, so that they tell nothing of new ones. Leave data.path out to take the run's own "
            "split 'test', or name files that were not trained",
            path, len(same), len(table.raw_files), same[0],
        )  # fmt: skip


def _refuse_unable(config: TrainConfig) -> None:
    """Refuses options of training that look at all samples before the first is trained."""
    reader = config.reader
    unable = (
        (f"batches={reader.batches}", reader.batches != "samples", "the work of samples", "batches=samples"),
        (f"batch_ids={reader.batch_ids}", reader.batch_ids is not None, "how many ids samples have", "batch_ids=null"),
        (f"whole={reader.whole}", reader.whole is not None, "where sessions begin", "whole=null"),
        (f"order={TIME}", reader.read_order == TIME, "the times of samples", "order=table"),
    )
    for given, is_asked, what, remedy in unable:
        if is_asked:
            raise ConfigError(
                f"reader.{given}: needs a table of `recd etl`, which tells {what} before the first batch; read "
                f"directly, take reader.{remedy}"
            )
    if has_servers(config.reader):
        raise ConfigError(
            "reader.servers: servers of batches have tables of `recd etl`; read directly, leave reader.servers and "
            "reader.servers_dir out"
        )
    for name, task in config.tasks.items():
        if (task or {}).get("loss") == "softmax" and (task or {}).get("no_positive", "error") == "error":
            raise ConfigError(
                f"tasks.{name}.no_positive=error: needs all requests of a table of `recd etl`; read directly, take "
                f"tasks.{name}.no_positive=skip"
            )
