"""``recd seen``: how often each sample of a run was trained."""

import argparse
import sys
from pathlib import Path

from recd_dist.commands.command import Command
from recd_dist.screen.console import console


def run(options: argparse.Namespace) -> int:
    """Counts the samples that a run has recorded.

    Returns:
        Exit code: 0 when each sample of each epoch was trained exactly once, else 1.
    """
    config = COMMAND.load_config(options)
    from recd_dist.train.evaluation import count_seen

    epochs = count_seen(Path(config.run_dir))
    for epoch in epochs:
        console(sys.stdout).print(
            f"epoch {epoch.epoch}: {epoch.num_samples:,} samples, {epoch.num_once:,} trained once, "
            f"{epoch.num_never:,} never, {epoch.num_more:,} more than once",
            highlight=False,
        )
    return 0 if all(epoch.is_exact for epoch in epochs) else 1


COMMAND = Command(
    name="seen",
    summary="how often each sample was trained (needs record_samples=true)",
    details="Exit code 0 when each sample of each epoch was trained exactly once.",
    examples=("recd seen runs/tiny-dlrm",),
    run=run,
    config="evaluate",
    of_run=True,
)
