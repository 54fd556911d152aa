"""The summary of a run as a table for people."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from recd_dist.job.days import MEAN
from recd_dist.metrics.imbalance import UNEVEN, find_worst
from recd_dist.screen.command_line import command_line
from recd_dist.screen.numbers import figure
from recd_dist.train.counting import rise_text
from recd_dist.train.evaluation import judge_ne
from recd_dist.train.mapped_ids import SUMMARY as IDS


def render(summary: Mapping[str, Any]) -> Table:
    """Formats a summary as a table for people.

    Args:
        summary: the content of summary.json, with nan where it has null.
    """
    table = Table(title="Trained", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    steps, world_size = summary["steps"], summary["world_size"]
    table.add_row("samples", f"{summary['samples']:,} in {steps:,} steps on {world_size} rank{'s'[: world_size > 1]}")
    table.add_row("speed", f"{summary['samples_per_s']:,.0f} samples/s")
    _add_quality(table, summary)
    if means := {name.removeprefix(MEAN): value for name, value in summary.items() if name.startswith(MEAN)}:
        table.add_row("days before training", f"{_numbers_text(means)}: the mean")
    if found := summary.get("best"):
        early = "; ended early" if summary.get("ended_early") else ""
        task, _, number = found["by"].rpartition(".")
        of_task = found["tasks"][task] if task and "tasks" in found else found
        if "ne" in of_task:
            value = f"NE {figure(of_task['ne'])}, AUC {figure(of_task['auc'])}"
        else:
            value = figure(of_task[number])
        shown = f"step {found['step']:,}: {value}{early}"
        table.add_row(f"best {found['by']}, {summary['split']}", f"{shown}   ({found['checkpoint']})")
    if rise := summary.get("loss_rise"):
        table.add_row("loss in training", rise_text(int(rise["step"]), rise["loss"]))
    for name, alarm in summary.get("alarms", {}).items():
        table.add_row(f"alarm {name}", f"steps {alarm['steps'][0]:,} to {alarm['steps'][1]:,}: {alarm['text']}")
    if imbalance := summary.get("imbalance"):
        table.add_row("imbalance of ranks", imbalance_text(imbalance))
    factors = ", ".join(f"{group} {factor:.2f}" for group, factor in summary["dedup_factor"].items())
    table.add_row("samples per unique row", factors or "nothing deduplicated")
    sent, expanded = summary["sent_bytes_per_step"], summary["expanded_bytes_per_step"]
    if expanded:
        saved = f"{expanded / sent:.2f}x fewer" if sent else "-"
        table.add_row("exchanged per step", f"{sent / 1e3:,.1f} kB sent, {expanded / 1e3:,.1f} kB expanded: {saved}")
    for name, of_table in summary.get(IDS, {}).items():
        table.add_row(f"ids, {name}", ids_text(of_table))
    if "table_bytes" in summary:
        used, planned = (summary[name] / 2**20 for name in ("table_bytes", "table_bytes_planned"))
        table.add_row("tables, fullest rank", f"{used:,.2f} MiB with optimizer state, {planned:,.2f} MiB planned")
    if "checkpoint_share" in summary and math.isfinite(summary["checkpoint_share"]):
        left_out = f", {summary['checkpoints_left_out']:,} left out" if summary["checkpoints_left_out"] else ""
        saved = (
            f"{summary['checkpoints_saved']:,} saved{left_out}: training waited {summary['checkpoint_wait_s']:.1f} s"
        )
        table.add_row("checkpoints", f"{saved}, {summary['checkpoint_share']:.1%} of its time")
    table.add_row("checkpoint", summary["checkpoint"])
    curves = summary["tensorboard"]
    table.add_row("curves", f"{command_line('recd', 'board', str(Path(curves).parent))}   ({curves})")
    return table


def ids_text(numbers: Mapping[str, float]) -> str:
    """What became of the ids of a mapped table, on one line."""
    parts = [f"{numbers['rows_used']:,} of {numbers['rows']:,} rows in use"]
    if "admitted" in numbers:
        parts.append(f"{numbers['admitted']:,} ids admitted, {numbers['evicted']:,} evicted")
        parts.append(f"{numbers['unknown_share']:.1%} of lookups unknown")
    if "unknown_share_evaluated" in numbers:
        parts.append(f"{numbers['unknown_share_evaluated']:.1%} of those of the evaluation")
    return "; ".join(parts)


def imbalance_text(imbalance: Mapping[str, float]) -> str:
    """What the rank with most has over the mean of all, and what helps where that costs much.

    Args:
        imbalance: of computing, samples, ids and unique rows.
    """
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in imbalance.items())
    uneven = find_worst(imbalance) >= UNEVEN and imbalance.get("ids", 1.0) >= UNEVEN
    return f"{shown}{'; reader.batches=work evens out long histories' if uneven else ''}"


def _numbers_text(numbers: Mapping[str, Any]) -> str:
    """The numbers of a task on one line: those that its loss has."""
    words = {"auc": "AUC", "ne": "NE", "gauc": "GAUC", "ndcg": "NDCG", "rmse": "RMSE", "r2": "R2", "loss": "loss"}
    words["calibration"] = "calibration"
    words = {**{name: name for name in numbers if name.startswith("recall@")}, **words}
    known = {word: numbers[name] for name, word in words.items() if name in numbers and math.isfinite(numbers[name])}
    return ", ".join(f"{word} {figure(value)}" for word, value in known.items())


def _add_quality(table: Table, summary: Mapping[str, Any]) -> None:
    """Adds what the evaluation came to: a row for each task, or several rows for the only one."""
    if "tasks" in summary:
        for name, numbers in summary["tasks"].items():
            table.add_row(f"{name}, {summary['split']}", _numbers_text(numbers))
    elif "loss" in summary and "auc" not in summary:
        table.add_row(f"quality, {summary['split']}", _numbers_text(summary))
    elif "auc" in summary:
        best = f" (best possible {summary['oracle_auc']:.4f})" if "oracle_auc" in summary else ""
        table.add_row(f"AUC, {summary['split']}", f"{figure(summary['auc'])}{best}")
        if math.isfinite(summary["auc_per_request"]):
            table.add_row("AUC per request", f"{summary['auc_per_request']:.4f}")
        best = f" (best possible {summary['oracle_ne']:.4f})" if "oracle_ne" in summary else ""
        table.add_row(f"NE, {summary['split']}", f"{figure(summary['ne'])}{judge_ne(summary['ne'])}{best}")
        calibration = figure(summary["calibration"], 3)
        table.add_row(f"loss, {summary['split']}", f"{figure(summary['loss'])}, calibration {calibration}")
