"""The dense layers of an export: the classes of this package with the weights of the run, or its program."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.exported.description import DENSE, Description
from recd_dist.model.models import build_named_model

ENGINES = ("layers", "program")
"""What computes the dense layers: the classes of this package and the user's own module, or the program."""


def build_layers(description: Description) -> nn.Module:
    """Builds the dense layers of a description, with weights drawn by chance."""
    options = {k: v for k, v in description.model.items() if k not in ("name", "dim", "pooling")}
    with torch.random.fork_rng(devices=[]):
        model = build_named_model(
            str(description.model["name"]),
            description.schema,
            int(description.model["dim"]),
            len(description.tasks),
            **options,
        )
    return model.eval().requires_grad_(False)


def load_layers(directory: Path, description: Description, engine: str) -> nn.Module:
    """Loads the dense layers of an export.

    Args:
        directory: the export.
        description: what it is.
        engine: one of ``ENGINES``.

    Raises:
        ConfigError: there is no such engine, or no program.
        DataError: the weights are not those of the model, or the program cannot be loaded.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine={engine}: unknown{nearest(engine, ENGINES)}")
    if engine == "program":
        from recd_dist.exported.dense_program import load_program

        return load_program(directory, description)
    module = build_layers(description)
    weights = load_file(directory / DENSE)
    own = dict(module.state_dict())
    if set(own) != set(weights) or any(own[name].shape != weights[name].shape for name in own):
        raise DataError(f"{directory / DENSE}: other weights than model {description.model['name']} has; export again")
    module.load_state_dict(weights)
    return module
