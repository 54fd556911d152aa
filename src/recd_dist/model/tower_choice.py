"""Which features a model of two towers takes for its query, and which for its item. Runs without torch.

The *item* features are those that say what a candidate is: by default the single ids of the samples that look up a
table of which a list of a deduplicated group has ids too. The first of them names the item: samples with the same id
of it are samples of one item. The *query* features are those of the deduplicated groups. All others, such as the place
on the page, are left out: they are not known of an item that was not shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recd_dist.errors import ConfigError, nearest
from recd_dist.table.schema import SAMPLE, Kind, Schema

TOWER_MODELS = ("two_tower",)
"""The models that have a query and an item tower."""


@dataclass(frozen=True)
class TowerChoice:
    """The features of both towers, each in the order of the schema but for the first of the item.

    Attributes:
        query: the features of the query tower.
        item: those of the item tower; the first names the item.
    """

    query: tuple[str, ...]
    item: tuple[str, ...]

    def unused(self, schema: Schema) -> tuple[str, ...]:
        """The id features that no tower takes, whose tables are not looked up."""
        return tuple(f.name for f in schema.sparse if f.name not in (*self.query, *self.item))


def find_towers(schema: Schema, query: Sequence[str] | None = None, item: Sequence[str] | None = None) -> TowerChoice:
    """The features of both towers. A group that the job expands still counts as deduplicated.

    Args:
        schema: the features.
        query: those of the query tower; when absent, all of the deduplicated groups that are not the item's.
        item: those of the item tower, the one that names the item first; when absent, as the module says.

    Raises:
        ConfigError: a feature that is not there, that both take or that does not fit; or there is none for a tower.
    """
    known = [f.name for f in schema.features]
    for option, names in (("query", query), ("item", item)):
        for name in names or ():
            if name not in schema:
                raise ConfigError(f"model.{option}: no feature '{name}'{nearest(name, known)}")
        if names is not None and len(set(names)) < len(names):
            raise ConfigError(f"model.{option}={list(names)}: a feature is named twice")
    items = tuple(item) if item is not None else _default_item(schema, query or ())
    if not items:
        raise ConfigError(
            "model.item=[]: model two_tower needs the features of an item, the single id that names it first, such as "
            f"model.item=[{next((f.name for f in schema.sparse if f.kind is Kind.id), 'item_id')}]"
        )
    if schema[items[0]].kind is not Kind.id:
        ids = [f.name for f in schema.sparse if f.kind is Kind.id]
        raise ConfigError(
            f"model.item={list(items)}: the first feature names the item, and '{items[0]}' is no single id"
            f"{nearest(items[0], ids)}; put one of these first"
        )
    queries = tuple(query) if query is not None else tuple(f.name for f in schema.features if f.home != SAMPLE)
    if query is not None and (both := [name for name in queries if name in items]):
        raise ConfigError(f"model.query: '{both[0]}' is in model.item, too; a feature belongs to one tower")
    queries = tuple(name for name in queries if name not in items)
    if not queries:
        raise ConfigError(
            "model two_tower needs a query: a feature of a deduplicated group, or those that model.query=[...] names; "
            f"this data has {', '.join(n for n in known if n not in items) or 'only those of the item'}"
        )
    return TowerChoice(queries, items)


def _default_item(schema: Schema, query: Sequence[str]) -> tuple[str, ...]:
    own = [f for f in schema.of_group(SAMPLE) if f.kind is Kind.id and f.home == SAMPLE and f.name not in query]
    listed = {f.table for f in schema.sparse if f.kind is Kind.ids and f.home != SAMPLE}
    found = tuple(f.name for f in own if f.table in listed)
    if not found and len(own) == 1:
        found = (own[0].name,)
    if not found:
        there = f"the samples have {', '.join(f.name for f in own)}" if own else "the samples have no single id"
        raise ConfigError(
            "model two_tower: which features say what an item is? None looks up the table of a history; write "
            f"model.item=[...], the one that names the item first ({there})"
        )
    return found


def check_towers(model: str, schema: Schema, options: Mapping[str, Any]) -> None:
    """Refuses towers without features, for a model that has towers.

    Args:
        model: the model's name; any.
        schema: the features.
        options: the model's options.

    Raises:
        ConfigError: as ``find_towers``.
    """
    if model in TOWER_MODELS:
        find_towers(schema, options.get("query"), options.get("item"))
