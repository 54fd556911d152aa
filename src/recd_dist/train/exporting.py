"""Exports a trained run: a directory that scores requests without the run, its table, its trainer and torchrec.

::

    checkpoint --tables, one at a time--> fp32 | fp16 | int8 --.
               --dense layers----------------------------------+--> .out.partial --checked--> out
    split      --first samples as requests, scores of the run--'      scores of the export against the run's
"""

import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recd_dist.checkpoint.stored_tensors import StoredTensors
from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.exported.delta import INDEX, changed_rows, open_rows
from recd_dist.exported.dense_layers import build_layers
from recd_dist.exported.dense_program import ProgramInputs, write_program
from recd_dist.exported.description import (
    DENSE,
    IDS,
    PRECISIONS,
    REQUEST,
    TABLES,
    Base,
    Description,
    File,
    describe_files,
    read_description,
)
from recd_dist.exported.exported_model import ExportedModel
from recd_dist.exported.row_precision import quantise
from recd_dist.exported.row_stack import SCALE, RowStack
from recd_dist.exported.tensor_files import save_tensors
from recd_dist.files.json_text import json_text
from recd_dist.job.options import ExportConfig
from recd_dist.job.run_records import read_run
from recd_dist.metrics.quality import auc
from recd_dist.model.models import id_features, sequence_features
from recd_dist.model.scores import to_scores
from recd_dist.model.task import Task
from recd_dist.ranks.process_group import Ranks
from recd_dist.table.schema import Schema
from recd_dist.train.export_directory import new_directory, require_free
from recd_dist.train.requests_of_samples import SampledRequest, sample_requests
from recd_dist.train.trained_run import TrainedRun, logits_of, open_run

_TABLE, _LAYERS, _AVERAGES = "model/embeddings.tables.{}.weight", "model/head.model.", "model/head.averaged."

TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.1}
"""How far a score may be from the run's: sums are made in another order, and rows are rounded."""

CANDIDATES = 200
"""The most candidates of a request that is made of samples."""


def check_export(config: ExportConfig) -> Path:
    """Refuses, before anything is opened, what cannot be written.

    Returns:
        The directory to write.

    Raises:
        ConfigError: the message names the option.
    """
    if config.rows not in PRECISIONS:
        raise ConfigError(f"rows={config.rows}: unknown{nearest(config.rows, PRECISIONS)}")
    out = Path(os.path.abspath(config.out or Path(config.run_dir) / "export"))
    if "://" in (config.out or ""):
        raise ConfigError(f"out={config.out}: exports are local, since they are mapped into memory; copy it afterwards")
    require_free(out, config.overwrite, None if config.base is None else Path(config.base))
    return out


def export_run(config: ExportConfig, ranks: Ranks) -> dict[str, Any]:
    """Exports a checkpoint of a run on one process.

    Args:
        config: names the run and what to write.
        ranks: one rank.

    Returns:
        What was written, for people and scripts: directory, version, bytes by file, how far scores are from the run's.

    Raises:
        ConfigError, DataError: there is no such run; or the scores of the export are not those of the run, and nothing
            is written.
    """
    out = check_export(config)
    run = open_run(config, ranks)
    with new_directory(out) as work:
        description = _write_files(config, run, work, out)
        description.write(work)
        metrics = _check(config, run, ranks, work)
        description = replace(description, metrics={**description.metrics, **metrics}, files=describe_files(work))
        description.write(work)
    changed = {} if description.base is None else {"changed": dict(description.base.changed)}
    files = {name: file.num_bytes for name, file in description.files.items()}
    return {"out": str(out), "version": description.version, "step": run.step, "files": files, **metrics, **changed}


def _write_files(config: ExportConfig, run: TrainedRun, work: Path, out: Path) -> Description:
    """Writes tables and dense layers; and describes them."""
    stored = StoredTensors(run.path)
    base = None if config.base is None else Path(os.path.realpath(config.base))
    schema, job, model = run.job.schema, run.job, dict(run.job.config.model)
    description = Description(
        name=config.name or Path(config.run_dir).resolve().name,
        step=run.step,
        version="",
        model=model,
        schema=schema,
        sequences=tuple(f for f in sequence_features(str(model["name"]), schema, model)),
        ids=(),  # the layers tell
        unused=id_features(str(model["name"]), schema, model),
        stored=stored_features(schema, job.table.manifest.schema),
        tables=job.tables,
        precision=config.rows,
        tasks=job.tasks,
        transforms=job.transforms.to_json(),
        on_bad_id=job.config.reader.on_bad_id,
        on_nan=job.config.reader.on_nan,
        metrics=dict(read_run(Path(config.run_dir)).numbers),
        versions={name: version(name) for name in ("recd-dist", "torch")} | {"python": platform.python_version()},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    layers = build_layers(description)
    description = replace(description, ids=tuple(getattr(layers, "ids", ())))
    changed = _write_tables(description, stored, work, base)
    if base is not None:
        before = read_description(base)
        description = replace(
            description, base=Base(os.path.relpath(base, os.path.realpath(out)), before.version, changed)
        )
    prefix = _AVERAGES if any(name.startswith(_AVERAGES) for name in stored.kinds) else _LAYERS
    weights = {name: stored.read(prefix + name) for name in layers.state_dict()}
    save_tensors(weights, work / DENSE)
    files = describe_files(work)
    return replace(description, files=files, version=_version_of(description, files))


def _version_of(description: Description, files: Mapping[str, File]) -> str:
    told = torch.tensor([file.crc32 for _, file in sorted(files.items())], dtype=torch.int64)
    return f"{description.step}-{int(told.sum()) & 0xFFFFFFFF:08x}"


def stored_features(schema: Schema, table: Schema) -> Schema:
    """The features of a table that a model reads, in the groups of the table.

    Args:
        schema: the features of the model.
        table: those of the table.
    """
    wanted = {name for f in schema.features for name in (f.made_from or (f.name,))}
    weights = {f.name: f.weights for f in schema.features}
    kept = [replace(f, weights=weights.get(f.name)) for f in table.features if f.name in wanted]
    return Schema(tuple(kept), table.labels)


def _write_tables(description: Description, stored: StoredTensors, work: Path, base: Path | None) -> dict[str, int]:
    """Writes the rows of tables, or those that are other than in the export before; and says how many of each."""
    before: RowStack | None = None
    if base is not None:
        found = read_description(base)
        if found.precision != description.precision:
            raise ConfigError(
                f"rows={description.precision}: base={base} has {found.precision}; write rows={found.precision}"
            )
        before = open_rows(base, found)
    tensors, ids, changed = dict[str, Tensor](), dict[str, Tensor](), dict[str, int]()
    for name, table in description.tables.items():
        if (weight := _TABLE.format(name)) not in stored.kinds:
            continue  # of features that the model takes as ids, or not at all
        rows, scales = _round(stored.read(weight), description.precision)
        if before is not None:
            index = changed_rows(before, name, rows, scales)
            rows, scales = rows[index], None if scales is None else scales[index]
            tensors[f"{name}{INDEX}"] = index
        changed[name] = len(rows)
        tensors[name] = rows
        if scales is not None:
            tensors[f"{name}{SCALE}"] = scales
        if table.mapped is not None:
            ids |= {f"{name}.{part}": stored.read(f"model/ids.{name}.{part}") for part in ("row_ids", "row_seen")}
    save_tensors(tensors, work / TABLES)
    if ids:
        save_tensors(ids, work / IDS)
    return changed


def _round(rows: Tensor, precision: str) -> tuple[Tensor, Tensor | None]:
    """Rows as they are written, and their scales."""
    if precision == "int8":
        return quantise(rows)
    return (rows.half() if precision == "fp16" else rows), None


@dataclass(frozen=True)
class _Checked:
    """Scores of the first samples of a split, by the run and by the export.

    Attributes:
        run, export: float32 [samples, T].
        labels: float32 [samples, T]; nan where one is missing.
        example: one of the requests, with its scores by the export.
    """

    run: NDArray[np.float32]
    export: NDArray[np.float32]
    labels: NDArray[np.float32]
    example: tuple[SampledRequest, NDArray[np.float32]]

    @property
    def largest_difference(self) -> float:
        """The largest difference of two scores, in units of the largest score where that is above 1; nan for nan."""
        return float(np.abs(self.run - self.export).max() / max(1.0, float(np.abs(self.run).max())))

    def aucs(self, tasks: Sequence[Task]) -> dict[str, dict[str, float]]:
        """For each binary task the AUC of run and export on these samples, where both labels occur."""
        found = {}
        for number, task in enumerate(tasks):
            known = np.isfinite(labels := self.labels[:, number])
            of = {
                side: auc(scores[known, number], labels[known])
                for side, scores in (("run", self.run), ("export", self.export))
            }
            if task.loss == "binary" and not any(map(math.isnan, of.values())):
                found[task.name] = of
        return found


def _check(config: ExportConfig, run: TrainedRun, ranks: Ranks, work: Path) -> dict[str, Any]:
    """Compares scores of the export with those of the run; writes an example and the program.

    Raises:
        DataError: they are further apart than ``TOLERANCES`` allows.
    """
    model = ExportedModel.load(work)
    checked = _compare(run, ranks, model, config.check_samples)
    request, scores = checked.example
    names = [task.name for task in run.job.tasks]
    example = {"user": request.user, "candidates": request.candidates}
    of_tasks = {name: column.tolist() for name, column in zip(names, scores.T, strict=True)}
    (work / REQUEST).write_text(json_text({"request": example, "scores": of_tasks}) + "\n")
    batch = model.batch([model.read(request.user, request.candidates)])
    dense = {group: batch.dense_of(group) for group in batch.dense}
    given = ProgramInputs(model.description).of(model.embed(batch), dense)
    no_program = write_program(work, model.description, model.layers, given)
    gap = checked.largest_difference
    tolerance = TOLERANCES[config.rows]
    if not gap <= tolerance:  # nan, too
        raise DataError(
            f"export of {config.run_dir}: its scores of {len(checked.run):,} samples are up to {gap:.3g} from the "
            f"run's, {tolerance:g} are allowed for rows={config.rows}; nothing was written, please report this"
        )
    why = {} if no_program is None else {"no_program": no_program}
    aucs = checked.aucs(run.job.tasks)
    return {"checked_samples": len(checked.run), "largest_difference": gap, "tolerance": tolerance, "auc": aucs, **why}


def _compare(run: TrainedRun, ranks: Ranks, model: ExportedModel, num_samples: int) -> _Checked:
    """Scores the first samples of the split in both ways."""
    wanted = min(max(num_samples, 1), run.job.manifest.num_samples)
    requests = _take(sample_requests(run.job.table, model.description.stored, CANDIDATES), wanted)
    size = requests[-1].end
    by_run, labels = list[NDArray[np.float32]](), list[NDArray[np.float32]]()
    columns = [run.job.schema.labels.index(task.label) for task in run.job.tasks]
    with run.open_batches(ranks) as batches, _in_full_precision(run.model):
        for batch in run.ids.known(batches):
            by_run.append(to_scores(logits_of(run.model, batch, ranks.device), run.job.tasks).cpu().numpy())
            labels.append(batch.labels[:, columns].numpy())
            if sum(map(len, by_run)) >= size:
                break
    by_export = list[NDArray[np.float32]]()
    for first in range(0, len(requests), 16):
        read = [model.read(r.user, r.candidates, r.end - r.start) for r in requests[first : first + 16]]
        by_export += model.score(read)
    example = max(range(min(len(requests), 64)), key=lambda n: min(requests[n].end - requests[n].start, 8))
    run_scores, known = np.concatenate(by_run)[:size], np.concatenate(labels)[:size]
    return _Checked(run_scores, np.concatenate(by_export), known, (requests[example], by_export[example]))


@contextmanager
def _in_full_precision(model: nn.Module) -> Iterator[None]:
    """Lets the dense layers of a run compute in float32, as those of an export do."""
    head: Any = getattr(model, "module", model).head
    computation = head.computation
    head.computation = replace(computation, precision="fp32")
    try:
        yield
    finally:
        head.computation = computation


def _take(requests: Iterator[SampledRequest], num_samples: int) -> list[SampledRequest]:
    taken = list[SampledRequest]()
    for request in requests:
        taken.append(request)
        if request.end >= num_samples:
            break
    return taken
