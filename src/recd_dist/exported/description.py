"""What an exported model is: names of its files, and ``export.json``, which describes it. Runs without torch.

::

    DIR/export.json            format, model, features, tables, tasks, transforms, versions, metrics, sizes of all files
        tables.safetensors     the rows of the embedding tables, by name: fp32, fp16, or int8 with scales
        ids.safetensors        which id each row of a mapped table has; only where a table is mapped
        dense.safetensors      the weights of the dense layers
        dense.pt2              the dense layers as a program of torch.export, which needs none of this package
        sample_request.json    a request with its scores, and
        sample_request.safetensors   the same as the inputs of the program and what it gives
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recd_dist.errors import ConfigError, DataError
from recd_dist.files.json_text import json_text
from recd_dist.model.task import Task
from recd_dist.table.schema import Schema, Table

FORMAT = 1
"""The number of the format. A reader refuses a higher one."""

DESCRIPTION = "export.json"
TABLES, IDS, DENSE = "tables.safetensors", "ids.safetensors", "dense.safetensors"
PROGRAM, REQUEST, PROGRAM_REQUEST = "dense.pt2", "sample_request.json", "sample_request.safetensors"
CUSTOM = "custom"
"""The model that is a module of a user's own, which torch.export may not be able to follow."""
PRECISIONS = ("fp32", "fp16", "int8")
"""How the rows of tables are written."""

_WHOLE_CHECK = 64 << 20  # bytes of a file up to which it is compared with its checksum whenever it is opened


@dataclass(frozen=True)
class File:
    """A file of an export: its size in bytes, and its CRC-32."""

    num_bytes: int
    crc32: int


@dataclass(frozen=True)
class Base:
    """The export that a delta builds upon.

    Attributes:
        path: its directory, seen from that of the delta.
        version: its version, which must be the same when the delta is loaded.
        changed: for each table the number of rows that the delta has.
    """

    path: str
    version: str
    changed: Mapping[str, int]


@dataclass(frozen=True)
class Description:
    """``export.json``.

    Attributes:
        name: name of the model.
        step: the training step of the weights.
        version: what tells one export from every other: name, step, and a checksum of all files.
        model: the options of the model, as the config has them.
        schema: the features as the model takes them.
        sequences: those whose vectors the model takes as lists.
        ids: those whose ids it takes as they are.
        unused: id features that no table is looked up for.
        stored: the features that a request gives, in the groups of the table.
        tables: sizes of the embedding tables.
        precision: one of ``PRECISIONS``.
        tasks: what the model scores, in the order of its logits.
        transforms: fitted, as ``Transforms.to_json`` has them.
        on_bad_id: ``error`` or ``drop`` for an id outside its table.
        on_nan: ``error`` or ``zero`` for a number that is not finite.
        metrics: what the run came to, and how far the export's scores are from the run's.
        versions: versions of the libraries that wrote the export.
        created: when it was written, ISO 8601, UTC.
        files: all other files.
        base: for a delta the export that it builds upon.
    """

    name: str
    step: int
    version: str
    model: Mapping[str, Any]
    schema: Schema
    sequences: tuple[str, ...]
    ids: tuple[str, ...]
    unused: tuple[str, ...]
    stored: Schema
    tables: Mapping[str, Table]
    precision: str
    tasks: tuple[Task, ...]
    transforms: Mapping[str, Sequence[Any]]
    on_bad_id: str
    on_nan: str
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    created: str
    files: Mapping[str, File] = field(default_factory=dict)
    base: Base | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; ``Description.from_json`` is its inverse."""
        value = {**vars(self), "format": FORMAT}
        value["schema"], value["stored"] = self.schema.to_json(), self.stored.to_json()
        value["tables"] = {name: table.to_json() for name, table in self.tables.items()}
        value["tasks"] = [task.to_json() for task in self.tasks]
        value["files"] = {name: vars(file) for name, file in self.files.items()}
        value["base"] = None if self.base is None else vars(self.base)
        return value

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Description":
        """The description that ``to_json`` wrote."""
        given = {k: v for k, v in value.items() if k != "format"}
        given["schema"], given["stored"] = Schema.from_json(given["schema"]), Schema.from_json(given["stored"])
        given["tables"] = {name: Table.from_json(table) for name, table in given["tables"].items()}
        given["tasks"] = tuple(map(Task.from_json, given["tasks"]))
        given |= {name: tuple(given[name]) for name in ("sequences", "ids", "unused")}
        given["files"] = {name: File(**file) for name, file in given["files"].items()}
        given["base"] = None if given["base"] is None else Base(**given["base"])
        return Description(**given)

    def write(self, directory: Path) -> None:
        """Writes ``export.json``, the last file of an export."""
        (directory / DESCRIPTION).write_text(json_text(self.to_json()) + "\n")


def read_description(directory: Path) -> Description:
    """Reads what an export is, and looks whether its files are whole.

    Args:
        directory: the directory of the export.

    Raises:
        ConfigError: there is no export, or it has a format that this release does not know.
        DataError: ``export.json`` is damaged, or a file is missing, cut short or changed.
    """
    path = directory / DESCRIPTION
    if not path.is_file():
        raise ConfigError(f"{directory}: no exported model, it has no {DESCRIPTION}; write one by `recd export`")
    try:
        value = json.loads(path.read_text())
        form = value.get("format")
        if isinstance(form, int) and form > FORMAT:
            raise ConfigError(
                f"{directory}: format {form} of exported models, this release reads {FORMAT}; install the release that "
                "wrote it, or export again with this one"
            )
        description = Description.from_json(value)
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); export the run again") from error
    for name, file in description.files.items():
        _check_file(directory / name, file)
    return description


def _check_file(path: Path, file: File) -> None:
    if not path.is_file():
        raise DataError(f"{path}: missing; the export is not whole, copy it again or export the run again")
    if (size := path.stat().st_size) != file.num_bytes:
        raise DataError(
            f"{path}: {size:,} bytes, {DESCRIPTION} says {file.num_bytes:,}; the export is not whole, copy it again or "
            "export the run again"
        )
    if size <= _WHOLE_CHECK and checksum(path) != file.crc32:
        raise DataError(f"{path}: its checksum is another; the file is damaged, copy it again or export the run again")


def checksum(path: Path) -> int:
    """The CRC-32 of a file."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            found = zlib.crc32(block, found)
    return found


def verify(directory: Path) -> Description:
    """Reads every file of an export, and compares it with its checksum.

    Raises:
        ConfigError, DataError: as ``read_description``.
    """
    description = read_description(directory)
    for name, file in description.files.items():
        if checksum(directory / name) != file.crc32:
            raise DataError(f"{directory / name}: its checksum is another; copy it again or export the run again")
    return description


def describe_files(directory: Path) -> dict[str, File]:
    """Sizes and checksums of all files of a directory but ``export.json``."""
    paths = sorted(p for p in directory.iterdir() if p.is_file() and p.name != DESCRIPTION)
    return {path.name: File(path.stat().st_size, checksum(path)) for path in paths}
