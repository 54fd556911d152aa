"""Scores of every sample of a split, with the keys that tell which sample each belongs to.

::

    rank 0   samples [0 .. 5)    model --> scores --.-- keys, as they are stored --> part-00000.parquet
    rank 1           [5 .. 10)   model --> scores --'                                part-00001.parquet

Every sample is scored once, unique rows are computed once, and the files together are in the table's order.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from recd_dist.errors import ConfigError, DataError
from recd_dist.job.config import from_yaml, load
from recd_dist.job.options import PredictConfig, TrainConfig
from recd_dist.model.task import Task
from recd_dist.model.tower_choice import TOWER_MODELS
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.ranks.quiet import log_to_screen, quiet_libraries
from recd_dist.reader.direct_columns import DirectColumns, open_columns
from recd_dist.reader.loader import Loader
from recd_dist.reader.stored_columns import StoredColumns
from recd_dist.screen.console import console
from recd_dist.screen.phase_progress import PhaseProgress
from recd_dist.table.location import Location, location
from recd_dist.table.schema import KEYS
from recd_dist.train.score_directory import ScoreDirectory, require_free
from recd_dist.train.trained_run import TrainedRun, open_run, open_split, output_of

logger = logging.getLogger(__name__)

SCORE = "score"
"""The columns of scores begin with it: ``score_clicked`` is that of the task ``clicked``."""

VECTORS = ("query_vector", "item_vector")
"""The columns of a model with towers that ``vectors=true`` adds; a score is the product of the two."""

_ROW_GROUP = 1 << 17  # samples of a row group of the scores


def scores_directory(config: PredictConfig) -> Location:
    """Where the scores of a config shall lie."""
    return location(config.out) if config.out else Path(config.run_dir) / "scores" / config.split


def check_prediction(config: PredictConfig, world_size: int) -> None:
    """Refuses, before any rank starts, what cannot be scored or written.

    Args:
        config: names the run, the split, and where the scores shall lie.
        world_size: number of ranks.

    Raises:
        ConfigError, DataError: there is no such run or split, it has fewer samples than there are ranks, its model has
            no vectors, or scores may not be written there.
    """
    require_free(scores_directory(config), config.overwrite)
    trained: TrainConfig = from_yaml("train", Path(config.run_dir) / "config.yaml")
    if config.vectors and (model := str(trained.model.get("name"))) not in TOWER_MODELS:
        raise ConfigError(f"vectors=true: model '{model}' of {config.run_dir} has no towers; leave it out")
    table = open_split(config, trained)
    if (num_samples := table.manifest.num_samples) < world_size:
        raise ConfigError(f"{table.path}: {num_samples} samples for {world_size} ranks, each needs at least one")


def predict_run(config: PredictConfig, ranks: Ranks, progress: bool = False) -> dict[str, Any]:
    """Scores a split of a table with the newest checkpoint of a run; a collective.

    Args:
        config: names the run, the split, and where the scores shall lie.
        ranks: this rank's place in the job; the default process group is up.
        progress: show a progress bar on stderr.

    Returns:
        Run, step, table, label, columns, number of samples and files, as ``_SUCCESS`` has them.

    Raises:
        ConfigError, DataError: there is no such run, split or column, or scores may not be written there.
    """
    check_prediction(config, ranks.world_size)
    directory = ScoreDirectory(scores_directory(config), ranks)
    run = open_run(config, ranks)
    labels = dict.fromkeys(task.label for task in run.job.tasks)
    keys = open_columns(run.job.table, (*KEYS, *labels, *config.columns))
    names = [*(f"{SCORE}_{task.name}" for task in run.job.tasks), *(VECTORS if config.vectors else ())]
    for name in names:
        if name in keys.names:
            raise ConfigError(f"columns: '{name}' is the name of scores; leave it out")
    with PhaseProgress(progress and ranks.is_first) as bar, run.open_batches(ranks) as batches:
        start, columns = score_samples(run, ranks, batches, bar, config.vectors)
        with directory.open() as part:
            write_scores(part, keys, dict(zip(names, columns, strict=True)), start)
            facts = {
                "run_dir": config.run_dir,
                "step": run.step,
                "table": str(run.job.table.path),
                "partitions": config.data.partitions,
                "columns": [*keys.names, *names],
                "tasks": [task.to_json() for task in run.job.tasks],
                "num_samples": run.job.manifest.num_samples,
            }
            return directory.finish(part, facts)


def score_samples(
    run: TrainedRun, ranks: Ranks, batches: Loader, bar: PhaseProgress, vectors: bool = False
) -> tuple[int, list[NDArray[np.float32]]]:
    """Scores this rank's samples; a collective.

    Args:
        run: the opened run.
        ranks: this rank's place in the job.
        batches: this rank's batches, not shuffled.
        bar: shows how many samples of all ranks are scored, as far as this one can tell.
        vectors: give the vectors of query and item as well, of a model with towers.

    Returns:
        Where this rank's samples begin in the table's order; and for each task their scores, float32 [samples]: of a
        binary task the probability of label 1, of a regression the number, else the logit; then the vectors, float32
        [samples, D]. With several workers their batches take turns, so that scores are put in their places as they
        come.

    Raises:
        DataError: there is no sample.
    """
    tasks = list(batches.tasks())
    if not tasks:
        raise DataError(f"{run.job.table.path}: holds no samples to score; choose another split=...")
    start, end = min(t.samples[0][0] for t in tasks), max(t.samples[-1][1] for t in tasks)
    width, columns = len(run.job.tasks), np.empty((0, 0), np.float32)
    bar.start_scoring(run.job.manifest.num_samples)
    num_shown = num_scored = 0
    for task, batch in zip(tasks, run.ids.known(batches), strict=True):
        output = output_of(run.model, batch, ranks.device)
        parts = [to_scores(output.logits.float(), run.job.tasks)]
        parts += output.towers.plain() if vectors and output.towers is not None else ()
        found = torch.cat(parts, 1).float().cpu().numpy()
        if not len(columns):
            columns = np.full((end - start, found.shape[1]), np.nan, np.float32)
        for first, last in task.samples:
            columns[first - start : last - start], found = found[: last - first], found[last - first :]
        num_scored += batch.batch_size
        shown = run.job.manifest.num_samples * num_scored // len(columns)
        bar.advance(shown - num_shown)
        num_shown = shown
    if bad := int(np.isnan(scores := columns[:, :width]).sum()):
        logger.warning("rank %d: %d of %d scores are nan: did training diverge?", ranks.rank, bad, scores.size)
    return start, [*scores.T, *(np.split(columns[:, width:], 2, 1) if columns.shape[1] > width else ())]


def to_scores(logits: Tensor, tasks: Sequence[Task]) -> Tensor:
    """The scores of logits, both float32 [B, T]: probabilities, numbers in units of the label, or logits as they are.

    Probabilities are those of a log with all its negatives, also where the training table has kept a share of them.
    """
    columns = []
    for task, column in zip(tasks, logits.unbind(1), strict=True):
        factor, shift = task.scale
        score = column * factor + shift
        columns.append(torch.sigmoid(score) if task.loss == "binary" else score)
    return torch.stack(columns, 1)


def write_scores(
    path: Path, keys: StoredColumns | DirectColumns, scores: Mapping[str, NDArray[np.float32]], start: int
) -> None:
    """Writes a file of samples that follow each other in the table.

    Args:
        path: the file.
        keys: the columns that stand beside the scores.
        scores: the columns by name, float32 [samples], or [samples, D] for vectors.
        start: where the samples begin in the table's order.
    """
    waiting: list[pa.Table] = []
    writer: pq.ParquetWriter | None = None
    done, end = start, start + len(next(iter(scores.values())))
    try:
        for rows in keys.read(start, end):
            for name, column in scores.items():
                chosen = to_arrow(column[done - start : done - start + len(rows)])
                rows = rows.append_column(name, chosen)  # noqa: PLW2901
            waiting.append(rows)
            done += len(rows)
            if done == end or sum(map(len, waiting)) >= _ROW_GROUP:
                table = pa.concat_tables(waiting)
                writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
                writer.write_table(table)
                waiting = []
    finally:
        if writer is not None:
            writer.close()


def to_arrow(numbers: NDArray[np.float32]) -> pa.Array:
    """A column of numbers, or of vectors as lists of one length.

    Args:
        numbers: float32 [samples] or [samples, D].
    """
    if numbers.ndim == 1:
        return pa.array(np.ascontiguousarray(numbers))
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), numbers.shape[1])


def report(result: dict[str, Any], out: Location) -> str:
    """Says in words for people what was scored and where it lies."""
    files = f"{out}/{result['files'][0]}" if len(result["files"]) == 1 else f"{out}/part-*.parquet"
    return f"{result['num_samples']:,} samples of {result['table']} scored by step {result['step']}: {files}"


def main(overrides: Sequence[str] | None = None) -> None:
    """One rank of a prediction.

    Args:
        overrides: overrides of configs/predict.yaml; the command-line arguments of the process by default.
    """
    config: PredictConfig = load("predict", sys.argv[1:] if overrides is None else overrides)
    log_to_screen()
    quiet_libraries()
    with process_group(config.device) as ranks:
        result = predict_run(config, ranks, progress=sys.stderr.isatty())
        if ranks.is_first:
            console(sys.stdout).print(report(result, scores_directory(config)), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
