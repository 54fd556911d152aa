"""Plans on disk: JSON that a person can read, edit and compare. A table's place is written as the config writes it.

No torch: the check before a job reads plans too. ``describe.to_json`` writes them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recd_dist.errors import ConfigError, nearest

FORMAT, VERSION = "recd_dist.plan", 1


@dataclass(frozen=True)
class Saved:
    """A plan as it stands in a file.

    Attributes:
        path: the file, for messages.
        world_size, local_world_size: ranks it was made for, and those of a host.
        tables: by table ``num_embeddings``, ``dim``, ``send``, ``type`` and the ranks, host or hosts that go with it.
        numbers: what the plan came to: memory, bytes and milliseconds.
    """

    path: Path
    world_size: int
    local_world_size: int
    tables: Mapping[str, Mapping[str, Any]]
    numbers: Mapping[str, float]

    @property
    def sharding(self) -> dict[str, dict[str, Any]]:
        """What ``plan.plan`` takes."""
        return {t: {k: v for k, v in e.items() if k in _PLACES} for t, e in self.tables.items()}

    @property
    def send(self) -> dict[str, str]:
        """What travels of each table."""
        return {t: str(e["send"]) for t, e in self.tables.items()}

    def check(self, sizes: Mapping[str, tuple[int, int]], world_size: int, local_world_size: int | None = None) -> None:
        """Refuses a plan for other tables or ranks.

        Args:
            sizes: rows and width of each table of the job.
            world_size: its ranks.
            local_world_size: those of a host; None where it is not known yet.

        Raises:
            ConfigError: names what differs and the remedy.
        """
        name, again = f"plan.file={self.path}", "plan again with `recd plan ... --save`"
        if self.world_size != world_size:
            raise ConfigError(f"{name}: made for {self.world_size} ranks, this job has {world_size}; {again}")
        on_hosts = [t for t, e in self.tables.items() if e["type"] in ("TWCW", "TWRW", "GRID")]
        if on_hosts and local_world_size not in (None, self.local_world_size):
            raise ConfigError(
                f"{name}: table '{on_hosts[0]}' lies on a host of {self.local_world_size} ranks, hosts of this job "
                f"have {local_world_size}; {again}"
            )
        for table, size in sizes.items():
            if table not in self.tables:
                raise ConfigError(f"{name}: has no table '{table}'{nearest(table, self.tables)}; {again}")
            found = self.tables[table]["num_embeddings"], self.tables[table]["dim"]
            if found != size:
                raise ConfigError(
                    f"{name}: table '{table}' has {found[0]} rows of {found[1]}, this job's has {size[0]} of "
                    f"{size[1]}; {again}"
                )
        if unknown := [t for t in self.tables if t not in sizes]:
            raise ConfigError(
                f"{name}: table '{unknown[0]}' is none of this job's{nearest(unknown[0], sizes)}; {again}"
            )


_PLACES = ("type", "ranks", "host", "hosts")


def load(path: Path, option: str = "plan.file=") -> Saved:
    """A plan that was written as JSON.

    Args:
        path: the file.
        option: what named it, for messages.

    Raises:
        ConfigError: no such file, or not a plan.
    """
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{option}{path}: cannot be read ({error.strerror}); `recd plan --save` writes one"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{option}{path}: not JSON ({error}); `recd plan --save` writes plans") from error
    return from_json(value, path, option)


def from_json(value: Any, path: Path, option: str = "plan.file=") -> Saved:
    """A plan out of what was read.

    Args:
        value: from ``describe.to_json``.
        path: where it was read, for messages.
        option: what named it, for messages.

    Raises:
        ConfigError: not a plan.
    """
    if not isinstance(value, dict) or value.get("format") != FORMAT or value.get("version") != VERSION:
        raise ConfigError(f"{option}{path}: not a plan of this release; `recd plan --save` writes one")
    try:
        tables = {str(t): dict(e) for t, e in value["tables"].items()}
        for entry in tables.values():
            _ = entry["num_embeddings"], entry["dim"], entry["type"]
            if entry["send"] not in ("rows", "ids"):
                raise ConfigError(f"{option}{path}: send={entry['send']}: unknown; rows or ids")
        return Saved(path, int(value["world_size"]), int(value["local_world_size"]), tables, dict(value["numbers"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{option}{path}: incomplete ({error!r}); `recd plan --save` writes plans") from error


def text_of(value: Mapping[str, Any]) -> str:
    """A plan as it is written: JSON with a line for each table, so that any diff shows it well.

    Args:
        value: from ``describe.to_json``.
    """
    head = [f"{json.dumps(name)}: {json.dumps(value[name])}" for name in value if name != "tables"]
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in value["tables"].items())
    return "{\n " + ",\n ".join(head) + f',\n "tables": {{\n{lines}\n }}\n}}\n'


def differences(before: Saved, after: Saved) -> list[tuple[str, str, str]]:
    """What differs between two plans, as (what, before, after).

    Args:
        before: a plan.
        after: another, of any tables and ranks.
    """
    found = []
    for what in ("world_size", "local_world_size"):
        was, now = getattr(before, what), getattr(after, what)
        if was != now:
            found.append((what, str(was), str(now)))
    for table in dict.fromkeys([*before.tables, *after.tables]):
        was, now = (_entry(side.tables.get(table)) for side in (before, after))
        if was != now:
            found.append((table, was, now))
    for name in dict.fromkeys([*before.numbers, *after.numbers]):
        was, now = (f"{side.numbers[name]:,.2f}" if name in side.numbers else "-" for side in (before, after))
        if was != now:
            found.append((name, was, now))
    return found


def _entry(entry: Mapping[str, Any] | None) -> str:
    """One table of a plan in a line."""
    if entry is None:
        return "-"
    places = [entry[k] for k in ("ranks", "hosts", "host") if k in entry]
    shown = f" {_short(places[0])}" if places else ""
    return f"{entry['num_embeddings']:,} x {entry['dim']}, {entry['type']}{shown}, {entry['send']}"


def _short(places: Any) -> str:
    """Ranks or hosts; in their order while they are few."""
    if not isinstance(places, list):
        return str(places)
    return ", ".join(map(str, places)) if len(places) <= 8 else spans(places)


def spans(numbers: Sequence[int]) -> str:
    """Whole numbers, runs shortened: ``0-3, 8``.

    Args:
        numbers: in any order.
    """
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
