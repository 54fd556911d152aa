"""Features that a data config makes from others of the table, by a transform that stands first.

::

    both:       {transforms: [{cross: {of: [country, device], n: 1000}}]}      one id feature, `both`
    device_is:  {transforms: [{one_hot: {of: device, num: 3}}]}                numbers device_is_0, _1, _2
    age_group:  {kind: id, transforms: [{copy: age}, {bucketize: [18, 30]}]}   one id feature, `age_group`
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recd_dist.errors import ConfigError, nearest
from recd_dist.reader.transform_spec import Spec, parse_steps
from recd_dist.reader.transform_steps import Step
from recd_dist.table.makers import maker_of
from recd_dist.table.module_names import table_name
from recd_dist.table.schema import SAMPLE, Feature, Kind, Schema

_MOST_COLUMNS = 1000


@dataclass(frozen=True)
class MadeFeatures:
    """The features that a data config makes.

    Attributes:
        features: as the schema has them, in the order of the config.
        specs: for each of them its transforms.
        names: for each name in the config the features that it stands for.
    """

    features: tuple[Feature, ...]
    specs: Mapping[str, list[Spec]]
    names: Mapping[str, tuple[str, ...]]

    @staticmethod
    def of(options: Mapping[str, Any], stored: Schema) -> "MadeFeatures":
        """Reads them.

        Args:
            options: ``data.features``, plain.
            stored: the features of the table.

        Raises:
            ConfigError: every mistake, in one message.
        """
        features: list[Feature] = []
        specs: dict[str, list[Spec]] = {}
        names, mistakes = {}, []
        for name, given in options.items():
            if maker_of(given) is None:
                continue
            try:
                found = _features_of(name, dict(given), stored)
            except ValueError as error:
                mistakes.append(f"feature '{name}': {error}")
                continue
            features += [feature for feature, _ in found]
            specs |= {feature.name: steps for feature, steps in found}
            names[name] = tuple(feature.name for feature, _ in found)
        if mistakes:
            raise ConfigError("\n  ".join(mistakes))
        return MadeFeatures(tuple(features), specs, names)


def group_of(feature: Feature, stored: Schema) -> str:
    """The group with whose rows a feature repeats: of one that is made, that of all its inputs, or else ``sample``.

    Args:
        feature: one that the table has, or one that is made.
        stored: the features of the table.
    """
    groups = {stored[name].group for name in feature.made_from or (feature.name,)}
    return groups.pop() if len(groups) == 1 else SAMPLE


def _features_of(name: str, options: dict[str, Any], stored: Schema) -> list[tuple[Feature, list[Spec]]]:
    """The features that one entry of a config stands for, each with its transforms."""
    if name in stored:
        raise ValueError("the table has a feature of this name; make it under another one")
    for option in ("weights", "window"):
        if options.get(option):
            raise ValueError(f"{option}: only features of the table have it; leave it out")
    wanted = options.get("kind")
    if wanted is not None and wanted not in list(Kind):
        raise ValueError(f"kind: no kind '{wanted}'{nearest(str(wanted), list(Kind))}")
    kinds = [Kind(wanted)] if wanted is not None else [Kind.dense, Kind.id, Kind.ids]
    found = []
    for column, steps in _columns_of(name, list(options["transforms"])):
        feature, parsed = _first_kind_that_fits(column, steps, kinds, stored)
        found.append((_placed(feature, parsed, options.get("table"), stored), steps))
    return found


def _columns_of(name: str, specs: list[Any]) -> list[tuple[str, list[Spec]]]:
    """``one_hot`` stands for a feature for each of its values; the others for one."""
    argument = specs[0].get("one_hot") if isinstance(specs[0], Mapping) else None
    if not isinstance(argument, Mapping) or "value" in argument:
        return [(name, specs)]
    values, num = argument.get("values"), argument.get("num")
    if num is not None and values is None and isinstance(num, int) and 0 < num <= _MOST_COLUMNS:
        values = list(range(num))
    values = values if isinstance(values, list | tuple) else []
    if set(argument) - {"of", "num", "values"} or not 0 < len(set(values)) == len(values) <= _MOST_COLUMNS:
        raise ValueError(
            f"transform 'one_hot': wanted {{of: FEATURE, num: NUMBER}} or {{of: FEATURE, values: [...]}} with at most "
            f"{_MOST_COLUMNS} values, found {dict(argument)}"
        )
    of = argument.get("of")
    return [
        (f"{name}_{value}".replace("-", "m"), [{"one_hot": {"of": of, "value": value}}, *specs[1:]]) for value in values
    ]


def _first_kind_that_fits(
    name: str, specs: list[Spec], kinds: list[Kind], stored: Schema
) -> tuple[Feature, tuple[Step, ...]]:
    """The feature with the kind that its transforms make."""
    error: ValueError | None = None
    for kind in kinds:
        feature = Feature(name, kind)
        try:
            return feature, parse_steps(feature, specs, stored)
        except ValueError as found:
            error = error or found
    raise error or ValueError("no kind")


def _placed(feature: Feature, steps: tuple[Step, ...], table: str | None, stored: Schema) -> Feature:
    """The feature in its group, with its table; a copy looks up the table of what it copies."""
    inputs = tuple(dict.fromkeys(one.feature for one in steps[0].inputs))
    made = Feature(feature.name, feature.kind, made_from=inputs)
    if table is None and made.is_sparse:
        copied = stored[inputs[0]].table if steps[0].name == "copy" else None
        table = copied or table_name(feature.name, [f.name for f in stored.features])
    return Feature(made.name, made.kind, group_of(made, stored), table, made_from=inputs)
