"""Tries a user's own module before a rank starts: one made-up batch, forward and backward.

    python -m recd_dist.train.probe_model model=custom model.class=my_package.my_module.Tower

The check before a job runs it in a process of its own, because that check loads no torch.
"""

import sys
from collections.abc import Sequence

import torch

from recd_dist.errors import UserError
from recd_dist.job.config import load
from recd_dist.job.job import resolve
from recd_dist.model.custom import CustomModel
from recd_dist.train.build import build_dense_model, seeded


def main(overrides: Sequence[str] | None = None) -> int:
    """Tries the module of the job that the overrides describe.

    Args:
        overrides: Hydra overrides; those of the process by default.

    Returns:
        0, or 2 with one line on stderr.
    """
    torch.set_num_threads(1)
    try:
        job = resolve(load("train", sys.argv[1:] if overrides is None else overrides))
        with seeded(job):
            model = build_dense_model(job)
            if isinstance(model, CustomModel):
                model.probe(job.schema)
    except UserError as error:
        sys.stderr.write(f"recd: error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
