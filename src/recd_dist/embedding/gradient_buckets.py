"""Gradients of dense layers and data-parallel tables are added up over the ranks in one order from the first step on.

Which rank's number comes first depends on where a gradient lies in what is sent: a ring adds up the first part of it
beginning with another rank than the second. Torch's DDP (2.13 to 2.14, ``Reducer::rebuild_buckets``) lays out its
buckets anew after the first two steps of a process, by the order in which the gradients came. So a run that goes on
from a checkpoint added up its first steps in another order than the run that nothing had interrupted, on three ranks
and more: weights differed in the last bit, and the loss at the end in the fifth digit.

Here DDP lays its buckets out before the first step and keeps them. The last layer comes first, as its gradient does.
Guard: tests/dist/test_resumed_bits.py::test_upstream_adds_up_its_first_steps_in_another_order.
"""

from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torchrec.distributed.model_parallel import (
    DefaultDataParallelWrapper,
    DistributedModelParallel,
)
from torchrec.distributed.types import ShardingEnv

BUCKET_MB = 25
"""Most megabytes of a bucket; the first one holds 1 MB, so that sending begins early."""


class FixedBuckets(DistributedDataParallel):
    """Torch's DDP, whose buckets stay as they are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What DDP does before its third step, with the order of the parameters in place of that of their gradients.
        self.reducer._push_all_rebuilt_params()
        self.reducer._rebuild_buckets()

    def _build_params_for_reducer(self) -> tuple[list[torch.nn.Parameter], list[bool]]:
        parameters, are_sparse = super()._build_params_for_reducer()  # type: ignore[no-untyped-call]
        return parameters[::-1], are_sparse[::-1]


class FixedBucketsWrapper(DefaultDataParallelWrapper):
    """Wraps what TorchRec does not shard into ``FixedBuckets``."""

    def _ddp_wrap(
        self, dmp: DistributedModelParallel, env: ShardingEnv, device: torch.device, ddp_ignore_param_names: set[str]
    ) -> None:
        group = env.process_group
        if group is None:
            raise RuntimeError("gradients are added up over a process group, and there is none")
        module = dmp._dmp_wrapped_module
        if not {name for name, _ in dmp.named_parameters()} - ddp_ignore_param_names:
            return
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, ddp_ignore_param_names)
        dmp._dmp_wrapped_module = FixedBuckets(
            module=module.to(device),
            device_ids=None if device.type == "cpu" else [device],
            process_group=group,
            gradient_as_bucket_view=True,
            broadcast_buffers=False,
            static_graph=True,
            bucket_cap_mb=BUCKET_MB,
        )
