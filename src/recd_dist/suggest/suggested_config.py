"""A data config with the suggested groups, ready for my_configs/data/mine.yaml."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml  # type: ignore[import-untyped]

from recd_dist.etl.source.source import Source
from recd_dist.suggest.propose_groups import Proposed

_WIDTH = 88  # the emitter breaks a line after a word that passes it


class _Dumper(yaml.SafeDumper):
    """Queries as blocks, short maps and lists on one line."""


class _Line(dict[str, Any]):
    """A map that stands on one line."""


_Dumper.add_representer(
    _Line, lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value.items(), flow_style=True)
)
_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)
_Dumper.add_representer(
    str,
    lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None),
)


def groups_to_yaml(source: Source, groups: Sequence[Proposed]) -> str:
    """The ``groups`` of a data config alone."""
    return _dumped({"groups": {group.name: _group(source, group) for group in groups}})


def to_yaml(source: Source, groups: Sequence[Proposed], given: Mapping[str, Any] | None = None) -> str:
    """The source with its groups as a data config.

    Args:
        source: with the keys and labels that were given or guessed.
        groups: suggested.
        given: the data config that the source is of, for transforms and tables.

    Returns:
        YAML that ``Source.from_dict`` accepts; without a label, one that the user completes.
    """
    value: dict[str, Any] = {"name": source.name, "path": source.path, "table": "tables/${.name}", "source": "sql"}
    if source.samples:
        value["samples"] = _block(source.samples)
    value["keys"] = _Line(source.keys)
    value["labels"] = list(source.labels) or ["label"]
    if source.split is not None:
        value["split"] = source.split
    value["groups"] = {group.name: _group(source, group) for group in groups}
    said = (given or {}).get("features") or {
        name: {"table": f.table, "kind": str(f.kind) if f.kind else None} for name, f in source.features.items()
    }
    value["features"] = {name: _Line(_filled(options or {})) for name, options in said.items()}
    value["tables"] = {name: _Line(options or {}) for name, options in ((given or {}).get("tables") or {}).items()}
    value["drop"] = list(source.drop)
    text = _dumped(value)
    if source.labels:
        return text
    return text.replace("labels: [label]", "labels: [label]   # none was found: name the label column here")


def _dumped(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True))


def _filled(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: option for key, option in options.items() if option}


def _group(source: Source, group: Proposed) -> dict[str, Any]:
    origin = group.looks[0].origin
    if origin is None:
        return _Line(features=list(group.features))
    given = (source.groups or {})[origin]
    return {"key": list(given.key), "sql": _block(given.sql or ""), "features": list(group.features)}


def _block(sql: str) -> str:
    """Without blanks at line ends, which would forbid a block."""
    lines = [line.rstrip().replace("\t", "  ") for line in sql.strip().splitlines()]
    return "\n".join(lines) + "\n"
