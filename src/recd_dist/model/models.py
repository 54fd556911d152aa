"""The models that a config may choose, by name."""

import inspect
from typing import Any, Protocol, cast

from torch import nn

from recd_dist.errors import ConfigError, nearest
from recd_dist.model.dlrm import DLRM
from recd_dist.model.sequence import SequenceModel
from recd_dist.table.schema import Schema

MODELS: dict[str, type[nn.Module]] = {"dlrm": DLRM, "sequence": SequenceModel}


class _Model(Protocol):
    """A model's class: ``logits = model(embedded, dense)``, the same code with deduplication on and off.

    The logits are float [B, T], a column for each of the ``num_tasks`` tasks.
    """

    def __call__(self, schema: Schema, dim: int, *, num_tasks: int, **options: Any) -> nn.Module: ...

    @staticmethod
    def sequence_features(schema: Schema) -> tuple[str, ...]: ...


def sequence_features(name: str, schema: Schema) -> tuple[str, ...]:
    """The features that a model takes as lists of vectors instead of pooled, in schema order.

    Args:
        name: a key of ``MODELS``.
        schema: the features.

    Raises:
        ConfigError: there is no such model, or the schema lacks a feature that the model needs.
    """
    return _model_class(name).sequence_features(schema)


def build_named_model(name: str, schema: Schema, dim: int, num_tasks: int = 1, **options: Any) -> nn.Module:
    """Builds a model, with weights drawn from torch's generator.

    Args:
        name: a key of ``MODELS``.
        schema: the features.
        dim: the width of the embeddings.
        num_tasks: T, the number of tasks.
        options: the model's own arguments.

    Raises:
        ConfigError: there is no such model or option, or a value is out of range.
    """
    model = _model_class(name)
    known = [p for p in inspect.signature(model).parameters if p not in ("schema", "dim", "num_tasks")]
    for option in options:
        if option not in known:
            raise ConfigError(f"model.{option}: model '{name}' has no such option{nearest(option, known)}")
    return model(schema, dim, num_tasks=num_tasks, **options)


def _model_class(name: str) -> _Model:
    if name not in MODELS:
        raise ConfigError(f"model.name is '{name}'{nearest(name, MODELS)}")
    return cast(_Model, MODELS[name])
