"""Synthetic raw logs, written as flat Parquet in the order of time.

::

    RAW/part-00000.parquet ...   session_id, request_id, timestamp, label, features      <- the only input of the ETL
    RAW/oracle.npz               true probability by timestamp                           <- never a column
    RAW/oracle.json              AUC and NE of the true probabilities, per split
    RAW/spec.json                what was asked for; a directory that has it is finished

Every sample carries its own copy of all features, as services log them. The directory is written beside its final name
and then renamed, so it is whole or absent.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.errors import ConfigError
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import write_whole
from recd_dist.screen.phase_progress import PhaseProgress
from recd_dist.synthetic.draw import I64
from recd_dist.synthetic.labels import HiddenModel, Oracle, score, true_probabilities
from recd_dist.synthetic.spec import IdFeature, SyntheticSpec
from recd_dist.synthetic.values import FeatureValues, Lists
from recd_dist.synthetic.visits import Traffic, draw_traffic
from recd_dist.synthetic.write_once import write_once
from recd_dist.table.one_query import second_statement

_log = logging.getLogger(__name__)

VERSION = 1
"""Version of the generator; logs of another version are written again."""

_CHUNK_VALUES = 8_000_000
"""Number of ids in memory at once (32 MB); they become a row group."""

_FILE_VALUES = 64_000_000
"""Number of ids in a file."""


def generate(
    spec: SyntheticSpec, out: Path, *, seed: int = 0, split: str | float | None = None, progress: bool = True
) -> Path:
    """Writes the raw logs of a spec, unless they are there already.

    Args:
        spec: what to write.
        out: directory for the logs; it is replaced where it holds logs of another spec.
        seed: seed of every random draw; the same spec and seed give the same logs.
        split: SQL predicate over the columns, true for test samples, for scores per split in ``oracle.json``. A number,
            the share of the sessions in the test split, is no predicate, and gives scores of all samples only.
        progress: whether to show a progress bar.

    Returns:
        The directory.

    Raises:
        DataError: the directory holds something else, or cannot be written.
        ConfigError: the split names columns that do not exist, or the seed has more than 64 bits.
    """
    if not 0 <= seed < 1 << 64:
        raise ConfigError(f"seed={seed}: must be from 0 to {(1 << 64) - 1}, a number of 64 bits")
    out, spec = Path(out), replace(spec, seed=seed)
    with PhaseProgress(progress) as bar:

        def write(work: Path) -> None:
            bar.start_writing(spec.num_samples)
            _write_logs(spec, work, bar.advance)

        write_once(out, json_text({"version": VERSION, **asdict(spec)}), write)
    scores = score_splits(out, split if isinstance(split, str) else None)
    oracles = {name: oracle.to_json() for name, oracle in scores.items()}
    write_whole(out / "oracle.json", json_text(oracles))
    name, best = ("test", scores["test"]) if "test" in scores else ("all", scores["all"])
    _log.info("%s: the best possible AUC on %s samples is %.4f, NE %.4f", out, name, best.auc, best.ne)
    return out


def score_splits(raw: Path, split: str | None = None) -> dict[str, Oracle]:
    """Scores the true probabilities against the labels of written logs.

    Args:
        raw: directory that ``generate`` has written.
        split: SQL predicate over the columns, true for test samples; None for no splits.

    Returns:
        Scores of all samples under ``all``; with a split also those of ``train`` and ``test``.

    Raises:
        ConfigError: the split names columns that do not exist.
    """
    if split and (mistake := second_statement(split)):
        raise ConfigError(f"data.split: must be {mistake}")
    is_test = f"coalesce(({split}), false)" if split else "false"
    query = f"select epoch_us(timestamp) as t, label, {is_test} as is_test from read_parquet(?)"
    try:
        with duckdb.connect() as connection:
            columns = connection.execute(query, [str(raw / "part-*.parquet")]).fetchnumpy()
    except duckdb.Error as error:
        raise ConfigError(f"data.split: not a predicate over the synthetic columns: {split} ({error})") from error
    probability = true_probabilities(raw, np.asarray(columns["t"], np.int64))
    label, test = np.asarray(columns["label"]), np.asarray(columns["is_test"], bool)
    scores = {"all": score(probability, label)}
    if split:
        scores |= {"train": score(probability[~test], label[~test]), "test": score(probability[test], label[test])}
    return scores


def _write_logs(spec: SyntheticSpec, work: Path, advance: Callable[[int], None]) -> None:
    """Writes all files of the logs into an empty directory.

    Args:
        spec: what to write.
        work: the empty directory.
        advance: called with the number of samples of each row group.
    """
    traffic = draw_traffic(spec)
    values = FeatureValues(spec, traffic)
    model = HiddenModel(spec, values)
    schema = arrow_schema(spec)
    probability = np.empty(len(traffic), np.float32)
    writer, num_files, room_left = None, 0, 0
    chunk = max(1024, _CHUNK_VALUES // max(1, sum(f.length or 1 for _, f in spec.features)))
    try:
        for start in range(0, len(traffic), chunk):
            index = np.arange(start, min(start + chunk, len(traffic)))
            batch, probability[index] = _draw_batch(traffic, values, model, index, schema)
            if writer is None or room_left <= 0:
                if writer is not None:
                    writer.close()
                writer = _open_writer(work / f"part-{num_files:05d}.parquet", schema)
                num_files, room_left = num_files + 1, max(1, _FILE_VALUES // _CHUNK_VALUES) * chunk
            writer.write_batch(batch)
            room_left -= len(index)
            advance(len(index))
    finally:
        if writer is not None:
            writer.close()
    np.savez(work / "oracle.npz", timestamp_us=traffic.timestamp_us, probability=probability)
    _log.info("%d samples of %d sessions in %d files", len(traffic), traffic.session.max() + 1, num_files)


def arrow_schema(spec: SyntheticSpec) -> pa.Schema:
    """Columns of the raw logs: none may be null; ids are int32, labels and dense features float32."""
    fields = [("session_id", pa.int64()), ("request_id", pa.int64()), ("timestamp", pa.timestamp("us"))]
    fields.append(("label", pa.float32()))
    for _, feature in spec.features:
        is_list = feature.length is not None
        fields.append((feature.name, pa.list_(pa.field("item", pa.int32(), False)) if is_list else pa.int32()))
    fields += [(name, pa.float32()) for group in spec.groups for name in group.dense]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])


def _draw_batch(
    traffic: Traffic, values: FeatureValues, model: HiddenModel, index: I64, schema: pa.Schema
) -> tuple[pa.RecordBatch, np.ndarray[Any, np.dtype[np.float64]]]:
    """Draws some samples.

    Args:
        traffic: who is seen when.
        values: draws the features.
        model: draws the labels.
        index: int64 [n], numbers of the samples.
        schema: columns of the logs.

    Returns:
        The samples, and their true probabilities float64 [n].
    """
    ids = list(values.ids(index))
    dense = list(values.dense(index))
    probability = model.probability(index, ids, dense)
    arrays = [pa.array(traffic.session[index]), pa.array(traffic.request[index])]
    arrays.append(pa.array(traffic.timestamp_us[index]).cast(pa.timestamp("us")))
    arrays.append(pa.array(model.draw_labels(index, probability)))
    arrays += _id_arrays(ids, schema)
    arrays += [pa.array(column) for _, column in dense]
    return pa.RecordBatch.from_arrays(arrays, schema=schema), probability


def _id_arrays(ids: list[tuple[IdFeature, Lists]], schema: pa.Schema) -> Iterator[pa.Array]:
    """Arrow arrays of the id features, which share the memory of the values."""
    for feature, rows in ids:
        values = pa.array(rows.values)
        if feature.length is None:
            yield values
        else:
            yield pa.ListArray.from_arrays(
                pa.array(rows.offsets.astype(np.int32)), values, type=schema.field(feature.name).type
            )


def _open_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Opens a Parquet file with settings for repeated ids: without a dictionary, zstd sees the repeats."""
    return pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, use_dictionary=False)
