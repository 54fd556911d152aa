"""Logging on the screen: this program's messages, and only errors of its libraries."""

import logging
import warnings

from recd_dist.redaction.credentials import screen_handler

LIBRARIES = ("torch", "torchrec", "fbgemm_gpu", "torchmetrics")

_NOWHERE = "-NullHandler"
"""In the names of loggers of torch that nobody reads: a checkpoint would make several records for each tensor."""


def quiet_libraries(level: int = logging.ERROR) -> None:
    """Hides the warnings of torch and TorchRec, which are meant for authors of trainers.

    Call it after the libraries have been imported, because they set the levels of their loggers during the import.

    Args:
        level: the lowest logging level that the libraries' loggers still show.
    """
    warnings.filterwarnings("ignore")
    for name in [*LIBRARIES, *logging.root.manager.loggerDict]:
        if name.partition(".")[0] in LIBRARIES or _NOWHERE in name:
            logging.getLogger(name).setLevel(level)


def log_to_screen() -> None:
    """Sends log messages to stderr: this program's from level INFO on, all others from WARNING on."""
    logging.basicConfig(level=logging.WARNING, handlers=[screen_handler()], force=True)
    logging.getLogger("recd_dist").setLevel(logging.INFO)
