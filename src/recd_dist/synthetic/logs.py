"""Synthetic raw logs: flat Parquet in time order, every sample with its own copy of everything, as services log it.

::

    RAW/part-00000.parquet ...   session_id, request_id, timestamp, label, features      <- the only input of the ETL
    RAW/oracle.npz               true probability by timestamp                           <- never a column
    RAW/oracle.json              AUC and NE of the true probabilities, per split
    RAW/spec.json                what was asked for; a directory that has it is finished

The directory is written beside its final name and renamed, so it is whole or absent.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.errors import ConfigError, DataError
from recd_dist.screen.phase_progress import PhaseProgress
from recd_dist.synthetic.draw import I64
from recd_dist.synthetic.labels import HiddenModel, Oracle, score, true_probabilities
from recd_dist.synthetic.spec import SyntheticSpec
from recd_dist.synthetic.values import Columns, Lists
from recd_dist.synthetic.visits import Traffic, traffic
from recd_dist.table.schema import Kind

_log = logging.getLogger(__name__)

VERSION = 1
"""Of the generator: logs of another version are made again."""

_CHUNK_VALUES = 8_000_000
"""Ids held at once (32 MB), which is a row group."""

_FILE_VALUES = 64_000_000
"""Ids in a file."""


def generate(
    spec: SyntheticSpec, out: Path, *, seed: int = 0, split: str | float | None = None, progress: bool = True
) -> Path:
    """Writes the raw logs of a spec, unless they are there already.

    Args:
        spec: what to write.
        out: directory for them; replaced when it holds logs of another spec.
        seed: the logs are a function of it and the spec.
        split: SQL predicate over the columns, true for test samples, for the oracle's scores per split (a share of
            the sessions is no predicate: ``table_oracle`` knows what it came to).
        progress: show a progress bar.

    Returns:
        out.

    Raises:
        DataError: out holds something else, or cannot be written.
        ConfigError: the split names columns that do not exist.
    """
    out, spec = Path(out), replace(spec, seed=seed)
    if not _is_finished(spec, out):
        work = out.with_name(f".{out.name}.{os.getpid()}.partial")
        try:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            with PhaseProgress(progress) as bar:
                bar.start_writing(spec.num_samples)
                _write(spec, work, bar.advance)
            _move_into_place(work, out)
        except OSError as error:
            raise DataError(f"{out}: cannot write synthetic logs ({error}); choose another data.path") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    scores = oracles(out, split if isinstance(split, str) else None)
    _write_json(out / "oracle.json", {name: oracle.to_json() for name, oracle in scores.items()})
    name, best = ("test", scores["test"]) if "test" in scores else ("all", scores["all"])
    _log.info("%s: the best possible AUC on %s samples is %.4f, NE %.4f", out, name, best.auc, best.ne)
    return out


def oracles(raw: Path, split: str | None = None) -> dict[str, Oracle]:
    """What the true probabilities score, per split: ``all``, and ``train`` and ``test`` where a split is given.

    Args:
        raw: directory that ``generate`` wrote.
        split: SQL predicate over the columns, true for test samples.

    Raises:
        ConfigError: the split names columns that do not exist.
    """
    is_test = f"coalesce(({split}), false)" if split else "false"
    query = f"select epoch_us(timestamp) as t, label, {is_test} as is_test from read_parquet(?)"
    try:
        with duckdb.connect() as connection:
            columns = connection.execute(query, [str(raw / "part-*.parquet")]).fetchnumpy()
    except duckdb.Error as error:
        raise ConfigError(f"data.split: not a predicate over the synthetic columns: {split} ({error})") from error
    probability = true_probabilities(raw, np.asarray(columns["t"], np.int64))
    label, test = np.asarray(columns["label"]), np.asarray(columns["is_test"], bool)
    found = {"all": score(probability, label)}
    if split:
        found |= {"train": score(probability[~test], label[~test]), "test": score(probability[test], label[test])}
    return found


def table_oracle(raw: Path, table: Path) -> Oracle:
    """What the true probabilities score on exactly the samples of a clustered table (one split).

    Args:
        raw: directory that ``generate`` wrote.
        table: clustered table made from it, with the columns ``timestamp`` and ``label``.

    Raises:
        DataError: the table was not made from these logs.
    """
    samples = pq.read_table(table / "samples", columns=["timestamp", "label"])
    label = samples["label"].to_numpy()
    return score(true_probabilities(raw, samples["timestamp"].to_numpy()), label)


def _is_finished(spec: SyntheticSpec, out: Path) -> bool:
    """Whether out holds the logs of this spec; refuses to replace what is not ours."""
    marker = out / "spec.json"
    if marker.is_file():
        return bool(marker.read_text() == _marker(spec))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists and holds no synthetic logs; choose another data.path or move it away")
    return False


def _marker(spec: SyntheticSpec) -> str:
    """The contents of ``spec.json``."""
    return json.dumps({"version": VERSION, **asdict(spec)}, indent=1)


def _write(spec: SyntheticSpec, work: Path, done: Callable[[int], None]) -> None:
    """Writes the files of finished logs into an empty directory; the marker last."""
    logs = traffic(spec)
    columns = Columns(spec, logs)
    model = HiddenModel(spec, columns)
    schema = arrow_schema(spec)
    probability = np.empty(len(logs), np.float32)
    writer, num_files, room = None, 0, 0
    chunk = max(1024, _CHUNK_VALUES // max(1, sum(f.length or 1 for _, f in spec.features)))
    try:
        for start in range(0, len(logs), chunk):
            index = np.arange(start, min(start + chunk, len(logs)))
            batch, probability[index] = _chunk(logs, columns, model, index, schema)
            if writer is None or room <= 0:
                if writer is not None:
                    writer.close()
                writer = _writer(work / f"part-{num_files:05d}.parquet", schema)
                num_files, room = num_files + 1, max(1, _FILE_VALUES // _CHUNK_VALUES) * chunk
            writer.write_batch(batch)
            room -= len(index)
            done(len(index))
    finally:
        if writer is not None:
            writer.close()
    np.savez(work / "oracle.npz", timestamp_us=logs.timestamp_us, probability=probability)
    (work / "spec.json").write_text(_marker(spec))
    _log.info("%d samples of %d sessions in %d files", len(logs), logs.session.max() + 1, num_files)


def arrow_schema(spec: SyntheticSpec) -> pa.Schema:
    """Columns of the raw logs: all required, ids int32, labels and dense float32."""
    fields = [("session_id", pa.int64()), ("request_id", pa.int64()), ("timestamp", pa.timestamp("us"))]
    fields.append(("label", pa.float32()))
    for _, feature in spec.features:
        is_list = feature.length is not None
        fields.append((feature.name, pa.list_(pa.field("item", pa.int32(), False)) if is_list else pa.int32()))
    fields += [(name, pa.float32()) for group in spec.groups for name in group.dense]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])


def kinds(spec: SyntheticSpec) -> dict[str, Kind]:
    """Name -> kind of every feature, in column order."""
    found = {f.name: Kind.id if f.length is None else Kind.ids for _, f in spec.features}
    return found | {name: Kind.dense for group in spec.groups for name in group.dense}


def _chunk(
    logs: Traffic, columns: Columns, model: HiddenModel, index: I64, schema: pa.Schema
) -> tuple[pa.RecordBatch, np.ndarray[Any, np.dtype[np.float64]]]:
    """Some samples as an Arrow batch, and their true probabilities float64 [n]."""
    ids = list(columns.ids(index))
    dense = list(columns.dense(index))
    probability = model.probability(index, ids, dense)
    arrays = [pa.array(logs.session[index]), pa.array(logs.request[index])]
    arrays.append(pa.array(logs.timestamp_us[index]).cast(pa.timestamp("us")))
    arrays.append(pa.array(model.labels(index, probability)))
    arrays += _arrays(ids, schema)
    arrays += [pa.array(values) for _, values in dense]
    return pa.RecordBatch.from_arrays(arrays, schema=schema), probability


def _arrays(ids: list[tuple[Any, Lists]], schema: pa.Schema) -> Iterator[pa.Array]:
    """Arrow arrays over the ids' buffers, without a copy of the values."""
    for feature, rows in ids:
        values = pa.array(rows.values)
        if feature.length is None:
            yield values
        else:
            yield pa.ListArray.from_arrays(
                pa.array(rows.offsets.astype(np.int32)), values, type=schema.field(feature.name).type
            )


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A Parquet writer with the settings that suit repeated ids: no dictionary, so zstd sees the repeats."""
    return pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, use_dictionary=False)


def _write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(value, indent=1))
    partial.replace(path)


def _move_into_place(work: Path, out: Path) -> None:
    """Renames a finished directory to its final name; older logs there go first."""
    if out.exists():
        old = out.with_name(f".{out.name}.{os.getpid()}.old")
        out.rename(old)
        shutil.rmtree(old)
    work.rename(out)
