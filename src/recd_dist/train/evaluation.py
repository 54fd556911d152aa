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

from recd_dist.job.check_evaluation import check_lengths
from recd_dist.job.check_tasks import check_measured
from recd_dist.job.config import from_yaml, load
from recd_dist.job.days import days_of
from recd_dist.job.job import Job, resolve
from recd_dist.job.options import EvaluateConfig, EvaluatedData, TrainConfig
from recd_dist.job.run_places import newest_readable
from recd_dist.metrics.gather import gather_on_first_rank
from recd_dist.metrics.quality import measure_task
from recd_dist.model.loss import TaskLosses
from recd_dist.ranks import progress
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.screen.command_line import override
from recd_dist.screen.console import console
from recd_dist.screen.numbers import figure
from recd_dist.tensors.batch import Batch
from recd_dist.train import build
from recd_dist.train.found_items import Retrieval, retrieval_of
from recd_dist.train.mapped_ids import SUMMARY as IDS
from recd_dist.train.seen_records import EpochCount, count_trained
from recd_dist.train.trained_run import open_run, output_of


def quality_of(
    model: nn.Module,
    batches: Iterable[Batch],
    losses: TaskLosses,
    device: torch.device,
    retrieval: Retrieval | None = None,
) -> dict[str, Any] | None:
    """Exact quality over the batches of all ranks; a collective.

    Args:
        model: a TrainModel, sharded or not; it is left in the mode in which it was.
        batches: the batches of this rank; every rank has the same number of them.
        losses: say which tasks the logits are of, and where their labels and the weights stand in the batches.
        device: the device on which the model computes.
        retrieval: measures how well items are found, of a model with towers; it has seen no batch.

    Returns:
        On rank 0 the numbers of the first task by name, with those of every task under ``tasks`` where there are
        several; None on the others.
    """
    was_training = model.training
    model.eval()
    columns: dict[str, list[torch.Tensor]] = {
        "requests": [torch.empty(0, device=device).long()]
    }  # a split may be empty
    for name in ("logits", "labels"):
        columns |= {f"{name}/{task.name}": [torch.empty(0, device=device)] for task in losses.tasks}
    if losses.weight is not None:
        columns["weights"] = [torch.empty(0, device=device)]
    for batch in progress.reading(iter(batches)):
        output, labels = output_of(model, batch, device), losses.labels_of(batch.labels.to(device)).float()
        logits = output.logits.float()
        if retrieval is not None:
            retrieval.add(batch, output)
        for number, task in enumerate(losses.tasks):
            columns[f"logits/{task.name}"].append(logits[:, number])
            columns[f"labels/{task.name}"].append(labels[:, number])
        if losses.weight is not None:
            columns["weights"].append(batch.labels[:, losses.weight].to(device).float())
        columns["requests"].append(batch.request_ids.to(device))
    model.train(was_training)
    found = None if retrieval is None else retrieval.finish()
    gathered: dict[str, Any] | None = gather_on_first_rank({name: torch.cat(of) for name, of in columns.items()})
    if gathered is None:
        return None
    numbers = {}
    for task in losses.tasks:
        logits, labels = (gathered[f"{name}/{task.name}"] for name in ("logits", "labels"))
        numbers[task.name] = measure_task(
            task.loss, logits, labels, gathered["requests"], gathered.get("weights"), task.scale
        )
        numbers[task.name] = {**(found or {}).get(task.name, {}), **numbers[task.name]}
    first = numbers[losses.tasks[0].name]
    return {**first, "tasks": numbers} if len(numbers) > 1 else first


def evaluate_run(config: EvaluateConfig, ranks: Ranks) -> dict[str, Any]:
    """Loads the newest checkpoint of a run and evaluates it; table sizes and transforms are those of the run.

    Args:
        config: the config, which names the run and the split, perhaps with another table, partitions or label.
        ranks: this rank's place in the job; the default process group is up.

    Returns:
        Quality, run, step, table; with ``oracle_auc`` and ``oracle_ne`` for a synthetic source, and with ``ids`` for
        mapped tables.

    Raises:
        ConfigError, DataError: there is no such run, split or checkpoint.
    """
    if config.top is not None:
        check_lengths("top", config.top)
    run = open_run(config, ranks)
    check_measured(run.job.table, run.job.tasks, run.job.weight)
    with run.open_batches(ranks) as batches:
        top = config.top or run.job.config.evaluate.top
        measures = build.build_losses(run.job), ranks.device, retrieval_of(run.job, top)
        quality = quality_of(run.model, run.ids.known(batches), *measures)
        unknown = run.ids.summary()
    result = {"run_dir": config.run_dir, "step": run.step, "table": str(run.job.table.path)}
    chosen = {name: value for name in ("label", "partitions") if (value := getattr(config.data, name)) is not None}
    is_own = config.data == EvaluatedData()  # of other tables, partitions and labels no oracle knows
    best = oracle(run.job, config.split) if is_own else {}
    return {**result, **chosen, **(quality or {}), **best, **unknown}


def count_seen(run_dir: Path) -> list[EpochCount]:
    """How often each sample of the training table was trained, epoch by epoch, across kills and resumes.

    Raises:
        ConfigError, DataError: there is no such run, or it has recorded no samples.
    """
    trained: TrainConfig = from_yaml("train", run_dir / "config.yaml")
    if trained.reader.follow:
        return count_trained(run_dir, _num_of_stream(trained), is_stream=True)
    parts = resolve(trained).manifest.parts
    if trained.progressive:
        found = newest_readable(trained)
        own = {day.name for day in days_of(found.extra)} if found else set()
        parts = tuple(part for part in parts if part.partition in own)
    return count_trained(run_dir, [(part.first_sample, part.first_sample + part.num_samples) for part in parts])


def _num_of_stream(trained: TrainConfig) -> int:
    """Samples of all parts that a run has taken from a stream, by its newest checkpoint."""
    found = newest_readable(trained)
    parts = found.extra["reader"]["stream"]["parts"] if found else []
    return sum(int(part["num_rows"]) for part in parts)


def oracle(job: Job, split: str) -> dict[str, float]:
    """The quality that the best possible model reaches; only synthetic logs know it (oracle.json)."""
    path = Path(str(job.config.data.path or "")) / "oracle.json"
    data = job.config.data
    knows_label = data.label in (None, *data.labels[:1])
    if data.source == "sql" or not knows_label or not path.is_file():
        return {}
    known = json.loads(path.read_text()).get(split, {})
    return {f"oracle_{name}": known[name] for name in ("auc", "ne") if name in known}


def judge_ne(ne: float) -> str:
    """Says beside a normalised entropy that the model is of no use; empty for a useful one."""
    return " > 1: worse than the base rate" if ne > 1 else ""


_SHOWN = {
    "auc": "AUC",
    "auc_per_request": "AUC per request",
    "gauc": "AUC per request, by samples",
    "ndcg": "NDCG per request",
    "ne": "NE",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "r2": "R2",
    "calibration": "calibration",
    "loss": "loss",
    "base_rate": "base rate",
    "mean_label": "mean label",
    "num_positives": "positives looked for",
    "num_items": "among items",
    "num_samples": "samples",
}
"""What an evaluation shows, in this order, with words for it."""


def report(result: dict[str, Any]) -> Table:
    """Formats the result as a table for people."""
    title = Text(f"{result['run_dir']}, step {result['step']}, on {result['table']}", no_wrap=True, overflow="ignore")
    for name in ("label", "partitions"):
        if name in result:
            title.append(f", {override(('data', name), result[name])}")
    table = Table(title=title, title_justify="left")
    table.add_column("")
    of_tasks: dict[str, Any] = result.get("tasks") or {"model": result}
    for name in of_tasks:
        table.add_column(name, justify="right")
    has_oracle = "oracle_auc" in result
    if has_oracle:
        table.add_column("oracle", justify="right")
    of_lists = sorted({name for numbers in of_tasks.values() for name in numbers if "@" in name}, key=_by_length)
    names = {**{name: name for name in of_lists}, **_SHOWN, "ne": f"NE{judge_ne(result.get('ne', float('nan')))}"}
    if all("ne" in numbers for numbers in of_tasks.values()):
        names["loss"] = "log loss"
    for key, label in names.items():
        if any(key in numbers for numbers in of_tasks.values()):
            best = [f"{result[f'oracle_{key}']:.4f}" if f"oracle_{key}" in result else ""] if has_oracle else []
            table.add_row(label, *(_shown(numbers.get(key)) for numbers in of_tasks.values()), *best)
    for name, numbers in result.get(IDS, {}).items():
        table.add_row(f"unknown ids, {name}", f"{numbers['unknown_share_evaluated']:.1%}")
    return table


def _by_length(name: str) -> tuple[bool, int]:
    number, _, length = name.partition("@")
    return number != "recall", int(length)  # recall before ndcg


def _shown(value: float | None) -> str:
    """A number as people read it; empty where a task has none of that name."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else figure(value)


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
