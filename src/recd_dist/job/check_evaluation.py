"""Which split is evaluated, how often, and when training ends early: checked before a rank starts."""

from collections.abc import Mapping
from typing import Any

from recd_dist.errors import ConfigError, nearest
from recd_dist.job.job import Job
from recd_dist.job.options import EvaluateInTraining, TrainConfig
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.manifest import splits_of

BEST_BY = {"ne": -1, "loss": -1, "auc": 1, "auc_per_request": 1}
"""Numbers by which evaluations are compared: 1 where more is better, -1 where less is."""

VALIDATION = "validation"
"""Key of a checkpoint's extra values under which the state of the evaluations stands."""


def find_evaluation_table(job: Job, world_size: int) -> ClusteredTable | None:
    """The split to evaluate, with a sample for every rank: what is wrong is said before training.

    A table made without a test split is trained without evaluation.

    Args:
        job: the job.
        world_size: the number of ranks.

    Raises:
        ConfigError: there is no such split, or an option of ``evaluate`` does not fit.
    """
    wanted, root = job.config.evaluate.split, job.table.path.parent
    splits = splits_of(root)
    _check_options(job.config.evaluate, has_split=wanted is not None and wanted in splits)
    if wanted is not None and wanted not in splits and not (wanted == "test" and splits == ["train"]):
        raise ConfigError(f"evaluate.split={wanted}: the table {root} has no such split{nearest(wanted, splits)}")
    if wanted is None or wanted not in splits:
        return None
    table = job.load_table(root / wanted)
    if table.manifest.num_samples < world_size:
        raise ConfigError(
            f"evaluate.split={wanted}: {table.manifest.num_samples} samples for {world_size} ranks, each needs at "
            "least one; start fewer ranks, or evaluate.split=null"
        )
    return table


def _check_options(options: EvaluateInTraining, has_split: bool) -> None:
    for name in ("batch_size", "every", "patience"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"evaluate.{name}={value}: must be at least 1, or null")
    if options.best is not None and options.best not in BEST_BY:
        raise ConfigError(f"evaluate.best={options.best}: unknown{nearest(options.best, BEST_BY)}")
    if options.every is not None and not has_split:
        raise ConfigError(
            f"evaluate.every={options.every}: there is no split to evaluate; make the table with data.split=0.1, or "
            "evaluate.every=null"
        )
    if options.patience is not None and (options.every is None or options.best is None):
        missing = "evaluate.every=500" if options.every is None else "evaluate.best=ne"
        raise ConfigError(f"evaluate.patience={options.patience}: needs evaluations to compare; add {missing}")


def is_out_of_patience(config: TrainConfig, extra: Mapping[str, Any]) -> bool:
    """Whether a run has ended early, because its evaluations did not become better any more.

    Args:
        config: the config of the run.
        extra: the extra values of its newest checkpoint.
    """
    patience = config.evaluate.patience
    return patience is not None and int(extra.get(VALIDATION, {}).get("since_best", 0)) >= patience
