"""What a checkpoint holds: tensors and random states, and whether they fit this run."""

import io
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recd_dist.checkpoint.replicated_states import shared_name, shared_shape
from recd_dist.errors import DataError
from recd_dist.table.location import Location, contents
from recd_dist.table.schema import Schema

Rename = Callable[[str], str]
"""Maps a parameter's name in this model to its name in the checkpoint."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Kind:
    """What a tensor is: its shape and dtype. torch.distributed.checkpoint compares shapes and casts without a word."""

    shape: Shape
    dtype: torch.dtype

    def text(self, other: "Kind") -> str:
        """The shape, with the dtype where that of another tensor differs."""
        dtype = f" {str(self.dtype).removeprefix('torch.')}" if self.dtype != other.dtype else ""
        return f"{list(self.shape)}{dtype}"

    def grows_to(self, other: "Kind") -> bool:
        """Whether another tensor is this one with more rows."""
        return self.dtype == other.dtype and self.shape[1:] == other.shape[1:] and self.shape[:1] < other.shape[:1]


def flatten(model_state: Mapping[str, Any], optimizer_state: Mapping[str, Any], rename: Rename) -> dict[str, Tensor]:
    """Puts all tensors into one dict, named ``model/NAME`` and ``optimizer/NAME/STATE``, without copies.

    States of data-parallel tables get the names and shapes that those of sharded tables have.

    Args:
        model_state: the model's state dict.
        optimizer_state: the optimizer's state dict; empty where only the weights count.
        rename: maps a parameter's name in this model to its name in the checkpoint.

    Returns:
        The tensors by name; empty dicts in the states leave nothing behind.

    Raises:
        DataError: ``rename`` gives two parameters the same name.
        TypeError: the state holds something that is no tensor.
    """
    flat: dict[str, Tensor] = {}

    def add(key: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                add(f"{key}/{name}", inner)
        elif not isinstance(value, Tensor) and not hasattr(value, "local_shards"):
            raise TypeError(f"{key}: a {type(value).__name__} in the state; only tensors can be saved and loaded")
        elif key in flat:
            raise DataError(f"checkpoint: two parameters would both be named {key}; give their tables different names")
        else:
            flat[key] = value

    for name, value in model_state.items():
        add(f"model/{rename(name)}", value)
    for name, value in optimizer_state.get("state", {}).items():
        add(f"optimizer/{rename(name)}", value)
    shared = {shared_name(name): (name, value) for name, value in flat.items()}
    return {
        name: value if old == name else shared_shape(value) for name, (old, value) in shared.items() if name is not None
    }


def set_num_steps(optimizer_state: Mapping[str, Any], rename: Rename, step: int) -> None:
    """Tells optimizers of data-parallel tables how many steps are done, which checkpoints say once for all.

    Args:
        optimizer_state: the optimizer's state dict.
        rename: as in ``flatten``.
        step: the number of optimizer steps done.
    """
    for name, states in optimizer_state.get("state", {}).items():
        for state, value in states.items():
            if shared_name(f"optimizer/{rename(name)}/{state}") is None:
                value.fill_(step)


def initialize_state(optimizer: Any) -> None:
    """Makes the optimizer's dense state, which is otherwise made lazily: TorchRec loads nothing into missing state.

    Fused optimizers have their state from the start; to initialise it would allocate gradients as big as the tables.

    Args:
        optimizer: a KeyedOptimizer, or a CombinedOptimizer of several.
    """
    for _, inner in getattr(optimizer, "optimizers", [("", optimizer)]):
        if len(inner.params) and not inner.state:
            inner.init_state()
            inner.zero_grad(set_to_none=True)


def rng_state() -> dict[str, Any]:
    """The random states of Python, numpy (legacy) and torch, in types that ``torch.load`` takes as weights only."""
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)), int(numpy_state["state"]["pos"])],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_rng(path: Location) -> None:
    """Restores the random states that ``torch.save`` wrote.

    Args:
        path: a file of what ``rng_state`` returned.
    """
    state = torch.load(io.BytesIO(contents(path)), weights_only=True)
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    key, pos = state["numpy"]
    np.random.set_state({"bit_generator": "MT19937", "state": {"key": key.numpy().astype(np.uint32), "pos": pos}})
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def require_same_schema(path: Location, old: Schema, new: Schema, remedy: str) -> None:
    """Refuses a checkpoint of other features, groups or labels.

    Args:
        path: the checkpoint, for the message.
        old: the schema in the checkpoint.
        new: the schema of this run.
        remedy: what to do otherwise, for the message.

    Raises:
        DataError: the schemas differ; the message names what differs and the remedy.
    """
    before, now = ({f.name: f for f in s.features} for s in (old, new))
    differ = [f"feature '{n}' is only in the checkpoint" for n in before if n not in now]
    differ += [f"feature '{n}' is only in this run" for n in now if n not in before]
    for name in (n for n in before if n in now):
        for what in ("kind", "group", "table", "weights"):
            was, is_ = getattr(before[name], what), getattr(now[name], what)
            if was != is_:
                differ.append(f"feature '{name}': {what} was {was}, is {is_}")
    if old.labels and set(old.labels) == set(new.labels) and old.labels[0] != new.labels[0]:
        differ.append(f"data.label was {old.labels[0]}, is {new.labels[0]}")
    elif old.labels != new.labels:
        differ.append(f"labels were {', '.join(old.labels)}, are {', '.join(new.labels)}")
    if not differ and list(before) != list(now):
        differ.append("the features stand in another order")
    if differ:
        raise DataError(
            f"{path}: a checkpoint of another schema: {_join_first(differ)}; use the data it was trained on or {remedy}"
        )


def require_same_tensors(
    path: Location, stored: Mapping[str, Kind], current: Mapping[str, Kind], may_grow: Collection[str], remedy: str
) -> None:
    """Refuses a checkpoint whose parameters or optimizer state are not those of this run.

    Args:
        path: the checkpoint, for the message.
        stored: shape and dtype of every tensor in the checkpoint, by the names that ``flatten`` gives.
        current: the same of this run, over all ranks.
        may_grow: tensors that may have more rows here than in the checkpoint.
        remedy: what to do otherwise, for the message.

    Raises:
        DataError: the tensors differ; the message names the first of them and the remedy.
    """
    both = [k for k in stored if k in current and stored[k] != current[k]]
    differ = [
        f"{k} was {stored[k].text(current[k])}, is {current[k].text(stored[k])}"
        for k in both
        if not (k in may_grow and stored[k].grows_to(current[k]))
    ]
    differ += [f"{k} is only in the checkpoint" for k in stored if k not in current]
    differ += [f"{k} is only in this run" for k in current if k not in stored]
    if not differ:
        return
    of_model = [d for d in differ if d.startswith("model/")]
    what, wanted = (
        "another optimizer",
        "use the optimizer it was trained with",
    )
    if of_model:
        what, wanted = "another model", "use the model and table sizes it was trained with"
    shown = _join_first(of_model or differ)
    raise DataError(f"{path}: a checkpoint of {what}: {shown}; {wanted} or {remedy}")


def _join_first(lines: list[str]) -> str:
    """The first five lines in one, and how many more there are."""
    return "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")
