"""What trainers and servers tell each other beside batches: JSON, of which nothing is run.

A trainer opens a session with everything that its batches depend on. Batches are the same on both sides only if the
code is the same, so that a server of another version refuses.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from recd_dist import __version__
from recd_dist.errors import ConfigError, DataError, UserError
from recd_dist.files.json_text import json_text
from recd_dist.reader.open_files import require_clustered
from recd_dist.reader.order import Shuffle
from recd_dist.reader.position import fingerprint
from recd_dist.reader.time_slices import order_of
from recd_dist.reader.transform import Transforms
from recd_dist.reader.worker import Failure, ReaderOptions, Task
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.schema import Schema, Table

PROTOCOL = 2
"""The form of these messages; it changes with each change that an older side would misread."""

MAX_MESSAGE_BYTES = 16 << 20
"""Of what a trainer sends: a schema of ten thousand features takes 2 MB."""

AHEAD = 2
"""Batches that a session reads before they are asked for: one while the last one is sent, one while it is received."""

MAX_TASKS = 64
"""Of one question, so that nobody makes a server read without end."""

OPEN, CLOSE, STATS = "open", "close", "stats"
_SHUFFLE = ("seed", "order", "window_size")
_OBJECTS = ("table", "schema", "tables", "transforms", "shuffle")
_ERRORS: dict[str, type[UserError]] = {"ConfigError": ConfigError, "DataError": DataError}


def write_message(value: Mapping[str, Any]) -> bytes:
    """A message as bytes."""
    return json_text(dict(value), indent=None).encode()


def read_message(data: bytes) -> dict[str, Any]:
    """The message that ``write_message`` wrote.

    Raises:
        ValueError: it is too long, or something else wrote it.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {len(data):,} bytes, more than {MAX_MESSAGE_BYTES:,}")
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("a message that is no JSON object")
    return value


@dataclass(frozen=True)
class WantedTable:
    """The table that a trainer reads; servers may have it under another path.

    Attributes:
        name, split: those of the manifest, for people.
        fingerprint: names its samples and their order, those of all partitions.
        partitions: the partitions to read; None for all.
    """

    name: str
    split: str
    fingerprint: str
    partitions: tuple[str, ...] | None

    @staticmethod
    def of(table: ClusteredTable) -> "WantedTable":
        """What says which table this is."""
        manifest = table.manifest
        partitions = None if table.whole is table else manifest.partitions
        return WantedTable(manifest.name, manifest.split, fingerprint(table.whole.manifest), partitions)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "WantedTable":
        """What ``asdict`` and JSON made of one."""
        names = value["partitions"]
        known = tuple(map(str, names)) if names is not None else None
        return WantedTable(str(value["name"]), str(value["split"]), str(value["fingerprint"]), known)


def write_opening(
    options: ReaderOptions, client: str, compression: str, block: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What opens a session.

    Args:
        options: what to read and how; plain values of it are sent as they are.
        client: who asks, for the server's log.
        compression: one of ``defaults.COMPRESSIONS``, of the bodies of batches.
        block: names memory of the trainer; a server that finds it may be given more of it.
    """
    plain = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in _OBJECTS}
    return {
        "protocol": PROTOCOL,
        "version": __version__,
        "client": client,
        "compression": compression,
        "block": block,
        "table": asdict(WantedTable.of(require_clustered(options.table, "reader.servers"))),
        "schema": options.schema.to_json(),
        "tables": [table.to_json() for table in options.tables.values()],
        "transforms": options.transforms.to_json(),
        "shuffle": {name: getattr(options.shuffle, name) for name in _SHUFFLE},
        "options": plain,
    }


def check_version(opening: Mapping[str, Any]) -> None:
    """Refuses a trainer of another version.

    Raises:
        ConfigError: names both.
    """
    protocol, version = opening.get("protocol"), opening.get("version")
    if (protocol, version) != (PROTOCOL, __version__):
        raise ConfigError(
            f"the server runs recd_dist {__version__} (protocol {PROTOCOL}), the trainer {version} (protocol "
            f"{protocol}); batches are the same only with the same version: install it on both sides"
        )


def read_options(opening: Mapping[str, Any], table: ClusteredTable) -> ReaderOptions:
    """What ``write_opening`` wrote, for the server's own copy of the table.

    Args:
        opening: the message.
        table: the table that it names.

    Raises:
        ConfigError: a transform that this server does not know.
        KeyError, TypeError, ValueError: something else wrote it.
    """
    schema = Schema.from_json(opening["schema"])
    tables = [Table.from_json(value) for value in opening["tables"]]
    transforms = Transforms.parse(schema, opening["transforms"], table.manifest.schema)
    plain = {**opening["options"], "windows": tuple(map(str, opening["options"]["windows"]))}
    shuffle = order_of(table, Shuffle(**opening["shuffle"]))
    return ReaderOptions(table, schema, {t.name: t for t in tables}, transforms, shuffle, **plain)


def vocabularies_of(opening: Mapping[str, Any]) -> list[str]:
    """The files that the transforms of an opening name, which the server would read.

    Args:
        opening: the message, before its transforms are read.
    """
    specs = [spec for listed in opening["transforms"].values() for spec in listed if isinstance(spec, Mapping)]
    arguments = [spec["vocabulary"] for spec in specs if "vocabulary" in spec]
    return [str(a["file"] if isinstance(a, Mapping) else a) for a in arguments]


def write_task(task: Task) -> list[Any]:
    """A task as JSON has it."""
    return [task.epoch, [list(interval) for interval in task.samples], task.gapless_end]


def read_task(value: Sequence[Any], num_samples: int) -> Task:
    """The task that ``write_task`` wrote.

    Args:
        value: what it wrote.
        num_samples: samples of an epoch, beyond which no task reads.

    Raises:
        ValueError: there is no such task.
    """
    epoch, intervals, end = value
    samples = tuple((int(first), int(last)) for first, last in intervals)
    if not samples or int(epoch) < 0 or any(not 0 <= first < last <= num_samples for first, last in samples):
        raise ValueError(f"a task of samples {samples[:3]}, the epoch has {num_samples}")
    return Task(int(epoch), samples, min(int(end), num_samples))


@dataclass(frozen=True)
class Question:
    """What a call asks for.

    Attributes:
        session: the session that answers.
        tasks: the tasks to be answered, one after the other.
        following: what will be asked for next, to be read ahead.
        blocks: for each of all these the name of memory that its batch may be made in, or None.
    """

    session: str
    tasks: tuple[Task, ...]
    following: tuple[Task, ...] = ()
    blocks: tuple[Mapping[str, Any] | None, ...] = ()

    def to_bytes(self) -> bytes:
        """The question as a message."""
        tasks, following = ([write_task(task) for task in tasks] for tasks in (self.tasks, self.following))
        return write_message(
            {"session": self.session, "tasks": tasks, "following": following, "blocks": list(self.blocks)}
        )

    @staticmethod
    def from_json(value: Mapping[str, Any], num_samples: int) -> "Question":
        """The question of a message.

        Args:
            value: the message.
            num_samples: samples of an epoch, beyond which no task reads.

        Raises:
            KeyError, TypeError, ValueError: something else wrote it.
        """
        tasks, following = (tuple(read_task(t, num_samples) for t in value[name]) for name in ("tasks", "following"))
        blocks = tuple(value["blocks"])
        if not 0 < len(tasks) <= MAX_TASKS or len(following) > MAX_TASKS or len(blocks) != len(tasks) + len(following):
            raise ValueError(f"{len(tasks)} tasks, {len(blocks)} blocks, {len(following)} tasks that follow")
        return Question(str(value["session"]), tasks, following, blocks)


def write_failure(failure: Failure) -> list[str]:
    """An error that the user can mend, as JSON has it."""
    return [failure.error.__name__, failure.message]


def read_failure(value: Sequence[str]) -> Failure:
    """The failure that ``write_failure`` wrote."""
    name, message = value
    return Failure(_ERRORS.get(name, DataError), message)
