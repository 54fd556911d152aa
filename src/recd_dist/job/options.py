"""Options of data and ETL: type, default and meaning of each; ``job/config.py`` composes and checks them.

They stand apart from those of training because the ETL is used without it.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Keys:
    """Columns that say who and when."""

    session: str | None = None
    request: str | None = None
    timestamp: str | None = None
    user: str | None = None  # sessions are found by gaps where there is no session column
    sample: str | None = None  # unique id of a sample: of two with one id the later is left out
    order: str | None = None  # order of samples of one time


@dataclass
class Sessions:
    """What a session is, where the log does not say."""

    by: str = "auto"  # column | gap | request | user | none; auto: the first of these whose keys are named
    gap: Any = "30m"  # of a user without a sample, after which the next one begins a session


@dataclass
class Policy:
    """What happens to samples that are not as they should be; all are counted in the manifest."""

    duplicates: str | None = None  # drop | keep | error; None: drop where keys.sample is named, else keep
    late: str = "error"  # or keep, drop: samples of a partition that the table has already
    time: str = "error"  # or keep, drop: times outside the bounds
    earliest: str = "1990-01-01"
    latest: str | None = None  # None: tomorrow


@dataclass
class Data:
    """A source and its clustered table; configs/data/ has one file each, docs/data.md explains the fields."""

    name: str = "data"
    path: str | None = None  # raw input: file, directory or glob
    table: str = "tables/${data.name}"  # clustered tables, one per split below
    source: str = "sql"  # sql | synthetic
    samples: str | None = None  # DuckDB SQL, one row per sample
    samples_spark: str | None = None  # the same in Spark SQL, where engine=spark cannot translate it
    keys: Keys = field(default_factory=Keys)
    labels: list[str] = field(default_factory=lambda: ["label"])  # the first is trained on
    split: Any = None  # SQL predicate that is true for test samples, or the share of the latest sessions
    groups: dict[str, Any] | None = None  # None: every feature is its own group where that pays
    features: dict[str, Any] = field(default_factory=dict)  # table, kind, weights, ... where types cannot tell
    tables: dict[str, Any] = field(default_factory=dict)  # num_embeddings, hashed; inferred where absent
    drop: list[str] = field(default_factory=list)  # columns or features to leave out
    sessions: Sessions = field(default_factory=Sessions)
    policy: Policy = field(default_factory=Policy)
    sample: float = 1.0  # share of the sessions that are taken
    partition: str | None = None  # day | hour: parts are dealt by the time at which sessions begin
    partitions: list[str] | None = None  # that are trained on, such as 2026-11-25; None: all
    synthetic: dict[str, Any] = field(default_factory=dict)  # parameters of the synthetic source


@dataclass
class Spark:
    """Where Spark runs, for engine=spark."""

    master: str = "local[2]"  # or yarn, k8s://..., spark://...


@dataclass
class EtlConfig:
    """``recd etl`` and ``recd stats``."""

    data: Data = field(default_factory=Data)
    overwrite: bool = False
    append: bool = False
    replace: list[str] = field(default_factory=list)  # partitions that are put in place of the table's, with append
    compression: str = "zstd"
    row_group_samples: int = 8192
    memory_limit: str = "1GB"  # of the whole run
    threads: int | None = None
    engine: str = "duckdb"  # or spark
    spark: Spark = field(default_factory=Spark)
    seed: int = 0


SOURCE_KINDS = ("sql", "synthetic")
"""Of sources: logs that are there, described in SQL, or logs that are made."""
