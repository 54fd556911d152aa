"""A clustered table as flat samples again, in any SQL engine that reads Parquet."""

from pathlib import Path

from recd_dist.etl.sql import identifier, quoted
from recd_dist.etl.write import ROW
from recd_dist.manifest import Manifest, Part
from recd_dist.schema import KEYS, SAMPLE


def flat_view(table: Path, part: Part | None = None) -> str:
    """A DuckDB query that returns the flat samples: keys, labels and every feature, one row per sample.

    Args:
        table: directory of one split.
        part: only the samples of this part, which joins only its own files; None for the whole table.

    Raises:
        DataError: no table there.
    """
    schema = Manifest.load(table).schema
    name = Path(part.samples.path).name if part else "*.parquet"
    columns = [f"samples.{identifier(name)}" for name in (*KEYS, *schema.labels)]
    columns += [f"{identifier(_alias(feature.group))}.{identifier(feature.name)}" for feature in schema.features]
    joins = [
        f"join {_files(table, group, name)} as {identifier(_alias(group))} "
        f"on {identifier(_alias(group))}.{ROW} = samples.{identifier(f'{group}_{ROW}')}"
        for group in schema.dedup_groups
    ]
    return "\n".join([f"select {', '.join(columns)}", f"from {_files(table, 'samples', name)} as samples", *joins])


def _alias(group: str) -> str:
    return "samples" if group == SAMPLE else f"{group}_rows"


def _files(table: Path, directory: str, name: str) -> str:
    return f"read_parquet({quoted(str(table / directory / name))})"
