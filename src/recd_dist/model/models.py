"""The models that a config may choose, by name."""

import inspect
from collections.abc import Mapping
from typing import Any, Protocol, cast

from torch import nn

from recd_dist.errors import ConfigError, nearest
from recd_dist.model.custom import CustomModel
from recd_dist.model.dcn_v2 import DCNv2
from recd_dist.model.deepfm import DeepFM
from recd_dist.model.din import DIN
from recd_dist.model.dlrm import DLRM
from recd_dist.model.hstu import HSTU
from recd_dist.model.mmoe import MMoE
from recd_dist.model.ple import PLE
from recd_dist.model.transformer import Transformer
from recd_dist.model.two_tower import TwoTower
from recd_dist.model.wide_deep import WideDeep
from recd_dist.table.schema import Schema

MODELS: dict[str, type[nn.Module]] = {
    "custom": CustomModel,
    "dcn_v2": DCNv2,
    "deepfm": DeepFM,
    "din": DIN,
    "dlrm": DLRM,
    "hstu": HSTU,
    "mmoe": MMoE,
    "ple": PLE,
    "sequence": Transformer,  # the name of earlier releases, with their defaults in configs/model/sequence.yaml
    "transformer": Transformer,
    "two_tower": TwoTower,
    "wide_deep": WideDeep,
}


class _Model(Protocol):
    """A model's class: ``logits = model(embedded, dense)``, the same code with deduplication on and off.

    The logits are float [B, T], a column for each of the ``num_tasks`` tasks.
    """

    def __call__(self, schema: Schema, dim: int, *, num_tasks: int, **options: Any) -> nn.Module: ...

    @staticmethod
    def sequence_features(schema: Schema, **options: Any) -> tuple[str, ...]: ...


def sequence_features(name: str, schema: Schema, options: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """The features that a model takes as lists of vectors instead of pooled.

    Args:
        name: a key of ``MODELS``.
        schema: the features.
        options: the model's own arguments; those count that its ``sequence_features`` has.

    Raises:
        ConfigError: there is no such model, or the schema lacks a feature that the model needs.
    """
    function = _model_class(name).sequence_features
    return function(schema, **_known_to(function, options))


def id_features(name: str, schema: Schema, options: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """The features whose ids a model takes as they are, such as times; they need no table. The arguments are as above.

    Raises:
        ConfigError: the schema lacks a feature that the model needs.
    """
    function = getattr(_model_class(name), "id_features", None)
    return () if function is None else tuple(function(schema, **_known_to(function, options)))


def _known_to(function: Any, options: Mapping[str, Any] | None) -> dict[str, Any]:
    known = inspect.signature(function).parameters
    return {k: v for k, v in (options or {}).items() if k in known}


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
    # An option that is a keyword of Python, class, is an argument with an underscore behind it.
    parameters = {p.rstrip("_"): p for p in inspect.signature(model).parameters}
    known = [p for p in parameters if p not in ("schema", "dim", "num_tasks")]
    for option in options:
        if option not in known:
            raise ConfigError(f"model.{option}: model '{name}' has no such option{nearest(option, known)}")
    return model(schema, dim, num_tasks=num_tasks, **{parameters[option]: value for option, value in options.items()})


def _model_class(name: str) -> _Model:
    if name not in MODELS:
        raise ConfigError(f"model.name is '{name}'{nearest(name, MODELS)}")
    return cast(_Model, MODELS[name])
