"""How good predictions are while a model trains: NE, AUC and calibration of the last samples, by TorchRec.

TorchRec's RecMetricModule is cheap, but its AUC orders ties as they come, so that an untrained model, which predicts a
constant, shows an arbitrary AUC; NE and calibration are not affected. Of samples that are all of one class TorchRec
gives an AUC of 0.5, an NE of 6e10 and a calibration of 0; here these are nan.
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


class TrainingQuality:
    """NE, AUC and calibration in training, over the last samples of all ranks and since the start, by TorchRec.

    Call ``update`` on every step (it takes about 0.3 ms a task on CPU), and ``compute`` now and then on all ranks,
    because it gathers the last samples.

    Args:
        batch_size: the number of samples in a rank's full batch; the last batch may be smaller.
        num_last: how many of the last samples of all ranks to measure; at least one batch of each rank is measured.
        device: where the predictions are.
        tasks: the names of the binary tasks; with none, nothing is measured.
    """

    def __init__(self, batch_size: int, num_last: int, device: torch.device, tasks: Sequence[str]) -> None:
        from torchrec.metrics.metric_module import RecMetricModule, generate_metric_module
        from torchrec.metrics.metrics_config import MetricsConfig, RecMetricDef, RecMetricEnum, RecTaskInfo

        world_size, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        self._tasks = tuple(tasks)
        infos = [
            RecTaskInfo(name=t, label_name=f"{t}.label", prediction_name=f"{t}.prediction", weight_name=f"{t}.weight")
            for t in tasks
        ]
        window_size = max(num_last, batch_size * world_size)
        # CTR, the mean label, tells whether both classes are there: the AUC's window holds all samples of its window.
        metrics = (RecMetricEnum.NE, RecMetricEnum.AUC, RecMetricEnum.CALIBRATION, RecMetricEnum.CTR)
        config = MetricsConfig(
            rec_tasks=infos,
            rec_metrics={metric: RecMetricDef(rec_tasks=infos, window_size=window_size) for metric in metrics},
        )
        self._metrics = (
            generate_metric_module(
                RecMetricModule, config, batch_size, world_size, rank, state_metrics_mapping={}, device=device
            )
            if infos
            else None
        )

    def update(self, logits: Tensor, labels: Tensor, weights: Tensor) -> None:
        """Adds a batch.

        Args:
            logits: float [B, T], before the sigmoid, a column for each task.
            labels: float [B, T], each 0 or 1; any number where the weight is 0.
            weights: float [B, T], how much each sample counts, at least 0; 0 where it has no label.
        """
        if self._metrics is None:
            return
        predictions, known = torch.sigmoid(logits.detach()), torch.where(weights > 0, labels.detach(), 0.0)
        named: dict[str, Tensor] = {}
        for number, task in enumerate(self._tasks):
            named[f"{task}.label"], named[f"{task}.weight"] = known[:, number], weights[:, number]
            named[f"{task}.prediction"] = predictions[:, number]
        self._metrics.update(named)

    def compute(self) -> dict[str, dict[str, float]]:
        """The numbers so far; a collective.

        Returns:
            On rank 0, for each task by name: ``ne``, ``auc`` and ``calibration`` of the last samples, and
            ``lifetime_ne`` and ``lifetime_calibration`` since the start; nan where the samples leave a number
            undefined, because they are all of one class or none has a label. Empty on other ranks, and before the
            first ``update``.
        """
        if self._metrics is None or not self._metrics.trained_batches:
            return {}
        numbers: dict[str, dict[str, float]] = {}
        for key, value in dict(self._metrics.compute()).items():
            metric, _, name = key.partition("|")
            numbers.setdefault(metric.partition("-")[2], {})[name] = float(value)
        return {task: _defined(of) for task, of in numbers.items()}


def _defined(numbers: dict[str, float]) -> dict[str, float]:
    """The numbers of a task, nan where its samples are all of one class."""
    numbers = dict(numbers)
    for span in ("window_", "lifetime_"):
        base_rate = numbers.pop(f"{span}ctr", math.nan)
        undefined = ("ne", "auc", "calibration") if base_rate == 0 else ("ne", "auc") if base_rate == 1 else ()
        numbers |= {f"{span}{name}": math.nan for name in undefined if f"{span}{name}" in numbers}
    return {key.removeprefix("window_"): value for key, value in numbers.items()}
