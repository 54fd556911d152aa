"""A step on CUDA never makes the host wait but for the sizes of the exchange, and every tensor lies on the device.

The default suite runs it on the ``meta`` device, forward and backward; `make test-fake-cuda` with the CUDA builds of
torch and fbgemm-gpu on ``cuda``, with fbgemm's own lookup and without the backward pass.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.device.fake_step import DEVICE, DeviceGuard, FakeStep, ImaginedGroup, imagined_ranks
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from recd_dist.embedding.vocabulary.names import Codecs
from recd_dist.metrics.training_quality import TrainingQuality
from recd_dist.tensors.grouped import GroupedJagged
from recd_dist.tensors.host_side import constant, host_integers

WAITS = DataDependentOutputException, DynamicOutputShapeException
PLACE_TWICE = {"default": "TW", "place": {"type": "CW", "ranks": [0, 0]}}
SHARDINGS = {
    "TW": ("TW", 2, 2),
    "RW": ("RW", 2, 2),
    "CW": ("CW", 2, 2),
    "CW on one rank": (PLACE_TWICE, 2, 2),
    "DP": ({"default": "TW", "city": "DP", "place": "DP"}, 2, 2),
    "TWRW": ({"default": "RW", "city": "TWRW", "place": "TWRW"}, 4, 2),
    "GRID": ({"default": "RW", "city": "GRID", "place": "GRID"}, 4, 2),
}


@pytest.fixture
def step_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeStep]]:
    """Makes a step of a model under a sharding; its imagined ranks go when the test ends."""
    worlds = []

    def make(model: str, sharding: str, **options: Any) -> FakeStep:
        if DEVICE.type == "cuda" and sharding == "DP":
            pytest.skip("fbgemm's dense kernel reads numbers of its tables while it is built, which a fake one lacks")
        wanted, world_size, host_size = SHARDINGS[sharding]
        group = ImaginedGroup(host_size)
        module = "recd_dist.embedding.sharded_embeddings"
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(host_size))
        monkeypatch.setattr(f"{module}.intra_and_cross_node_pg", lambda *_, **__: (group, None))
        worlds.append(imagined_ranks(world_size))
        worlds[-1].__enter__()
        return FakeStep(model, wanted, world_size, host_size, **options)

    yield make
    for world in worlds:
        world.__exit__(None, None, None)


@pytest.mark.parametrize("model", ["dlrm", "sequence"])
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_the_host_waits_for_sizes_alone(step_of: Callable[..., FakeStep], sharding: str, model: str) -> None:
    (read,) = step_of(model, sharding).run()
    assert read.startswith("embedding/exchange/inputs.py")


@pytest.mark.parametrize(
    "options",
    [
        {"options": {"pooling": "mean"}},
        {"weighted": True},
        {"options": {"send": {"tag": "ids", "place": "ids"}}},
        {"options": {"codecs": Codecs("int8", "bf16")}},
        {"model_options": {"max_length": 3, "history_layers": 1}},
        {"windows": True, "options": {"send": {"item": "rows"}}},
        {"windows": True, "weighted": True, "options": {"send": {"tag": "ids", "place": "ids"}}},
    ],
    ids=["mean", "weights", "ids", "codecs", "history layers", "windows", "weighted windows by ids"],
)
def test_options(step_of: Callable[..., FakeStep], options: dict[str, Any]) -> None:
    assert len(step_of("sequence", "RW", **options).run()) == 1


def test_a_step_that_waits_is_found(step_of: Callable[..., FakeStep], monkeypatch: pytest.MonkeyPatch) -> None:
    """As histories were padded before: to the longest one, which the device was asked for."""
    monkeypatch.setattr(GroupedJagged, "longest", lambda self: int(self.lengths.max()))
    with pytest.raises(WAITS):
        step_of("sequence", "TW").run()


def test_tensors_of_the_host_are_found(step_of: Callable[..., FakeStep], monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of a step that travel from memory that is not locked, as the sizes of row blocks did before."""
    module = "recd_dist.embedding.exchange.inputs.host_integers"
    monkeypatch.setattr(module, lambda numbers, like: torch.from_numpy(numbers).to(like.device, non_blocking=True))
    with pytest.raises(AssertionError, match=r"_to_copy copies to the device, and the host waits for it"):
        step_of("dlrm", "TW").run()


class Questions(TorchDispatchMode):
    """Counts operators whose result the host can only know by waiting for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "_unique2", "masked_select", "is_nonzero", "equal"):
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


def test_training_quality_asks_for_nothing_before_it_is_shown() -> None:
    """TorchRec's metrics do not run on fake tensors; what they would ask a device for shows on the CPU, too."""
    quality = TrainingQuality(8, 64, torch.device("cpu"), tasks=("clicked", "liked"))
    logits, labels, weights = torch.zeros(8, 2), torch.ones(8, 2), torch.ones(8, 2)
    quality.update(logits, labels, weights)
    with Questions() as questions:
        quality.update(logits, labels, weights)
    assert questions.asked == []
    with Questions() as questions:
        quality.compute()
    assert questions.asked


@pytest.mark.parametrize(
    ("act", "found"),
    [
        (lambda x: x.cpu(), "_to_copy copies from the device to the host"),
        (lambda x: torch.zeros(4).copy_(x), "copy_ copies from the device to the host"),
        (lambda x: torch.ones(4).to(DEVICE), "_to_copy copies to the device, and the host waits for it"),
        (lambda x: x[torch.arange(2)], "index copies to the device, and the host waits for it"),
        (lambda x: torch.ones(4) + 1, "add computes on the host"),
        (lambda x: x + 1, None),
        (lambda x: x * torch.tensor(2.0), None),
    ],
)
def test_the_guard(act: Callable[[Tensor], object], found: str | None) -> None:
    with FakeTensorMode():
        x = torch.ones(4, device=DEVICE)
        with DeviceGuard(DEVICE) as guard:
            act(x)
    assert (not guard.wrong) if found is None else any(w.startswith(found) for w in guard.wrong), guard.wrong


@pytest.mark.parametrize("act", [Tensor.item, Tensor.nonzero, bool, torch.repeat_interleave])
def test_the_mode_refuses_to_wait(act: Callable[[Tensor], object]) -> None:
    with FakeTensorMode(), pytest.raises(WAITS):
        act(torch.ones(1, dtype=torch.int64, device=DEVICE))


def test_integers_of_a_step_go_through_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(tensor.tolist()) or tensor)
    assert host_integers([1, 2], torch.empty(0, device="meta")).device.type == "meta"
    assert pinned == [[1, 2]]
    assert host_integers([3], torch.empty(0)).tolist() == [3]
    assert pinned == [[1, 2]]


def test_constants_are_copied_once() -> None:
    one = constant((1, 2), torch.device("meta"), torch.int32)
    assert one is constant((1, 2), torch.device("meta"), torch.int32)
    assert one.dtype == torch.int32
