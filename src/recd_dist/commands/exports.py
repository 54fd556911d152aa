"""``recd export``: a trained run as a directory that scores requests without the run and without torchrec."""

import argparse
import os
import sys
from typing import Any

from recd_dist.commands.command import JSON, Command, write_json
from recd_dist.screen.console import console
from recd_dist.screen.numbers import size


def run(options: argparse.Namespace) -> int:
    """Exports the newest checkpoint of a run, once its scores were compared with the run's."""
    config = COMMAND.load_config(options)
    from recd_dist.ranks.process_group import process_group
    from recd_dist.ranks.quiet import log_to_screen, quiet_libraries
    from recd_dist.train.exporting import check_export, export_run

    check_export(config)
    log_to_screen()
    quiet_libraries()
    with process_group(config.device) as ranks:
        result = export_run(config, ranks)
    console(sys.stdout).print(report(result), highlight=False, soft_wrap=True)
    write_json(options.json, result)
    return 0


def report(result: dict[str, Any]) -> str:
    """Says in words for people what was written, and how near its scores are."""
    out = os.path.relpath(result["out"])
    lines = [f"{result['out'] if out.startswith('..') else out}: step {result['step']}, version {result['version']}"]
    lines += [f"  {name:<28} {size(num_bytes)}" for name, num_bytes in result["files"].items()]
    lines += [
        f"  {rows:,} rows of table {name} are other than in the base"
        for name, rows in result.get("changed", {}).items()
    ]
    lines.append(
        f"  scores of {result['checked_samples']:,} samples: at most {result['largest_difference']:.2g} from the "
        f"run's ({result['tolerance']:g} allowed)"
    )
    for task, of in result["auc"].items():
        lines.append(f"  AUC of {task} on them: {of['export']:.4f}, of the run {of['run']:.4f}")
    if "no_program" in result:
        lines.append(f"  without dense.pt2: {result['no_program']}")
    return "\n".join(lines)


COMMAND = Command(
    name="export",
    summary="a trained run as a directory that scores requests without it",
    details="Tables as safetensors (rows=fp32, fp16, int8), dense layers as weights and as a program of torch.export,\n"
    "transforms, features, a sample request. Scores of the first samples of the split are compared with those of the\n"
    "run before anything is put in place. base=DIR writes only the rows that are other than in an export before.",
    examples=(
        "recd export runs/tiny-dlrm",
        "recd export runs/tiny-dlrm out=models/monday rows=int8",
        "recd export runs/tiny-dlrm out=models/tuesday base=models/monday",
    ),
    run=run,
    config="export",
    of_run=True,
    arguments=(JSON,),
)
