"""The learning rate of a step: it follows from the number of the step alone, so that a resumed run has the same one.

::

    warmup_steps=4, decay=linear, decay_steps=2, end=0.5

    step      0     1    2     3     4     5     6   ...
    share   0.25  0.5  0.75   1.0   1.0  0.75   0.5  ...
"""

import math

from recd_dist.job.optimizer_options import Schedule


def share_at(schedule: Schedule, step: int) -> float:
    """The share of the learning rate that a step takes.

    Args:
        schedule: checked by ``job/check_training.py``.
        step: the number of steps that were done before; the first step has 0.

    Returns:
        A number in [0, 1]. The first of n warm-up steps takes 1 / n, the last one 1.
    """
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    begin = schedule.warmup_steps if schedule.decay_from is None else schedule.decay_from
    if schedule.decay == "none" or step < begin:
        return 1.0
    if schedule.decay == "inverse_root":
        return math.sqrt(begin / max(step, 1))
    left = 1.0 - min(1.0, (step - begin) / (schedule.decay_steps or 1))
    if schedule.decay == "exponential":
        return float(schedule.end ** (1.0 - left))
    curves = {"linear": left, "quadratic": left * left, "cosine": (1.0 - math.cos(math.pi * left)) / 2.0}
    return schedule.end + (1.0 - schedule.end) * curves[schedule.decay]
