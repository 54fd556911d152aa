"""Scores of every sample of a split or of an input, with the keys that tell which sample each belongs to.

::

    rank 0   samples [0 .. 5)    model --> scores --.-- keys, as they are stored --> part-000000000000-....parquet
    rank 1           [5 .. 10)   model --> scores --'                                part-000000000005-....parquet

Every sample is scored once, unique rows are computed once, and the files together are in the table's order.
"""

import hashlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recd_dist.errors import ConfigError
from recd_dist.job.config import from_yaml, load
from recd_dist.job.input_of_run import check_input
from recd_dist.job.options import PredictConfig, TrainConfig
from recd_dist.job.score_places import reads_input, require_free, scores_directory
from recd_dist.model.scores import to_scores
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.ranks.quiet import log_to_screen, quiet_libraries
from recd_dist.reader.intervals import Interval
from recd_dist.reader.loader import Loader
from recd_dist.reader.position import fingerprint
from recd_dist.screen.console import console
from recd_dist.screen.phase_progress import PhaseProgress
from recd_dist.table.location import Location
from recd_dist.train.embedding_rows import SIDES
from recd_dist.train.score_directory import ScoreDirectory
from recd_dist.train.score_parts import ScoreParts
from recd_dist.train.scoring import Scoring, check_kept, choose_columns
from recd_dist.train.shared_table import agree_on
from recd_dist.train.trained_run import open_run, open_split, output_of

logger = logging.getLogger(__name__)


def check_prediction(config: PredictConfig, world_size: int) -> None:
    """Refuses, before any rank starts, what cannot be scored or written.

    Args:
        config: names the run, the split or the input, and where the scores shall lie.
        world_size: number of ranks.

    Raises:
        ConfigError, DataError: there is no such run or split, it has fewer samples than there are ranks, its model has
            no vectors, a query is wrong, or scores may not be written there.
    """
    require_free(scores_directory(config), config.overwrite)
    trained: TrainConfig = from_yaml("train", Path(config.run_dir) / "config.yaml")
    check_kept(config, str(trained.model.get("name")))
    if reads_input(config):
        if config.data.table is not None:
            raise ConfigError("data.table: data.path and data.sql name other samples; leave one of them out")
        check_input(config, trained)
        return
    table = open_split(config, trained)
    if (num_samples := table.manifest.num_samples) < world_size:
        raise ConfigError(f"{table.path}: {num_samples} samples for {world_size} ranks, each needs at least one")


def predict_run(config: PredictConfig, ranks: Ranks, progress: bool = False) -> dict[str, Any]:
    """Scores a split of a table, or an input, with a checkpoint of a run; a collective.

    A prediction that was stopped goes on: what is finished of it is not scored again.

    Args:
        config: names the run, the samples, and where the scores shall lie.
        ranks: this rank's place in the job; the default process group is up.
        progress: show a progress bar on stderr.

    Returns:
        Run, step, table, label, columns, number of samples and files, as ``_SUCCESS`` has them.

    Raises:
        ConfigError, DataError: there is no such run, split or column; scores may not be written there; or others were
            begun there.
    """
    check_prediction(config, ranks.world_size)
    directory = ScoreDirectory(scores_directory(config), ranks, config.resume)
    with directory.open():
        run = open_run(config, ranks)
        if (num := run.job.manifest.num_samples) < ranks.world_size:
            raise ConfigError(f"{run.job.table.path}: {num} samples for {ranks.world_size} ranks, each needs one")
        scoring = choose_columns(config, run)
        left = directory.begin(_record(config, scoring), num, ranks.world_size)
        with PhaseProgress(progress and ranks.is_first) as bar:
            score_samples(scoring, ranks, directory, left, config.samples_per_file, bar)
        return directory.finish(_merge(scoring, directory, ranks, _facts(config, scoring)), num)


def _record(config: PredictConfig, scoring: Scoring) -> dict[str, Any]:
    """What a prediction must have in common with one that was stopped, to go on with it."""
    job = scoring.run.job
    return {
        "step": scoring.run.step,
        "checkpoint": scoring.run.checkpoint,
        "samples": fingerprint(job.manifest),
        "data.sql": config.data.sql and hashlib.sha256(config.data.sql.encode()).hexdigest()[:16],
        "columns": scoring.names,
        "tasks": [task.to_json() for task in job.tasks],
        "reader.on_bad_id": job.config.reader.on_bad_id,
        "reader.on_nan": job.config.reader.on_nan,
        "kept": repr(scoring.kept),
    }


def _facts(config: PredictConfig, scoring: Scoring) -> dict[str, Any]:
    """What ``_SUCCESS`` says beside the files."""
    job, data = scoring.run.job, config.data
    table = "data.sql" if data.sql is not None else data.path if data.path is not None else str(job.table.path)
    sql = {"sql": data.sql} if data.sql is not None else {}
    return {
        "run_dir": config.run_dir,
        "step": scoring.run.step,
        "table": table,
        **sql,
        "partitions": data.partitions,
        "columns": scoring.names,
        "tasks": [task.to_json() for task in job.tasks],
        "num_samples": job.manifest.num_samples,
    }


def _merge(scoring: Scoring, directory: ScoreDirectory, ranks: Ranks, facts: dict[str, Any]) -> dict[str, Any]:
    """Leaves what is kept of all samples, where not all are; a collective."""
    kept = scoring.kept
    if kept is None:
        return facts
    directory.wait()
    return {**facts, **agree_on(lambda: kept.merge(directory, int(facts["num_samples"])), ranks)}


def score_samples(
    scoring: Scoring,
    ranks: Ranks,
    directory: ScoreDirectory,
    left: Sequence[Interval],
    samples_per_file: int,
    bar: PhaseProgress,
) -> None:
    """Scores this rank's share of the samples that are left, and writes them in parts; a collective.

    Args:
        scoring: what is written for each sample.
        ranks: this rank's place in the job.
        directory: takes the parts.
        left: the samples that are left, of all ranks.
        samples_per_file: samples of a part, at most.
        bar: shows how many samples of all ranks are scored, as far as this one can tell.
    """
    if not left:
        return
    run, reduce = scoring.run, scoring.kept.reduce if scoring.kept is not None else None
    num_bad = num_scored = num_shown = 0
    num_left = sum(end - start for start, end in left)
    bar.start_scoring(num_left)
    with run.open_batches(ranks, left) as batches:
        tasks = list(batches.tasks())
        num_own = sum(end - start for task in tasks for start, end in task.samples)
        with ScoreParts(directory, scoring.beside, scoring.widths, samples_per_file, reduce) as parts:
            for task, scores in zip(tasks, _scores(scoring, batches, ranks), strict=True):
                parts.add(task.samples, scores)
                num_bad += int(np.isnan(scores[:, : len(run.job.tasks)]).sum())
                num_scored += len(scores)
                shown = num_left * num_scored // num_own
                bar.advance(shown - num_shown)
                num_shown = shown
    if num_bad:
        logger.warning("rank %d: %d of %d scores are nan: did training diverge?", ranks.rank, num_bad, num_own)


def _scores(scoring: Scoring, batches: Loader, ranks: Ranks) -> Iterator[NDArray[np.float32]]:
    """The scores of batch after batch, float32 [B, sum of widths]."""
    run = scoring.run
    for batch in run.ids.known(batches):
        output = output_of(run.model, batch, ranks.device)  # no inference_mode: fbgemm's lookups on CPU know none
        parts = [to_scores(output.logits.float(), run.job.tasks)]
        parts += output.towers.plain() if scoring.vectors and output.towers is not None else ()
        yield (torch.cat(parts, 1) if len(parts) > 1 else parts[0]).float().cpu().numpy()


def report(result: Mapping[str, Any], out: Location) -> str:
    """Says in words for people what was scored and where it lies."""
    files = f"{out}/{result['files'][0]}" if len(result["files"]) == 1 else f"{out}/part-*.parquet"
    words = f"{result['num_samples']:,} samples of {result['table']} scored by step {result['step']}"
    if "top" in result:
        words += f", {result['top']['num_kept']:,} of them kept"
    for side in SIDES:
        if found := result.get(side):
            words += f", vectors of {found['num']:,} {side}"
            if "index" in found:
                shares = ", ".join(f"recall@{k} {share:.4f}" for k, share in found["recall"].items())
                words += f"; index {found['index']} ({out}/{found['file']}): {shares} of exact search"
    return f"{words}: {files}"


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
