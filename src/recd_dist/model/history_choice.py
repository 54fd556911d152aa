"""Which lists of a schema a model takes as histories, and which features are their candidates. Runs without torch.

A *history* is a list feature of a deduplicated group. Its *candidate* is the first single-id feature of the group
``sample`` that looks up the same table. Lists *beside* a history have an id for each of its events (an action, a
category): their vectors are added to those of the history, as those of their candidates are added to its candidate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recd_dist.errors import ConfigError, nearest
from recd_dist.table.schema import SAMPLE, Kind, Schema

HISTORY_MODELS = {"din": True, "hstu": False, "sequence": False, "transformer": False}
"""The models that take histories, and whether only those that have a candidate; the others they pool."""


@dataclass(frozen=True)
class History:
    """A history as a model takes it.

    Attributes:
        name: the list feature.
        beside: the lists whose vectors are added to its own, event by event.
        candidates: the single-id features whose vectors, added up, attend to it; empty for none.
        times: the list with the time of each event, then the single id of the samples with their own; empty for none.
    """

    name: str
    beside: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    times: tuple[str, ...] = ()

    @property
    def lists(self) -> tuple[str, ...]:
        """The list features of the history."""
        return (self.name, *self.beside)


def candidate_of(schema: Schema, history: str) -> str | None:
    """The feature whose vectors attend to a history; None when there is none.

    It is the first single-id feature of the samples themselves that looks up the history's table.

    Args:
        schema: the features.
        history: the name of a list feature.
    """
    table = schema[history].table
    ids = (f for f in schema.of_group(SAMPLE) if f.kind is Kind.id and f.home == SAMPLE)
    return next((f.name for f in ids if f.table == table), None)


def find_histories(
    model: str,
    schema: Schema,
    histories: Sequence[str] | None = None,
    beside: Mapping[str, Sequence[str]] | None = None,
    times: Mapping[str, Sequence[str]] | None = None,
) -> tuple[History, ...]:
    """The histories of a model, in schema order. A group that the job expands still counts as deduplicated.

    Args:
        model: the model's name, a key of ``HISTORY_MODELS``.
        schema: the features.
        histories: the lists to take; when absent, all lists of deduplicated groups that are not beside another one.
        beside: for each history the lists beside it.
        times: for each history the list of its events' times, and the samples' own time where there is one.

    Raises:
        ConfigError: there is no such list, a list is none of a deduplicated group, or the lists do not go together.
    """
    needs_candidate = HISTORY_MODELS[model]
    known = [f.name for f in schema.sparse if f.kind is Kind.ids and f.home != SAMPLE]
    others = {name: tuple(lists) for name, lists in (beside or {}).items()}
    taken = {name for lists in others.values() for name in lists} | set(id_features(times))
    named = histories is not None or others
    wanted = list(histories) if histories is not None else [n for n in known if n not in taken]
    _check_names(schema, known, wanted, others)
    _check_times(schema, wanted, times or {})
    found = []
    for name in (n for n in known if n in wanted):
        lists = (name, *others.get(name, ()))
        candidates = tuple(dict.fromkeys(c for n in lists if (c := candidate_of(schema, n))))
        if candidate_of(schema, name) or not needs_candidate:
            own_times = tuple((times or {}).get(name, ()))
            found.append(History(name, lists[1:], candidates if candidate_of(schema, name) else (), own_times))
        elif histories is not None:
            raise ConfigError(
                f"model.histories: '{name}' has no candidate, and model '{model}' needs one: a single-id feature of "
                f"the samples that looks up its table (data.features.NAME.table={schema[name].table} in the ETL)"
            )
    if not found:
        best = "" if needs_candidate else "best "
        none = "none that is named" if named else "none"
        raise ConfigError(
            f"model '{model}' needs a list feature in a deduplicated group (a history), and {best}a single-id feature "
            f"of the samples in the same table (the candidate); this data has {none}: use model=dlrm"
        )
    return tuple(found)


def id_features(times: Mapping[str, Sequence[str]] | None) -> tuple[str, ...]:
    """The features that are taken as times, whose ids are not looked up."""
    return tuple(dict.fromkeys(name for names in (times or {}).values() for name in names))


def fuse_choice(chosen: Sequence[History]) -> History:
    """What histories are as one; it has the name of the first.

    Args:
        chosen: the histories, at least one.

    Raises:
        ConfigError: some have times and others have none.
    """
    if 0 < sum(bool(h.times) for h in chosen) < len(chosen):
        missing = next(h.name for h in chosen if not h.times)
        raise ConfigError(f"model.times: '{missing}' has no times; with model.fuse=true name those of all histories")
    lists = [name for h in chosen for name in h.lists]
    candidates = tuple(dict.fromkeys(c for h in chosen for c in h.candidates))
    times = tuple(dict.fromkeys(t for h in chosen for t in h.times))
    return History(chosen[0].name, tuple(n for n in lists if n != chosen[0].name), candidates, times)


def check_histories(model: str, schema: Schema, options: Mapping[str, Any]) -> None:
    """Refuses histories that are not there, for a model that takes some.

    Args:
        model: the model's name; any.
        schema: the features.
        options: the model's options.

    Raises:
        ConfigError: as ``find_histories``.
    """
    if model in HISTORY_MODELS:
        found = find_histories(model, schema, *(options.get(o) for o in ("histories", "beside", "times")))
        if options.get("fuse"):
            fuse_choice(found)


def _check_names(
    schema: Schema, known: Sequence[str], wanted: Sequence[str], beside: Mapping[str, tuple[str, ...]]
) -> None:
    for option, names in (
        ("histories", wanted),
        ("beside", [*beside, *(n for lists in beside.values() for n in lists)]),
    ):
        for name in names:
            if name not in schema:
                raise ConfigError(f"model.{option}: no feature '{name}'{nearest(name, known)}")
            if name not in known:
                kind = "no list of ids" if schema[name].kind is not Kind.ids else "a list of the samples themselves"
                raise ConfigError(
                    f"model.{option}: '{name}' is {kind}; a history is a list in a deduplicated group"
                    f"{nearest(name, known)}"
                )
    for name, lists in beside.items():
        if name not in wanted:
            raise ConfigError(f"model.beside.{name}: '{name}' is not among model.histories, which are {list(wanted)}")
        for other in lists:
            if schema[other].home != schema[name].home:
                raise ConfigError(
                    f"model.beside.{name}: '{other}' is of group '{schema[other].home}', '{name}' of "
                    f"'{schema[name].home}'; lists beside each other change together, so put them into one group"
                )
            if other in wanted or sum(other in x for x in beside.values()) > 1:
                raise ConfigError(f"model.beside.{name}: '{other}' is taken twice; name it in one place")


def _check_times(schema: Schema, wanted: Sequence[str], times: Mapping[str, Sequence[str]]) -> None:
    for name, given in times.items():
        if name not in wanted:
            raise ConfigError(f"model.times.{name}: '{name}' is not among model.histories, which are {list(wanted)}")
        if not 1 <= len(given) <= 2:
            raise ConfigError(
                f"model.times.{name}={list(given)}: name the list with the events' times, and after it, where there is "
                "one, the feature with the sample's own time"
            )
        for number, (other, kind) in enumerate(zip(given, (Kind.ids, Kind.id), strict=False)):
            if other not in schema:
                raise ConfigError(
                    f"model.times.{name}: no feature '{other}'{nearest(other, [f.name for f in schema.sparse])}"
                )
            home = schema[name].home if number == 0 else SAMPLE
            if schema[other].kind is not kind or schema[other].home != home:
                raise ConfigError(
                    f"model.times.{name}: '{other}' is {schema[other].kind} of group '{schema[other].home}', wanted "
                    f"{kind} of group '{home}': whole numbers in one unit, such as seconds"
                )
