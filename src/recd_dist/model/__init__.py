"""Models on grouped tensors: ``logits = model(embedded, dense)``, the same code with deduplication on and off."""

import inspect
from typing import Any, Protocol, cast

from torch import nn

from recd_dist.errors import ConfigError, nearest
from recd_dist.model.dlrm import DLRM
from recd_dist.model.sequence import SequenceModel
from recd_dist.table.schema import Schema

__all__ = ["DLRM", "SequenceModel", "models", "new_model", "sequence_features"]

models: dict[str, type[nn.Module]] = {"dlrm": DLRM, "sequence": SequenceModel}
"""By the name that ``model.name`` gives."""


class _Model(Protocol):
    def __call__(self, schema: Schema, dim: int, **options: Any) -> nn.Module: ...

    @staticmethod
    def sequence_features(schema: Schema) -> tuple[str, ...]: ...


def _model_class(name: str) -> _Model:
    if name not in models:
        raise ConfigError(f"model.name is '{name}'{nearest(name, models)}")
    return cast(_Model, models[name])


def sequence_features(name: str, schema: Schema) -> tuple[str, ...]:
    """Features that a model wants un-pooled, in schema order.

    Raises:
        ConfigError: no such model, or a schema that lacks what it needs.
    """
    return _model_class(name).sequence_features(schema)


def new_model(name: str, schema: Schema, dim: int, **options: Any) -> nn.Module:
    """A model by name.

    Args:
        name: a key of ``models``.
        schema: the features.
        dim: width of the embeddings.
        options: the model's own arguments.

    Raises:
        ConfigError: no such model or option, or a value out of range.
    """
    model = _model_class(name)
    known = [p for p in inspect.signature(model).parameters if p not in ("schema", "dim")]
    for option in options:
        if option not in known:
            raise ConfigError(f"model.{option}: model '{name}' has no such option{nearest(option, known)}")
    return model(schema, dim, **options)
