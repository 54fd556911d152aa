"""Quality of a trained run on a split of its table, exact over all predictions."""

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn

from recd_dist.checkpoint import checkpoint
from recd_dist.embedding.distribute import shard
from recd_dist.embedding.tables import portable_name
from recd_dist.errors import ConfigError, nearest
from recd_dist.job.config import from_yaml, load
from recd_dist.job.job import Job, resolve
from recd_dist.job.options import EvaluateConfig, TrainConfig
from recd_dist.metrics.gather import gather_on_first_rank
from recd_dist.metrics.quality import Quality, measure_quality
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.world import World
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.reader.transform import Transforms
from recd_dist.screen.console import console
from recd_dist.screen.numbers import figure
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.location import location
from recd_dist.table.manifest import is_table, splits_of
from recd_dist.tensors.batch import Batch
from recd_dist.train import build, planning
from recd_dist.train.seen_records import EpochCount, count_trained


def quality_of(model: nn.Module, batches: Iterable[Batch], device: torch.device) -> Quality | None:
    """Exact quality over the batches of all ranks; a collective.

    Args:
        model: a TrainModel, sharded or not; it is left in the mode in which it was.
        batches: the batches of this rank; every rank has the same number of them.
        device: the device on which the model computes.

    Returns:
        The numbers on rank 0, None on the others.
    """
    was_training = model.training
    model.eval()
    rows: list[tuple[torch.Tensor, ...]] = []
    with torch.no_grad():
        for read in batches:
            _, (_, logits, batch) = model(read.to(device))
            rows.append((logits.float(), batch.labels[:, 0].float(), batch.request_ids))
    model.train(was_training)
    logits, labels, requests = (torch.cat(column) for column in zip(*rows, strict=True))
    gathered = gather_on_first_rank({"logits": logits, "labels": labels, "requests": requests})
    if gathered is None:
        return None
    return measure_quality(gathered["logits"], gathered["labels"], gathered["requests"])


def evaluate_run(config: EvaluateConfig, ranks: Ranks) -> dict[str, Any]:
    """Loads the newest checkpoint of a run and evaluates it; table sizes and transforms are those of the run.

    Args:
        config: the config, which names the run and the split.
        ranks: this rank's place in the job; the default process group is up.

    Returns:
        Quality, run, step, table; with ``oracle_auc`` and ``oracle_ne`` for a synthetic source.

    Raises:
        ConfigError, DataError: there is no such run, split or checkpoint.
    """
    for name, value, least in (("batch_size", config.batch_size, 1), ("num_workers", config.num_workers, 0)):
        if value is not None and value < least:
            raise ConfigError(f"{name}={value}: must be at least {least}")
    run_dir = Path(config.run_dir)
    trained: TrainConfig = from_yaml("train", run_dir / "config.yaml")
    path = checkpoint.find_newest(run_dir / "checkpoints")
    if path is None:
        raise ConfigError(f"{run_dir}: no checkpoint in it; train first: `recd train ... run_dir={run_dir}`")
    reader = replace(trained.reader, num_workers=config.num_workers)
    job = resolve(replace(trained, batch_size=config.batch_size or trained.batch_size, reader=reader))
    table = job.load_table(location(config.table)) if config.table else table_of(job, config.split)
    require_same_features(job, table)
    with build.seeded(job):  # the weights drawn here give way to the checkpoint's
        model = build.build_model(job, job.dedup)
    wanted = planning.wanted_sharding(job, with_places=False)  # other ranks than in training, perhaps
    plan = place_tables(model.embeddings, World.of_one_host(ranks.world_size, ranks.device.type), wanted)
    parallel = shard(model, plan, ranks)
    found = checkpoint.load(path, parallel, None, job.schema, rename=portable_name)
    transforms = Transforms.parse(job.schema, found.extra["transforms"])
    with closing(build.build_loader(job, ranks, transforms, table=table, shuffle=False)) as batches:
        quality = quality_of(parallel, batches, ranks.device)
    result = {"run_dir": str(run_dir), "step": found.step, "table": str(table.path)}
    return {**result, **(quality.to_json() if quality else {}), **oracle(job, table.path.name)}


def table_of(job: Job, split: str) -> ClusteredTable:
    """Another split of the job's table.

    Raises:
        ConfigError: there is no such split.
    """
    root = job.table.path.parent
    if not is_table(root / split):
        raise ConfigError(f"split={split}: the table {root} has no such split{nearest(split, splits_of(root))}")
    return job.load_table(root / split)


def require_same_features(job: Job, table: ClusteredTable) -> None:
    """Refuses to evaluate on a table that lacks what the model reads.

    Raises:
        ConfigError: the message names the feature.
    """
    known = {f.name: f for f in table.manifest.schema.features}
    for feature in job.schema.features:
        there = known.get(feature.name)
        wanted = feature.kind, feature.home, feature.table  # an expanded group is one of its own in the table
        fits = there is not None and wanted == (there.kind, there.group, there.table)
        if there is None or not fits or feature.weights not in (None, there.weights):
            weights = f", weights '{feature.weights}'" if feature.weights else ""
            raise ConfigError(
                f"table={table.path}: the model was trained on feature '{feature.name}' ({feature.kind}, group "
                f"'{feature.home}'{weights}), the table has {known.get(feature.name, 'none of that name')}; "
                "make it by the same ETL"
            )


def count_seen(run_dir: Path) -> list[EpochCount]:
    """How often each sample of the training table was trained, epoch by epoch, across kills and resumes.

    Raises:
        ConfigError, DataError: there is no such run, or it has recorded no samples.
    """
    trained: TrainConfig = from_yaml("train", run_dir / "config.yaml")
    parts = resolve(trained).manifest.parts
    return count_trained(run_dir, [(part.first_sample, part.first_sample + part.num_samples) for part in parts])


def oracle(job: Job, split: str) -> dict[str, float]:
    """The quality that the best possible model reaches; only synthetic logs know it (oracle.json)."""
    path = Path(str(job.config.data.path or "")) / "oracle.json"
    if job.config.data.source != "synthetic" or not path.is_file():
        return {}
    known = json.loads(path.read_text()).get(split, {})
    return {f"oracle_{name}": known[name] for name in ("auc", "ne") if name in known}


def report(result: dict[str, Any]) -> Table:
    """Formats the result as a table for people."""
    table = Table(title=f"{result['run_dir']}, step {result['step']}, on {result['table']}", title_justify="left")
    table.add_column("")
    table.add_column("model", justify="right")
    has_oracle = "oracle_auc" in result
    if has_oracle:
        table.add_column("oracle", justify="right")
    names = {
        "auc": "AUC",
        "auc_per_request": "AUC per request",
        "ne": "NE (1 = no better than the base rate)",
        "calibration": "calibration",
        "loss": "log loss",
        "base_rate": "base rate",
        "num_samples": "samples",
    }
    for key, label in names.items():
        value = result.get(key, float("nan"))
        shown = f"{value:,}" if isinstance(value, int) else figure(value)
        best = f"{result[f'oracle_{key}']:.4f}" if f"oracle_{key}" in result else ""
        table.add_row(label, shown, *([best] if has_oracle else []))
    return table


def main(overrides: Sequence[str] | None = None) -> None:
    """One rank of an evaluation.

    Args:
        overrides: overrides of configs/evaluate.yaml; the command-line arguments of the process by default.
    """
    config: EvaluateConfig = load("evaluate", sys.argv[1:] if overrides is None else overrides)
    with process_group(config.device) as ranks:
        result = evaluate_run(config, ranks)
        if ranks.is_first:
            console(sys.stdout).print(report(result))
