"""Options of the optimizers: of the tables and of the dense layers, and how learning rates change."""

from dataclasses import dataclass, field


@dataclass
class Schedule:
    """How a learning rate changes from step to step; docs/training.md."""

    warmup_steps: int = 0  # it rises in a straight line over these steps
    decay: str = "none"  # linear, quadratic, cosine, exponential: to `end`; inverse_root: for ever
    decay_from: int | None = None  # the step at which it begins to fall; None: when it has risen
    decay_steps: int | None = None  # it falls over these steps, and stays at `end`; not for inverse_root
    end: float = 0.0  # what is left at the end, as a share of lr


@dataclass
class Optimizer:
    """An optimizer and its numbers."""

    name: str = "adagrad"
    lr: float = 0.01
    eps: float = 1e-8
    weight_decay: float = 0.0
    schedule: Schedule = field(default_factory=Schedule)


@dataclass
class TablesOptimizer(Optimizer):
    """The optimizer of the tables, and what looks them up and runs it."""

    name: str = "rowwise_adagrad"
    kernel: str = "auto"  # fbgemm, or recd: this project's loops, on CPU and with dedup; auto: recd where it can be


@dataclass
class Optim:
    """The tables are updated inside their backward pass, the dense layers by an optimizer of torch."""

    tables: TablesOptimizer = field(default_factory=TablesOptimizer)
    dense: Optimizer = field(default_factory=Optimizer)
    clip_norm: float | None = None  # the gradient of all dense weights together is shortened to this length
    ema: float | None = None  # such as 0.999: evaluation takes a moving average of the dense weights
