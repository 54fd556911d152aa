"""Reads the transforms of a feature as a data config writes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from recd_dist.errors import nearest
from recd_dist.reader.transform_registry import REGISTRY
from recd_dist.reader.transform_steps import Input, Step, waits
from recd_dist.table.schema import Feature, Kind, Schema

Spec = str | Mapping[str, Any]
"""A transform as a config writes it: a name, or {name: argument}."""
_APPLY = "apply"


def parse_steps(feature: Feature, specs: Sequence[Spec], stored: Schema) -> tuple[Step, ...]:
    """Reads the transforms of one feature.

    Args:
        feature: the feature, with its kind.
        specs: as a config writes them.
        stored: the features from which it may be made.

    Raises:
        ValueError: an unknown transform, a wrong argument, or one that does not take what the one before gives.
    """
    steps: list[Step] = []
    kind: Kind = feature.kind
    for number, spec in enumerate(specs):
        step = _parse_step(spec, kind, stored, is_first=number == 0)
        if step.inputs:
            kind = kind_of_made(step, stored)
        elif step.name == "bucketize" and kind is Kind.dense and feature.is_sparse:
            kind = Kind.id
        steps.append(step)
    if kind is not feature.kind:
        remedy = "; put a bucketize behind copy, whose buckets are ids" if kind is Kind.dense else ""
        raise ValueError(f"its transforms make {kind}, the feature is {feature.kind}{remedy}")
    return tuple(steps)


def _parse_step(spec: Spec, kind: Kind, stored: Schema, *, is_first: bool) -> Step:
    """Reads one transform of a feature, which takes rows of a kind."""
    if isinstance(spec, Mapping) and isinstance(spec.get(_APPLY), str):  # its own arguments stand beside it
        others = {name: value for name, value in spec.items() if name not in (_APPLY, "limit")}
        spec = {_APPLY: {"function": spec[_APPLY], "arguments": others, "limit": spec.get("limit")}}
    if isinstance(spec, Mapping) and len(spec) == 1:
        name, argument = next(iter(spec.items()))
    elif isinstance(spec, str):
        name, argument = spec, None
    else:
        raise ValueError(f"transform {spec}: wanted a name or {{name: argument}}")
    if name not in REGISTRY:
        raise ValueError(f"unknown transform '{name}'{nearest(name, REGISTRY)}")
    transform = REGISTRY[name]
    if transform.makes and not is_first:
        raise ValueError(f"transform '{name}' makes a feature from others; it stands first")
    if not transform.makes and kind not in transform.kinds:
        raise ValueError(f"transform '{name}' works on {' and '.join(sorted(transform.kinds))}, the feature is {kind}")
    try:
        arguments = transform.parse(argument)
        of = arguments.pop("of", ())
        return Step(name, arguments, tuple(_parse_input(one, stored) for one in of))
    except ValueError as error:
        raise ValueError(f"transform '{name}': {error}") from error


def _parse_input(spec: Any, stored: Schema) -> Input:
    """Reads a feature from which another one is made: its name, or {name: transforms}."""
    name, specs = (spec, ()) if isinstance(spec, str) else next(iter(spec.items()))
    if name not in stored:
        raise ValueError(f"the table has no feature '{name}'{nearest(name, (f.name for f in stored.features))}")
    feature = stored[name]
    steps: list[Step] = []
    for one in specs:
        step = _parse_step(one, feature.kind, stored, is_first=False)
        if waits(step):
            raise ValueError(f"'{step.name}' of '{name}' needs its numbers here: {{{step.name}: ...}}")
        steps.append(step)
    return Input(name, tuple(steps))


def kind_of_made(step: Step, stored: Schema) -> Kind:
    """What the rows of a made feature hold, before the transforms that follow.

    Raises:
        ValueError: numbers are taken as ids and are not whole.
    """
    kinds = [stored[one.feature].kind for one in step.inputs]
    if step.name == "copy":
        return kinds[0]
    for one, kind in zip(step.inputs, kinds, strict=True):
        if kind is Kind.dense and not any(s.name == "bucketize" for s in one.steps):
            raise ValueError(
                f"transform '{step.name}': '{one.feature}' holds numbers; make ids of them by "
                f"{{{one.feature}: [{{bucketize: [...]}}]}}"
            )
    if step.name == "one_hot":
        return Kind.dense
    return Kind.ids if Kind.ids in kinds else Kind.id
