"""Quality of a trained run on a split of its table, exact over all predictions."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from torch import nn

from recd_dist.job.config import from_yaml, load
from recd_dist.job.job import Job, resolve
from recd_dist.job.options import EvaluateConfig, EvaluatedData, TrainConfig
from recd_dist.metrics.gather import gather_on_first_rank
from recd_dist.metrics.quality import Quality, measure_quality
from recd_dist.ranks import progress
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.screen.command_line import override
from recd_dist.screen.console import console
from recd_dist.screen.numbers import figure
from recd_dist.tensors.batch import Batch
from recd_dist.train.seen_records import EpochCount, count_trained
from recd_dist.train.trained_run import logits_of, open_run


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
    none = torch.empty(0, device=device)
    rows: list[tuple[torch.Tensor, ...]] = [(none, none, none.long())]  # a split may be empty
    for batch in progress.reading(iter(batches)):
        columns = batch.labels[:, 0].float(), batch.request_ids
        rows.append((logits_of(model, batch, device)[:, 0], *(column.to(device) for column in columns)))
    model.train(was_training)
    logits, labels, requests = (torch.cat(column) for column in zip(*rows, strict=True))
    gathered = gather_on_first_rank({"logits": logits, "labels": labels, "requests": requests})
    if gathered is None:
        return None
    return measure_quality(gathered["logits"], gathered["labels"], gathered["requests"])


def evaluate_run(config: EvaluateConfig, ranks: Ranks) -> dict[str, Any]:
    """Loads the newest checkpoint of a run and evaluates it; table sizes and transforms are those of the run.

    Args:
        config: the config, which names the run and the split, perhaps with another table, partitions or label.
        ranks: this rank's place in the job; the default process group is up.

    Returns:
        Quality, run, step, table; with ``oracle_auc`` and ``oracle_ne`` for a synthetic source.

    Raises:
        ConfigError, DataError: there is no such run, split or checkpoint.
    """
    run = open_run(config, ranks)
    with run.open_batches(ranks) as batches:
        quality = quality_of(run.model, batches, ranks.device)
    result = {"run_dir": config.run_dir, "step": run.step, "table": str(run.job.table.path)}
    chosen = {name: value for name in ("label", "partitions") if (value := getattr(config.data, name)) is not None}
    is_own = config.data == EvaluatedData()  # of other tables, partitions and labels no oracle knows
    best = oracle(run.job, config.split) if is_own else {}
    return {**result, **chosen, **(quality.to_json() if quality else {}), **best}


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


def judge_ne(ne: float) -> str:
    """Says beside a normalised entropy that the model is of no use; empty for a useful one."""
    return " > 1: worse than the base rate" if ne > 1 else ""


def report(result: dict[str, Any]) -> Table:
    """Formats the result as a table for people."""
    title = Text(f"{result['run_dir']}, step {result['step']}, on {result['table']}", no_wrap=True, overflow="ignore")
    for name in ("label", "partitions"):
        if name in result:
            title.append(f", {override(('data', name), result[name])}")
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("model", justify="right")
    has_oracle = "oracle_auc" in result
    if has_oracle:
        table.add_column("oracle", justify="right")
    names = {
        "auc": "AUC",
        "auc_per_request": "AUC per request",
        "ne": f"NE{judge_ne(result.get('ne', float('nan')))}",
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
