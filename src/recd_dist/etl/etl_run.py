"""One run of the ETL: its options, where it works, and its name.

The name is a hash of source, options and files. After a kill, it tells whether the same run goes on.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from recd_dist.errors import ConfigError
from recd_dist.etl.place.base_tables import BaseTables
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.budget import Budget
from recd_dist.etl.source.input_files import InputFiles
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_options import tomorrow_us
from recd_dist.etl.write.column_encodings import check_compression
from recd_dist.etl.write.row_groups import MAX_SESSION_ROW_GROUPS
from recd_dist.screen.phase_progress import PhaseProgress
from recd_dist.table.location import Location

VERSION = 3
"""The version of what the ETL makes of a source, and of its notes on disk: a run does not go on with the work of
another version. A new field in these notes (``Tally``, ``PartsPlan``, ``PartResult``) is a new version."""


@dataclass(frozen=True)
class Options:
    """How a table is made, whatever the source; ``etl`` says what each option means."""

    row_group_samples: int = 8192
    compression: str = "zstd"
    memory_limit: str = "1GB"
    threads: int | None = None
    shard_bytes: int | None = None

    def check(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: an unknown compression, or row groups of no sample, or no thread.
        """
        check_compression(self.compression)
        for name in ("row_group_samples", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value}: must be at least 1")

    @property
    def budget(self) -> Budget:
        """The memory of each step."""
        budget = Budget.of(self.memory_limit, self.threads)
        return replace(budget, shard_bytes=self.shard_bytes) if self.shard_bytes else budget

    @property
    def max_session_samples(self) -> int:
        """The number of samples after which a session is cut."""
        return MAX_SESSION_ROW_GROUPS * self.row_group_samples


@dataclass(frozen=True)
class Run:
    """One run of the ETL.

    Attributes:
        name: names the run by its source, options and files.
        source: describes the raw logs.
        options: how the tables are made.
        files: the raw files.
        base: the tables that are added to.
        replaced: the partitions of these tables whose samples the new ones replace.
        work: the directory of work, where finished steps stay when the run is killed.
        bar: shows how far the run is.
        strict: whether a suspicious thing in the logs is an error.
    """

    name: str
    source: Source
    options: Options
    files: InputFiles
    base: BaseTables
    replaced: frozenset[str]
    work: Path
    bar: PhaseProgress
    strict: bool = False

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Opens a DuckDB that takes the run's share of memory and spills into its directory of work."""
        return engine.connect(f"{self.options.budget.engine_bytes}B", self.options.threads, spill=self.work / "duckdb")


def describe_job(
    source: Source, options: Options, files: InputFiles, out: Location, added: list[Any]
) -> dict[str, Any]:
    """What a run does, in plain values: two runs with the same description are the same run.

    Args:
        source: describes the raw logs.
        options: how the tables are made.
        files: the raw files.
        out: the directory of the tables.
        added: whether the tables are added to, and the partitions that are replaced.

    Returns:
        The description, with the name of the run, 16 hexadecimal digits, as ``run``.
    """
    description = asdict(source)
    if source.policy.latest_us == tomorrow_us():  # nobody has given it: a run may go on the next day
        description["policy"].pop("latest_us")
    job = {
        "version": VERSION,
        "source": description,
        "options": asdict(options),
        "files": files.files,
        "out": str(out),
        "added": added,
    }
    text = json.dumps(job, sort_keys=True, default=str)
    return {"run": hashlib.sha256(text.encode()).hexdigest()[:16], **json.loads(text)}
