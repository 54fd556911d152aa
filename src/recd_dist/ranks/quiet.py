"""What the libraries underneath may say on the screen: nothing but errors."""

import logging
import warnings

LIBRARIES = ("torch", "torchrec", "fbgemm_gpu", "torchmetrics")


def quiet_libraries(level: int = logging.ERROR) -> None:
    """Keeps warnings of torch and TorchRec off the screen: they are meant for those who write trainers.

    Call it after the libraries were imported: they set the levels of their loggers while they load.

    Args:
        level: the least that their loggers still show.
    """
    warnings.filterwarnings("ignore")
    for name in [*LIBRARIES, *logging.root.manager.loggerDict]:
        if name.partition(".")[0] in LIBRARIES:
            logging.getLogger(name).setLevel(level)


def log_to_screen() -> None:
    """This program's own messages go to stderr, from level INFO on, and those of others from WARNING on."""
    logging.basicConfig(level=logging.WARNING, format="recd: %(message)s", force=True)
    logging.getLogger("recd_dist").setLevel(logging.INFO)
