"""What a rank loads only once it runs, loaded beforehand by the process that forks ranks (``ranks/rank_server.py``).

Modules that are imported where they are used, Hydra's grammar, numba's compiler: a second of a core for each rank at
each start, which a restart would wait for. Nothing here may start a thread or open a device: neither survives a fork.
"""

import logging
from contextlib import suppress
from importlib import import_module

from recd_dist.errors import UserError
from recd_dist.job.config import load
from recd_dist.reader.load_loops import load_loops

LATER = ("torch.utils.tensorboard", "torchrec.metrics.metric_module", "torchrec.metrics.metrics_config")
"""Imported by ``metrics`` where training makes its curves and numbers."""


def prepare() -> None:
    """Loads it; what cannot be loaded is said by the rank that needs it."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # TorchRec and TensorBoard warn as they are imported; ranks choose what is shown
    try:
        for name in LATER:
            with suppress(ImportError):
                import_module(name)
        with suppress(UserError, OSError):
            load("train")
        load_loops()
    finally:
        logging.disable(level)
