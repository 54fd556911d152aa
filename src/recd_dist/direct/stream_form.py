"""What a run on a stream began with: schema, statistics, conversions. Kept beside the run, since the parts may be gone.

Groups, sizes of embedding tables and means follow from the first parts. A run that goes on must have the same, whatever
lies in the folder by then.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from recd_dist.errors import DataError
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import write_whole
from recd_dist.reader.direct_table import Conversion, DirectManifest, DirectTable
from recd_dist.table.location import location
from recd_dist.table.manifest import Manifest, manifest_from_json

NAME = "stream.json"
TRANSFORMS = "transforms"
"""Where the manifest's ``source`` has the fitted transforms of the run."""


def save_form(run_dir: Path, table: DirectTable, transforms: Mapping[str, Any]) -> None:
    """Writes what a run begins with.

    Args:
        run_dir: the directory of the run.
        table: the first parts.
        transforms: the fitted transforms, as ``Transforms.to_json`` has them.
    """
    manifest = {f.name: getattr(table.manifest, f.name) for f in fields(Manifest)}
    manifest |= {name: _plain(manifest[name]) for name in ("features", "labels", "ids")}
    manifest |= {"parts": [], "schema": table.manifest.schema.to_json()}
    manifest["source"] = {**table.manifest.source, TRANSFORMS: dict(transforms)}
    ways = dict(table.ways)
    value = {"path": str(table.path), "manifest": manifest, "conversions": _plain(table.conversions), "ways": ways}
    write_whole(run_dir / NAME, json_text(value))


def load_form(run_dir: Path) -> DirectTable | None:
    """What a run began with, without any part; None where nothing is kept.

    Raises:
        DataError: the file cannot be read.
    """
    path = run_dir / NAME
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text())
        manifest = manifest_from_json(value["manifest"])
        conversions = {name: _conversion(of) for name, of in value["conversions"].items()}
        known = {f.name: getattr(manifest, f.name) for f in fields(Manifest)}
        place, ways = location(str(value["path"])), dict(value["ways"])
        return DirectTable(place, DirectManifest(**known), (), (), conversions, ways)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read ({error!r}); start afresh with resume=false") from error


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asdict(value) for name, value in values.items()}


def _conversion(value: Mapping[str, Any]) -> Conversion:
    return Conversion(tuple(value["raw"]), value["sql"], bool(value["per_value"]), value["cast"])
