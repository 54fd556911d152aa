"""A data config with the suggested groups, to be saved as my_configs/data/mine.yaml."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import yaml  # type: ignore[import-untyped]

from recd_dist.etl.source.source import Source
from recd_dist.etl.write.propose_groups import ProposedGroup

_WRITTEN = (
    *("name", "path", "table", "source", "samples", "keys", "labels", "split", "groups", "features", "tables", "drop"),
)
_WIDTH = 88  # the emitter breaks a line after a word that passes it


class _Dumper(yaml.SafeDumper):
    """Writes queries as blocks, and short maps and lists on one line."""


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


def groups_to_yaml(source: Source, groups: Sequence[ProposedGroup]) -> str:
    """Only the ``groups`` of a data config.

    Args:
        source: the source, for groups with their own query.
        groups: the suggested groups.
    """
    return _dump({"groups": {group.name: _group_options(source, group) for group in groups}})


def to_yaml(source: Source, groups: Sequence[ProposedGroup], data_config: Mapping[str, Any] | None = None) -> str:
    """A whole data config of a source with the suggested groups.

    Args:
        source: the source with the keys and labels that were given or guessed.
        groups: the suggested groups.
        data_config: the data config of the source; its transforms and tables are kept.

    Returns:
        YAML that ``Source.from_dict`` accepts. Where there is no label, a comment asks the user to name one.
    """
    value: dict[str, Any] = {"name": source.name, "path": source.path, "table": "tables/${.name}", "source": "sql"}
    if source.samples:
        value["samples"] = _block(source.samples)
    value["keys"] = _Line(source.keys)
    value["labels"] = list(source.labels) or ["label"]
    if source.split is not None:
        value["split"] = source.split
    value |= _kept_options(source, data_config or {})
    value["groups"] = {group.name: _group_options(source, group) for group in groups}
    data_config = data_config or {}
    features = data_config.get("features") or {
        name: asdict(f) | {"kind": str(f.kind) if f.kind else None} for name, f in source.features.items()
    }
    value["features"] = {name: _Line(_drop_empty(options or {})) for name, options in features.items()}
    value["tables"] = {name: _Line(options or {}) for name, options in (data_config.get("tables") or {}).items()}
    value["drop"] = list(source.drop)
    text = _dump(value)
    if source.labels:
        return text
    return text.replace("labels: [label]", "labels: [label]   # none was found: name the label column here")


def _kept_options(source: Source, data_config: Mapping[str, Any]) -> dict[str, Any]:
    """What a session is, and every other option of the config that says something."""
    kept: dict[str, Any] = {}
    if source.sessions != "auto":
        kept["sessions"] = _Line(by=source.sessions)
        if source.gap_us is not None:
            kept["sessions"]["gap"] = f"{source.gap_s:g}s"
    passed = (*_WRITTEN, "sessions", "partitions", "synthetic", "synthetic_events")
    for name, value in data_config.items():
        option = _Line(_drop_empty(value)) if isinstance(value, Mapping) else value
        if name not in passed and option and option != 1.0:
            kept[name] = option
    return kept


def _dump(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True))


def _drop_empty(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: option for key, option in options.items() if option not in (None, "", [], {})}


def _group_options(source: Source, group: ProposedGroup) -> dict[str, Any]:
    origin = group.members[0].origin
    if origin is None:
        return _Line(features=list(group.features))
    linked = (source.groups or {})[origin]
    return {"key": list(linked.key), "sql": _block(linked.sql or ""), "features": list(group.features)}


def _block(sql: str) -> str:
    """A query without blanks at the ends of its lines, since YAML cannot write those as a block."""
    lines = [line.rstrip().replace("\t", "  ") for line in sql.strip().splitlines()]
    return "\n".join(lines) + "\n"
