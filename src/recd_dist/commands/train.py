"""``recd train``: training on the ranks of this machine."""

import argparse

from recd_dist.commands.command import Argument, Command
from recd_dist.errors import ConfigError
from recd_dist.job.config import config_dir


def run(options: argparse.Namespace) -> int:
    """Starts the ranks; each of them composes the config from the same overrides."""
    from recd_dist.ranks.launcher import main as launch

    if options.nproc < 1:
        raise ConfigError(f"--nproc {options.nproc}: must be at least 1")
    if options.max_restarts < 0:
        raise ConfigError(f"--max-restarts {options.max_restarts}: must be at least 0")
    COMMAND.require_overrides(options)
    overrides = COMMAND.rank_overrides(options)
    flags = ["--nproc-per-node", str(options.nproc), "--max-restarts", str(options.max_restarts)]
    return launch([*flags, "--", *overrides])


_MODELS = ", ".join(sorted(path.stem for path in (config_dir() / "model").glob("*.yaml")))

COMMAND = Command(
    name="train",
    summary="train on this machine (many machines: torchx run launch/train.py:train)",
    details="The same command again goes on from the newest checkpoint in run_dir. SIGTERM writes one, then stops.\n"
    f"Models (model=NAME, docs/models.md): {_MODELS}.",
    examples=(
        "recd train data=tiny --nproc 2",
        "recd train data=mine --config-dir my_configs --nproc 2",
        "recd train data=ebnerd model=dlrm batch_size=2048 model.dim=32 optim.dense.lr=0.005 --nproc 2",
        "recd train data=tiny 'data.drop=[position]' plan=row_wise dedup=off run_dir=runs/expanded",
    ),
    run=run,
    config="train",
    arguments=(
        Argument("--nproc", "ranks on this machine (default 1)", {"type": int, "default": 1}),
        Argument(
            "--max-restarts",
            "how often all ranks start again from the newest checkpoint after one died or hung (default 0)",
            {"type": int, "default": 0, "metavar": "N"},
        ),
    ),
)
