"""A module of the user's own as a model: found by its import path, fed by the names of its parameters.

What a parameter of its constructor or of its ``forward`` gets follows from its name alone, so that a module takes as
little of this project into itself as it likes::

    class Tower(nn.Module):
        def __init__(self, num_columns, num_dense, hidden=64): ...
        def forward(self, vectors, dense): return self.layers(torch.cat([vectors, dense], 1))

With ``inputs: expanded`` it gets plain tensors with a row per sample, with ``inputs: shared`` the same as tensors that
hold unique rows; the code of a module may stay as it is (tensors/shared.py).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from recd_dist.errors import ConfigError, nearest
from recd_dist.model.made_up_batch import make_up_batch
from recd_dist.model.model_inputs import Inputs
from recd_dist.ranks.trusted_code import describe_error, import_trusted
from recd_dist.table.schema import SAMPLE, Kind, Schema
from recd_dist.tensors.grouped import Embedded, Grouped
from recd_dist.tensors.shared import Rows, RowTensor, expand

_GIVEN = ("schema", "dim", "num_features", "num_columns", "num_dense", "num_tasks")
_FED = ("vectors", "dense", "features", "histories", "inputs")


class CustomModel(nn.Module):
    """A user's module between the embeddings and the loss.

    Args:
        schema: the features; every table must be ``dim`` wide.
        dim: the width of the embeddings.
        class_: the class, as ``package.module.Class``.
        options: arguments of its constructor.
        inputs: ``expanded`` for plain tensors, ``shared`` for tensors that hold unique rows.
        histories: the list features that come as lists of vectors instead of pooled.
        num_tasks: T, the number of tasks.

    Raises:
        ConfigError: the class cannot be imported, is not trusted or is no module, or it asks for what there is not.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int,
        class_: str = "",
        options: Mapping[str, Any] | None = None,
        inputs: str = "expanded",
        histories: Sequence[str] | None = None,
        num_tasks: int = 1,
    ) -> None:
        super().__init__()
        if inputs not in ("expanded", "shared"):
            raise ConfigError(f"model.inputs is '{inputs}'{nearest(inputs, ('expanded', 'shared'))}")
        self.path, self.dim, self.num_tasks, self.is_shared = class_, dim, num_tasks, inputs == "shared"
        self.groups = (*schema.dedup_groups, SAMPLE)
        kept = self.sequence_features(schema, histories)
        self.names = tuple(n for group in self.groups for n in schema.sparse_of(group) if n not in kept)
        given = {
            "schema": schema,
            "dim": dim,
            "num_features": len(self.names),
            "num_columns": len(self.names) * dim,
            "num_dense": len(schema.dense),
            "num_tasks": num_tasks,
        }
        found = import_class(self.path)
        arguments = _arguments(self.path, found, given, options or {})
        self.module: nn.Module = _run(self.path, "constructor", lambda: found(**arguments))
        fed = inspect.signature(self.module.forward).parameters.values()
        self.fed = tuple(p.name for p in fed if p.name in _FED)
        for parameter in fed:
            is_free = parameter.default is not inspect.Parameter.empty or parameter.kind in _ANY_NUMBER
            if parameter.name not in _FED and not is_free:
                raise ConfigError(
                    f"model.class={self.path}: its forward takes '{parameter.name}', of which nothing is known"
                    f"{nearest(parameter.name, _FED)}"
                )

    @staticmethod
    def sequence_features(schema: Schema, histories: Sequence[str] | None = None) -> tuple[str, ...]:
        """The features that come as lists of vectors instead of pooled.

        Args:
            schema: the features.
            histories: their names.

        Raises:
            ConfigError: one of them is no list.
        """
        lists = [f.name for f in schema.sparse if f.kind is Kind.ids]
        for name in histories or ():
            if name not in lists:
                raise ConfigError(f"model.histories: '{name}' is no list of ids{nearest(name, lists)}")
        return tuple(histories or ())

    def forward(self, embedded: Embedded, dense: Mapping[str, Grouped]) -> Tensor:
        """Logits float [B, T].

        Args:
            embedded: for each group its pooled features, [U, n * dim], and the lists of vectors.
            dense: for each group its dense features, [U, n].

        Raises:
            ConfigError: the module's output has another shape.
        """
        if not self.is_shared:
            embedded = embedded.expand()
            dense = {g: replace(x, values=x.expand(), inverse=None, known_inverse=None) for g, x in dense.items()}
        inputs = Inputs.of(embedded, dense, self.dim)
        return self._check(self.module(**{name: self._feed(name, inputs) for name in self.fed}), inputs.batch_size)

    def _feed(self, name: str, inputs: Inputs) -> Any:
        """What a parameter of the module's forward gets."""
        if name in ("vectors", "dense"):
            rows = inputs.columns(self.names) if name == "vectors" else inputs.dense_columns(self.groups)
            return _no_columns(inputs) if rows is None else rows
        return {"features": inputs.pooled, "histories": inputs.histories, "inputs": inputs}[name]

    def probe(self, schema: Schema) -> None:
        """Runs the module once, forward and backward, on a batch that is made up.

        Args:
            schema: the features.

        Raises:
            ConfigError: the module fails, its output has another shape, or a parameter of it is not trained.
        """
        embedded, dense = make_up_batch(
            schema, self.dim, [n for g in self.groups for n in schema.sparse_of(g) if n not in self.names]
        )
        logits = _run(self.path, "forward", lambda: self(embedded, dense))
        if not logits.requires_grad:
            raise ConfigError(f"model.class={self.path}: its output does not depend on anything that is trained")
        _run(self.path, "backward pass", lambda: logits.sum().backward())
        if unused := [n for n, p in self.module.named_parameters() if p.requires_grad and p.grad is None]:
            raise ConfigError(
                f"model.class={self.path}: its output does not depend on the parameter '{unused[0]}'; use it, or set "
                "its requires_grad to False"
            )

    def _check(self, output: Any, batch_size: int) -> Tensor:
        if not isinstance(output, Tensor | RowTensor):
            found = f"a {type(output).__name__}"
        elif tuple(output.shape) == (batch_size, self.num_tasks):
            return expand(output)
        elif self.num_tasks == 1 and tuple(output.shape) == (batch_size,):
            return expand(output).unsqueeze(1)
        else:
            found = f"shape {list(output.shape)}"
        wanted = f"{[batch_size, self.num_tasks]}: a row of {self.num_tasks} logits for each of {batch_size} samples"
        raise ConfigError(f"model.class={self.path}: its output has {found}, wanted {wanted}")


def _no_columns(inputs: Inputs) -> Tensor:
    like: list[Rows] = [part.values for part in inputs.vectors.values()]
    like += [lists.values for lists in inputs.histories.values()]
    like += inputs.dense.values()
    return torch.zeros(inputs.batch_size, 0, dtype=like[0].dtype, device=like[0].device)


_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def import_class(path: str) -> type[nn.Module]:
    """Imports a class of a trusted package.

    Args:
        path: ``package.module.Class``.

    Raises:
        ConfigError: the path is none, its package is not trusted here, or there is no such module or class.
    """
    module, _, name = path.rpartition(".")
    if not module or not all(part.isidentifier() for part in path.split(".")):
        raise ConfigError(f"model.class={path}: names no class; write model.class=my_package.my_module.MyClass")
    found = import_trusted(f"model.class={path}", module, name)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ConfigError(f"model.class={path}: {module} has no nn.Module '{name}'")
    return found


def _arguments(path: str, found: type, given: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor: those that it asks for by name, and the options."""
    parameters = inspect.signature(found).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    own = [name for name in parameters if name not in _GIVEN]
    for option in options:
        if option in _GIVEN or (option not in own and not takes_any):
            raise ConfigError(f"model.options.{option}: {path} has no such argument of its own{nearest(option, own)}")
    for name in own:
        is_free = parameters[name].default is not inspect.Parameter.empty or parameters[name].kind in _ANY_NUMBER
        if name not in options and not is_free:
            raise ConfigError(
                f"model.class={path}: its constructor needs '{name}'; set model.options.{name}=..., or call it one of "
                f"{', '.join(_GIVEN)}"
            )
    return {**{name: value for name, value in given.items() if name in parameters}, **options}


def _run(path: str, what: str, function: Callable[[], Any]) -> Any:
    """Runs a user's code; an error of it becomes one line that says where it was raised."""
    try:
        return function()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"model.class={path}: its {what} fails with {describe_error(error)}") from error
