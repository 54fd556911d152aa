"""Plans on disk: JSON that a person can read, edit and compare.

A table's place is written as the config writes it. ``plan_json.py`` makes the JSON. This module loads no torch, because
the check before a job reads plans too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recd_dist.embedding.vocabulary.names import EXCHANGES, PLACE_KEYS, SENDS
from recd_dist.errors import ConfigError, nearest
from recd_dist.files.json_text import json_text

FORMAT, VERSION = "recd_dist.plan", 1


@dataclass(frozen=True)
class SavedPlan:
    """A plan as it stands in a file.

    Attributes:
        path: the file, for messages.
        world_size: number of ranks that the plan is for.
        local_world_size: number of ranks of one host.
        tables: for each table its ``num_embeddings``, ``dim``, ``send``, ``type``, and the ranks or hosts that hold it.
        numbers: what the plan costs: memory, bytes and milliseconds.
        exchange: how batches travel.
    """

    path: Path
    world_size: int
    local_world_size: int
    tables: Mapping[str, Mapping[str, Any]]
    numbers: Mapping[str, float]
    exchange: str = "direct"

    @property
    def sharding(self) -> dict[str, dict[str, Any]]:
        """The place of each table, as ``sharding.place_tables`` takes it."""
        return {t: {k: v for k, v in e.items() if k in PLACE_KEYS} for t, e in self.tables.items()}

    @property
    def send(self) -> dict[str, str]:
        """What travels of each table."""
        return {t: str(e["send"]) for t, e in self.tables.items()}

    def check(self, sizes: Mapping[str, tuple[int, int]], world_size: int, local_world_size: int | None = None) -> None:
        """Refuses a plan that is for other tables or other ranks than those of a job.

        Args:
            sizes: rows and columns of each table of the job.
            world_size: number of ranks of the job.
            local_world_size: number of ranks of one host of the job; None where that is not known yet.

        Raises:
            ConfigError: the plan differs from the job; the message says where, and what to do.
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
            planned = self.tables[table]["num_embeddings"], self.tables[table]["dim"]
            if planned != size:
                raise ConfigError(
                    f"{name}: table '{table}' has {planned[0]} rows of {planned[1]}, this job's has {size[0]} of "
                    f"{size[1]}; {again}"
                )
        if unknown := [t for t in self.tables if t not in sizes]:
            raise ConfigError(
                f"{name}: table '{unknown[0]}' is none of this job's{nearest(unknown[0], sizes)}; {again}"
            )


def load_plan(path: Path, option: str = "plan.file=") -> SavedPlan:
    """Reads a plan from a file.

    Args:
        path: the file, written by ``recd plan --save``.
        option: the option that names the file, for messages.

    Raises:
        ConfigError: there is no such file, or it holds no plan.
    """
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{option}{path}: cannot be read ({error.strerror}); `recd plan --save` writes one"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{option}{path}: not JSON ({error}); `recd plan --save` writes plans") from error
    return parse_plan(value, path, option)


def parse_plan(value: Any, path: Path, option: str = "plan.file=") -> SavedPlan:
    """Checks a JSON value and takes it as a plan.

    Args:
        value: what ``plan_json.plan_to_json`` made.
        path: where the value was read, for messages.
        option: the option that names the file, for messages.

    Raises:
        ConfigError: the value is no plan.
    """
    if not isinstance(value, dict) or value.get("format") != FORMAT or value.get("version") != VERSION:
        raise ConfigError(f"{option}{path}: not a plan of this release; `recd plan --save` writes one")
    try:
        tables = {str(t): dict(e) for t, e in value["tables"].items()}
        for entry in tables.values():
            _ = entry["num_embeddings"], entry["dim"], entry["type"]
            if entry["send"] not in SENDS:
                raise ConfigError(f"{option}{path}: send={entry['send']}: unknown; {' or '.join(SENDS)}")
        exchange = str(value.get("exchange", "direct"))
        if exchange not in EXCHANGES:
            raise ConfigError(f"{option}{path}: exchange={exchange}: unknown; {' or '.join(EXCHANGES)}")
        sizes = int(value["world_size"]), int(value["local_world_size"])
        return SavedPlan(path, *sizes, tables, dict(value["numbers"]), exchange)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{option}{path}: incomplete ({error!r}); `recd plan --save` writes plans") from error


def format_plan(value: Mapping[str, Any]) -> str:
    """The text of a plan's file: JSON with one line for each table, so that any diff shows it well.

    Args:
        value: what ``plan_json.plan_to_json`` made.
    """
    head = [f"{json_text(name)}: {json_text(value[name], indent=None)}" for name in value if name != "tables"]
    tables = value["tables"].items()
    lines = ",\n".join(f"  {json_text(name)}: {json_text(entry, indent=None)}" for name, entry in tables)
    return "{\n " + ",\n ".join(head) + f',\n "tables": {{\n{lines}\n }}\n}}\n'


def compare_plans(before: SavedPlan, after: SavedPlan) -> list[tuple[str, str, str]]:
    """Lists what differs between two plans, which may be for any tables and ranks.

    Args:
        before: the first plan.
        after: the second plan.

    Returns:
        For each difference its name, what the first plan says and what the second one says.
    """
    differences = []
    for name in ("world_size", "local_world_size", "exchange"):
        was, now = getattr(before, name), getattr(after, name)
        if was != now:
            differences.append((name, str(was), str(now)))
    for table in dict.fromkeys([*before.tables, *after.tables]):
        was, now = (_format_table(side.tables.get(table)) for side in (before, after))
        if was != now:
            differences.append((table, was, now))
    for name in dict.fromkeys([*before.numbers, *after.numbers]):
        was, now = (f"{side.numbers[name]:,.2f}" if name in side.numbers else "-" for side in (before, after))
        if was != now:
            differences.append((name, was, now))
    return differences


def _format_table(entry: Mapping[str, Any] | None) -> str:
    """One table of a plan in a line."""
    if entry is None:
        return "-"
    places = [entry[k] for k in ("ranks", "hosts", "host") if k in entry]
    shown = f" {_format_places(places[0])}" if places else ""
    return f"{entry['num_embeddings']:,} x {entry['dim']}, {entry['type']}{shown}, {entry['send']}"


def _format_places(places: Any) -> str:
    """Ranks or hosts, in their order while they are few, else sorted and with runs shortened."""
    if not isinstance(places, list):
        return str(places)
    return ", ".join(map(str, places)) if len(places) <= 8 else format_spans(places)


def format_spans(numbers: Sequence[int]) -> str:
    """Whole numbers, sorted, with runs shortened: ``0-3, 8``.

    Args:
        numbers: the numbers, in any order.
    """
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
