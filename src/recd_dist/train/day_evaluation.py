"""The evaluation of a day before it is trained (progressive validation)."""

from collections.abc import Callable

from torch import nn

from recd_dist.metrics.traffic import TrafficCounter
from recd_dist.ranks import progress
from recd_dist.train.day_by_day import DayByDay
from recd_dist.train.epochs import Epochs
from recd_dist.train.validation import Validation
from recd_dist.train.watch import Watch


def evaluate_day(
    epochs: Epochs, validation: Validation, model: Callable[[], nn.Module], watch: Watch, traffic: TrafficCounter
) -> None:
    """Evaluates a day that has begun and was not evaluated yet; a collective that does nothing otherwise.

    Args:
        epochs: what is trained.
        validation: measures.
        model: the sharded model, of which no pipeline holds a batch.
        watch: shows the numbers; what it took is no training.
        traffic: the bytes that were counted at the collectives.
    """
    if not isinstance(epochs, DayByDay) or (day := epochs.days.open) is None or day.before:
        watch.show_days()
        return
    with progress.phase("an evaluation"):
        numbers, new_rows, unknown = validation.preview(model(), epochs.table_of(day.name))
    epochs.days.evaluated(numbers, new_rows, unknown)
    watch.show_days()
    traffic.take()
    watch.pause()
