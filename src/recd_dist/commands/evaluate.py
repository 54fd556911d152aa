"""``recd evaluate``: the quality of a trained run on a split of its table."""

import argparse
import sys

from recd_dist.commands.command import JSON, Command, write_json
from recd_dist.screen.console import console


def run(options: argparse.Namespace) -> int:
    """Evaluates the newest checkpoint of a run."""
    config = COMMAND.load_config(options)
    from recd_dist.ranks.process_group import process_group
    from recd_dist.ranks.quiet import log_to_screen, quiet_libraries
    from recd_dist.train.evaluation import evaluate_run, report

    log_to_screen()
    quiet_libraries()
    with process_group(config.device) as ranks:
        result = evaluate_run(config, ranks)
    console(sys.stdout).print(report(result))
    write_json(options.json, result)
    return 0


COMMAND = Command(
    name="evaluate",
    summary="quality of a trained run",
    details="Table sizes, transforms and features are those of the run; the numbers are exact, over every sample.",
    examples=(
        "recd evaluate runs/tiny-dlrm",
        "recd evaluate runs/tiny-dlrm split=train",
        "recd evaluate runs/mine-dlrm split=train 'data.partitions=[2026-11-26]' reader.on_bad_id=drop",
        "recd evaluate runs/mine-dlrm data.label=loved_it",
    ),
    run=run,
    config="evaluate",
    of_run=True,
    arguments=(JSON,),
)
