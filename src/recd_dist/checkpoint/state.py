"""What a checkpoint saves and compares: one flat dict of tensors, random states, and whether it fits this run."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recd_dist.errors import DataError
from recd_dist.table.schema import Schema

Rename = Callable[[str], str]
"""Maps the name of a parameter in this model to its name in the checkpoint."""

Shape = tuple[int, ...]


def flatten(model_state: Mapping[str, Any], optimizer_state: Mapping[str, Any], rename: Rename) -> dict[str, Tensor]:
    """One dict of the very tensors given: ``model/NAME`` and ``optimizer/NAME/STATE``; empty dicts vanish.

    Raises:
        DataError: ``rename`` gives two parameters one name.
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
    return flat


def initialized(optimizer: Any) -> Any:
    """The optimizer with its lazy dense state made: torchrec loads nothing into state that is not there.

    Fused optimizers have theirs from the start; initialising them would allocate gradients as big as the tables.
    """
    for _, inner in getattr(optimizer, "optimizers", [("", optimizer)]):
        if len(inner.params) and not inner.state:
            inner.init_state()
            inner.zero_grad(set_to_none=True)
    return optimizer


def rng_state() -> dict[str, Any]:
    """Random states of Python, numpy (legacy) and torch, as what ``torch.load(weights_only=True)`` accepts."""
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


def restore_rng(path: Path) -> None:
    """Sets the random states that ``rng_state`` took and ``torch.save`` wrote."""
    state = torch.load(path, weights_only=True)
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    key, pos = state["numpy"]
    np.random.set_state({"bit_generator": "MT19937", "state": {"key": key.numpy().astype(np.uint32), "pos": pos}})
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def require_same_schema(path: Path, old: Schema, new: Schema) -> None:
    """Refuses a checkpoint of other features, groups or labels.

    Raises:
        DataError: names what differs and the remedy.
    """
    before, now = ({f.name: f for f in s.features} for s in (old, new))
    differ = [f"feature '{n}' is only in the checkpoint" for n in before if n not in now]
    differ += [f"feature '{n}' is only in this run" for n in now if n not in before]
    for name in (n for n in before if n in now):
        for what in ("kind", "group", "table", "weights"):
            was, is_ = getattr(before[name], what), getattr(now[name], what)
            if was != is_:
                differ.append(f"feature '{name}': {what} was {was}, is {is_}")
    if old.labels != new.labels:
        differ.append(f"labels were {', '.join(old.labels)}, are {', '.join(new.labels)}")
    if not differ and list(before) != list(now):
        differ.append("the features stand in another order")
    if differ:
        raise DataError(
            f"{path}: a checkpoint of another schema: {_some(differ)}; "
            "use the data it was trained on or start a new run directory"
        )


def require_same_tensors(path: Path, there: Mapping[str, Shape], here: Mapping[str, Shape]) -> None:
    """Refuses a checkpoint whose parameters or optimizer state are not those of this run.

    Args:
        path: the checkpoint, for the message.
        there: shape of every tensor in the checkpoint, named as ``flatten`` does.
        here: the same for this run, over all ranks.

    Raises:
        DataError: names the first tensors that differ and the remedy.
    """
    differ = [f"{k} was {list(there[k])}, is {list(here[k])}" for k in there if k in here and there[k] != here[k]]
    differ += [f"{k} is only in the checkpoint" for k in there if k not in here]
    differ += [f"{k} is only in this run" for k in here if k not in there]
    if not differ:
        return
    sizes = [d for d in differ if d.startswith("model/")]
    what, remedy = (
        "another optimizer",
        "use the optimizer it was trained with (and its plan, if tables are replicated)",
    )
    if sizes:
        what, remedy = "another model", "use the model and table sizes it was trained with"
    raise DataError(f"{path}: a checkpoint of {what}: {_some(sizes or differ)}; {remedy} or start a new run directory")


def _some(lines: list[str]) -> str:
    return "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")
