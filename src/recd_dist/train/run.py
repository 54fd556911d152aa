"""What a run does before its first step and after its last: resume, finish."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from recd_dist.checkpoint import checkpoint
from recd_dist.checkpoint.catalog import remove_all
from recd_dist.checkpoint.soundness import require_sound
from recd_dist.checkpoint.stored_tensors import StoredTensors
from recd_dist.direct.stream_form import NAME as STREAM_FORM
from recd_dist.embedding.ids.grown_tables import grow_tables
from recd_dist.embedding.tables import portable_name
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import write_whole
from recd_dist.job.config import to_yaml
from recd_dist.job.days import DAYS_FILE
from recd_dist.job.job import Job
from recd_dist.job.options import TrainConfig
from recd_dist.job.preflight import SUMMARY
from recd_dist.job.run_places import best_of, checkpoints_of
from recd_dist.job.starting_run import KEEP, find_start
from recd_dist.metrics.curves import BOARD_DIRECTORY
from recd_dist.ranks.process_group import Ranks
from recd_dist.table.column import Array
from recd_dist.table.location import Location
from recd_dist.train.evaluation import oracle
from recd_dist.train.saves import Saves
from recd_dist.train.watch import Watch

logger = logging.getLogger(__name__)


def samples_trained(job: Job, position: Mapping[str, Any]) -> int:
    """The number of samples that all ranks have trained since the first step of the run.

    Args:
        job: the job.
        position: position of the reader.
    """
    left = sum(end - start for start, end in position["remaining"])
    return int(position["epoch"]) * job.manifest.num_samples + job.manifest.num_samples - left


def resume(job: Job, ranks: Ranks, model: Any, optimizer: Any) -> dict[str, Any]:
    """Loads the newest checkpoint, or starts the run directory afresh.

    Returns:
        What the checkpoint holds beside the weights; empty for a run that starts.
    """
    run_dir = Path(job.config.run_dir)
    directory = checkpoints_of(job.config)
    if not job.config.resume and ranks.is_first:
        start_afresh(job.config)
    dist.barrier()
    checkpoint.remove_unfinished(directory)
    path = checkpoint.find_sound(directory)
    may_grow = job.config.progressive  # its table grows from day to day
    options: dict[str, Any] = {"schema": job.schema, "rename": portable_name}
    found = checkpoint.load(path, model, optimizer, may_grow=may_grow, **options) if path else None
    if path is None and job.config.run_from is not None:
        other, keeps = find_start(job.config.run_from), job.config.run_from_optimizer == KEEP
        require_sound(other)
        checkpoint.load(other, model, optimizer if keeps else None, new_run=True, may_grow=True, **options)
        _grow_mapped(job, other, model, optimizer if keeps else None)
        if ranks.is_first:
            logger.info("begins with the weights%s of %s", " and optimizer states" if keeps else "", other)
    elif path is not None and may_grow:
        _grow_mapped(job, path, model, optimizer)
    if ranks.is_first:
        # Only after the checkpoint proved to fit: config.yaml tells how to read the checkpoints that are there.
        write_whole(run_dir / "config.yaml", to_yaml(job.config))
        if path:
            logger.info("resuming from %s", path)
    return found.extra if found else {}


def _grow_mapped(job: Job, path: Location, model: Any, optimizer: Any) -> None:
    """Moves the ids of mapped tables that have more rows than in the checkpoint that was loaded; a collective."""
    if not hasattr(model.module, "ids"):
        return
    kept, tensors, stored = model.module.ids.kept, StoredTensors(path), dict[str, dict[str, Array]]()
    for name, ids in kept.items():
        prefix = f"model/ids.{name}."
        if tensors.kinds[f"{prefix}row_ids"][0][0] < ids.zones.num_embeddings:
            names = [n for n in tensors.kinds if n.startswith(prefix)]
            stored[name] = {n.removeprefix(prefix): tensors.read(n).numpy() for n in names}
    if stored:
        grow_tables(model.module, optimizer, kept, stored, job.config.seed)


def start_afresh(config: TrainConfig) -> None:
    """Removes what an earlier run left in its directory and among its checkpoints, and no other files."""
    run_dir = Path(config.run_dir)
    for directory in (checkpoints_of(config), best_of(config)):
        remove_all(directory)
    for name in (BOARD_DIRECTORY, "seen"):
        shutil.rmtree(run_dir / name, ignore_errors=True)
    for name in (SUMMARY, STREAM_FORM, DAYS_FILE):
        (run_dir / name).unlink(missing_ok=True)


def finish(
    job: Job, ranks: Ranks, watch: Watch, step: int, num_samples: int, saves: Saves, results: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes summary.json, the sign that nothing is left to do, once every checkpoint is whole."""
    saves.wait()
    summary = {**watch.summary(step), **saves.costs(watch.train_s), **results}
    if job.evaluation is not None:
        split = job.evaluation.manifest.split
        summary |= {"split": split, **oracle(job, split)}
    summary |= {"samples": num_samples, "steps": step, "checkpoint": str(saves.path), "world_size": ranks.world_size}
    watch.add_results(step, summary)
    if ranks.is_first:
        write_whole(Path(job.config.run_dir) / SUMMARY, json_text(summary) + "\n")
    watch.show_summary(summary)
    return summary
