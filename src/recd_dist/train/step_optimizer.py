"""What a step does with its gradients: the schedule's learning rate, clipping, the optimizers, the moving average.

::

    zero_grad()   learning rates of this step --> tables, dense
    backward      tables are updated (fused); gradients of the dense weights are averaged over the ranks
    step()        clip --> dense weights --> moving average

TorchRec's fused optimizers hear of a learning rate in ``zero_grad()`` and ``step()`` only, so that one that is set
between the two holds a step later (tests/surprises). It is set before ``zero_grad()`` here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer, OptimizerWrapper

from recd_dist.job.optimizer_options import Optim
from recd_dist.train.averaged_weights import MovingAverage
from recd_dist.train.learning_rate import share_at


def moving_average(head: Any, decay: float | None) -> MovingAverage | None:
    """What moves the average of a model's dense weights; None where it keeps none.

    Args:
        head: the model's head, a ``build.Head``.
        decay: ``optim.ema``.
    """
    if decay is None:
        return None
    return MovingAverage(head.averaged, head.model, decay)


class StepOptimizer(OptimizerWrapper):
    """All optimizers of a model, as the pipeline calls them. Its states are those of the optimizers that it holds.

    Args:
        optimizers: what ``distribute.combine_optimizers`` returned: parts ``tables``, ``replicated_tables``, ``dense``.
        options: the config's section ``optim``, checked.
        average: moves the average of the dense weights; None for none.
        steps_before: steps of the runs before, after which learning rates and the average go on.

    Attributes:
        steps_done: the number of steps that are done; who resumes a run sets it.
    """

    def __init__(
        self,
        optimizers: CombinedOptimizer,
        options: Optim,
        average: MovingAverage | None = None,
        steps_before: int = 0,
    ) -> None:
        super().__init__(optimizers)
        self.steps_done, self._steps_before = 0, steps_before
        self._parts: CombinedOptimizer = optimizers
        self._options, self._average = options, average
        self._dense: list[nn.Parameter] = []
        for name, part in optimizers.optimizers:
            if name == "dense":
                self._dense = list(part.params.values())
        self._norm: Tensor | None = None

    @property
    def optimizers(self) -> Sequence[tuple[str, KeyedOptimizer]]:
        """The optimizers by the names of their parts."""
        return self._parts.optimizers

    def rates(self, step: int) -> dict[str, float]:
        """The learning rates of a step, of ``tables`` and ``dense``; the first step has the number 0."""
        given = {"tables": self._options.tables, "dense": self._options.dense}
        return {
            part: chosen.lr * share_at(chosen.schedule, self._steps_before + step) for part, chosen in given.items()
        }

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Sets the learning rates of the step that begins, and forgets the gradients of the one before."""
        rates = self.rates(self.steps_done)
        for name, part in self.optimizers:
            for group in part.param_groups:
                group["lr"] = rates["dense" if name == "dense" else "tables"]
        super().zero_grad(set_to_none)

    def step(self, closure: Any = None) -> None:
        """Updates the dense weights by their gradients; those of tables were updated in the backward pass."""
        if self._options.clip_norm is not None and self._dense:
            self._norm = nn.utils.clip_grad_norm_(self._dense, self._options.clip_norm)
        super().step(closure)
        if self._average is not None:
            self._average.move(self._steps_before + self.steps_done)
        self.steps_done += 1

    def numbers(self) -> Mapping[str, float]:
        """What the dashboard shows of the last step: its learning rates, and the length of its gradient if clipped."""
        shown = {f"rate_{part}": rate for part, rate in self.rates(max(0, self.steps_done - 1)).items()}
        return shown if self._norm is None else {**shown, "gradient_norm": float(self._norm)}
