"""Options of every command: type, default and meaning of each.

These types are what a config may hold, in YAML as on the command line. ``Annotated[Any, T]`` is an option that stays
plain data, where ``T`` says what may be written.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

from recd_dist.job.optimizer_options import Optim
from recd_dist.job.reader_options import Reader
from recd_dist.job.task_options import TaskOptions
from recd_dist.ranks.timeouts import GRACE_S, Timeouts
from recd_dist.synthetic.event_spec import EventSpec
from recd_dist.synthetic.spec import SyntheticSpec

SOURCE_KINDS = ("sql", "synthetic", "synthetic_events")
"""Kinds of ``data.source``: logs that are there and described in SQL, or logs that are made up."""


@dataclass
class Keys:
    """Columns that say who and when."""

    session: str | None = None
    request: str | None = None
    timestamp: str | None = None
    user: str | None = None  # where there is no session column, sessions are found by gaps of a user
    sample: str | None = None  # unique id of a sample: of two samples with one id the later is left out
    order: str | None = None  # decides the order of samples that have the same time


@dataclass
class Sessions:
    """What a session is, where the log does not say."""

    by: str = "auto"  # column | gap | request | user | none; auto: the first of these whose keys are named
    gap: Annotated[Any, str | float] = "30m"  # without a sample of a user; the next one begins a session


@dataclass
class Policy:
    """What happens to samples that are not as they should be; the manifest counts all of them."""

    duplicates: str | None = None  # drop | keep | error; None: drop where keys.sample is named, else keep
    late: str = "error"  # or keep, drop: samples of a partition that the table has already
    time: str = "error"  # or keep, drop: samples whose time lies outside the bounds
    earliest: str = "1990-01-01"
    latest: str | None = None  # None: tomorrow
    unlabelled: str = "error"  # or keep, drop: samples of which a label is missing


@dataclass
class GroupOptions:
    """A group: columns of the samples, or a query of its own. A list alone names the columns."""

    features: list[str] | None = None
    key: list[str] | None = None  # columns that link a sample to its row of the query
    sql: str | None = None
    sql_spark: str | None = None  # the same query in Spark SQL


Groups = dict[str, list[str] | GroupOptions]


@dataclass
class FeatureOptions:
    """What the type of a feature's column cannot tell."""

    table: str | None = None  # the embedding table; None: one of its own name
    kind: str | None = None  # id | ids | dense
    weights: str | None = None  # the column beside it with a number for each id
    window: bool | None = None  # stored as windows over a stream; None: where that is smaller
    transforms: list[Any] | None = None  # None: a dense feature is standardised


@dataclass
class TableOptions:
    """What the ids of an embedding table cannot tell."""

    num_embeddings: int | None = None
    dim: int | None = None
    hashed: bool | None = None
    mapped: bool | None = None  # ids get rows as they come, and lose them to others; docs/ids.md
    admit_after: int | None = None  # mapped: lookups after which an id gets a row; None: 1
    evict: str | None = None  # mapped: lru, age or never; None: lru
    max_age: int | None = None  # mapped, with evict=age: steps after which an id that is not seen is forgotten


@dataclass
class Csv:
    """How CSV files are written, where DuckDB does not find it; also for reads in a query that say nothing of it."""

    delimiter: str | None = None
    quote: str | None = None
    header: bool | None = None  # whether the first line holds the names of the columns
    names: list[str] | None = None  # of the columns, in their order
    decimal: str = "."  # the character before a fraction
    timestamp_format: str | None = None  # such as %d/%m/%Y %H:%M:%S; None: ISO, or found and said in the log
    encoding: str | None = None  # utf-8, latin-1 or utf-16
    types: dict[str, str] = field(default_factory=dict)  # DuckDB type of a column whose values mislead


@dataclass
class Data:
    """A source and its clustered table; configs/data/ has one file each, docs/data.md explains the fields."""

    name: str = "data"
    path: str | None = None  # raw input: file, directory or glob
    snapshot: str | None = None  # data.reader=direct: of an Iceberg or Delta table; None: the newest
    table: str = "tables/${data.name}"  # directory of the clustered tables, one per split
    source: str = "sql"  # sql | synthetic | synthetic_events
    reader: str = "auto"  # table: what `recd etl` made; direct: the Parquet files themselves; auto: the table
    samples: str | None = None  # DuckDB SQL, one row per sample
    samples_spark: str | None = None  # the same query in Spark SQL, where engine=spark cannot translate it
    keys: Keys = field(default_factory=Keys)
    labels: list[str] = field(default_factory=lambda: ["label"])  # the labels that the table stores
    label: str | None = None  # the one of them that is trained on, where `tasks` names none; None: the first
    weight: str | None = None  # a column of numbers by which samples count in losses and metrics; no feature
    split: Annotated[Any, str | float | None] = None  # SQL that is true for test samples, or the share of the latest
    groups: Annotated[dict[str, Any] | None, Groups | None] = None  # None: chosen by measuring
    features: Annotated[dict[str, Any], dict[str, FeatureOptions]] = field(default_factory=dict)
    tables: Annotated[dict[str, Any], dict[str, TableOptions]] = field(default_factory=dict)
    drop: list[str] = field(default_factory=list)  # columns or features to leave out
    sessions: Sessions = field(default_factory=Sessions)
    policy: Policy = field(default_factory=Policy)
    sample: float = 1.0  # share of the sessions that are taken
    partition: str | None = None  # day | hour: parts are dealt by the time at which sessions begin
    partitions: list[str] | None = None  # the partitions to train on, such as 2026-11-25; None: all
    readable_by: str = "newest"  # or any: also by Spark before 4.3
    null_values: list[str] = field(default_factory=list)  # texts that mean a missing value, such as NULL or n/a
    csv: Csv = field(default_factory=Csv)
    synthetic: Annotated[dict[str, Any], SyntheticSpec] = field(default_factory=dict)
    synthetic_events: Annotated[dict[str, Any], EventSpec] = field(default_factory=dict)


@dataclass
class Spark:
    """Where Spark runs, for engine=spark."""

    master: str = "local[2]"  # or yarn, k8s://..., spark://...


@dataclass
class EtlConfig:
    """Options of ``recd etl``, ``recd stats``, ``recd compact`` and ``recd sql``."""

    data: Data = field(default_factory=Data)
    overwrite: bool = False
    append: bool = False
    replace: list[str] = field(default_factory=list)  # with append: partitions whose old samples are replaced
    compression: str = "zstd"
    row_group_samples: int = 8192
    memory_limit: str = "1GB"  # of the whole run
    threads: int | None = None
    engine: str = "duckdb"  # or spark
    spark: Spark = field(default_factory=Spark)
    seed: int = 0


@dataclass
class Codec:
    """How vectors and gradients of the tables travel: fp32, fp16, bf16; vectors also as int8."""

    forward: str = "fp32"
    backward: str = "fp32"


@dataclass
class Place:
    """Where a table lies. A sharding type alone says it too."""

    type: str | None = None
    ranks: list[int] | None = None
    host: int | None = None
    hosts: list[int] | None = None


@dataclass
class Plan:
    """How tables are spread over ranks, and what is deduplicated; docs/planning.md."""

    sharding: str = "auto"
    tables: Annotated[dict[str, Any], dict[str, str | Place]] = field(default_factory=dict)  # by table
    send: dict[str, str] = field(default_factory=dict)  # rows or ids, per table; the cheaper one where absent
    exchange: str = "auto"  # direct, or by_host: inside the host first
    codec: Codec = field(default_factory=Codec)
    expand: list[str] | None = None  # groups that are trained expanded; None: those that hardly repeat
    world_size: int | None = None
    topology: str | None = None  # machines that the plan is for; None: this one
    costs: str | None = None  # a file that `recd plan --probe` wrote; None: the figures of the topology
    file: str | None = None  # a plan that `recd plan --save` wrote


@dataclass
class Checkpoint:
    """When, where and how to save; docs/checkpoints.md."""

    every: int | None = 500  # steps; None: not by steps
    every_minutes: float | None = None  # beside it; what comes first counts
    keep: int = 2  # the newest ones that stay
    keep_best: int = 1  # with evaluate.every: the best ones so far that stay in best/
    path: str | None = None  # a directory, also in a store, for checkpoints/ and best/; None: run_dir
    background: bool = True  # write while training goes on; False: training waits
    grace_s: float = GRACE_S  # from SIGTERM to SIGKILL at your scheduler; a save that takes half of it is warned of


@dataclass
class EvaluateInTraining:
    """What is evaluated when training ends, and while it goes on."""

    split: str | None = "test"  # null: nothing
    batch_size: int | None = None
    every: int | None = None  # steps between evaluations while training; None: only at the end
    best: str | None = "ne"  # with every: ne, loss, auc or auc_per_request says which checkpoint is kept as the best
    patience: int | None = None  # with every: training ends after so many evaluations without a better one
    min_improvement: float = 0.0  # with patience: better by no more than this does not count
    top: list[int] = field(default_factory=lambda: [10, 50, 100])  # in_batch: the K of recall@K and ndcg@K


@dataclass
class TrainConfig:
    """Options of ``recd train`` and ``recd plan``."""

    data: Data = field(default_factory=Data)
    model: dict[str, Any] = field(default_factory=dict)  # name, dim and the model's own arguments
    tasks: Annotated[dict[str, Any], dict[str, TaskOptions]] = field(default_factory=dict)  # empty: one, on data.label
    optim: Optim = field(default_factory=Optim)
    plan: Plan = field(default_factory=Plan)
    experiment: Annotated[Any, list[str] | None] = None
    run_dir: str = "runs/run"
    resume: bool = True
    run_from: str | None = None  # a run, or one of its checkpoints, whose weights this run begins with
    run_from_optimizer: str = "keep"  # its states; or fresh: zero, as at the first step
    run_from_schedule: str = "fresh"  # learning rates as at the first step; or keep: they go on from its last step
    progressive: bool = False  # one partition after the other, each evaluated before it is trained
    dedup: bool = True
    batch_size: int = 1024  # samples per rank and step, at most
    epochs: int = 1
    max_steps: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"  # of the dense layers; or bf16, by autocast
    micro_batches: int = 1  # parts in which a batch goes through the dense layers, to save memory
    log_every: int = 20  # steps
    record_samples: bool = False
    reader: Reader = field(default_factory=Reader)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    evaluate: EvaluateInTraining = field(default_factory=EvaluateInTraining)
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass
class EvaluatedData:
    """What of the data is evaluated or scored; features, transforms and table sizes are those of the run."""

    name: str | None = None
    table: str | None = None  # directory of the splits; None: the run's own
    path: str | None = None  # of a run that reads files directly: other files; None: the run's own
    partitions: list[str] | None = None  # None: all
    label: str | None = None  # None: the one that the run was trained on


@dataclass
class ScoredData(EvaluatedData):
    """What is scored: samples of a table, or rows that are in none."""

    sql: str | None = None  # DuckDB SQL whose rows are scored; {path} in it is data.path


@dataclass
class EvaluatedReader:
    """What happens to values that the model has no place for; None: as in training."""

    on_bad_id: str | None = None  # error or drop
    on_nan: str | None = None  # error or zero


@dataclass
class OpenedRun:
    """A run, and the samples that it shall judge."""

    run_dir: str = "???"
    checkpoint: str = "newest"  # or best: the one that evaluate.every has kept
    data: EvaluatedData = field(default_factory=EvaluatedData)
    split: str = "test"
    batch_size: int | None = None
    device: str = "auto"
    num_workers: int = 0
    reader: EvaluatedReader = field(default_factory=EvaluatedReader)


@dataclass
class EvaluateConfig(OpenedRun):
    """Options of ``recd evaluate``, ``recd summary`` and ``recd seen``."""

    top: list[int] | None = None  # in_batch: the K of recall@K and ndcg@K; None: as in training


@dataclass
class PredictConfig(OpenedRun):
    """Options of ``recd predict``."""

    data: ScoredData = field(default_factory=ScoredData)
    out: str | None = None  # directory of the scores; None: RUN_DIR/scores/SPLIT, or RUN_DIR/scores/input
    overwrite: bool = False
    resume: bool = True  # go on with a prediction that was stopped; False: begin anew
    samples_per_file: int = 262144  # at most; what is finished is kept when a prediction is stopped
    columns: list[str] = field(default_factory=list)  # columns of the table or input that stand beside the scores
    top: int | None = None  # of each request, only so many samples with the best scores; None: all samples
    top_by: str | None = None  # the task by whose score; None: the only one
    per: str | None = None  # the column that tells requests, or queries, apart; None: the request key
    vectors: bool = False  # of a model with towers: the vectors of query and item stand there, too
    embeddings: str | None = None  # items or queries: of a model with towers, only their vectors, each once
    index: str | None = None  # flat, hnsw or ivf: of embeddings=items; None: none
    recall_at: list[int] = field(default_factory=lambda: [10, 100])  # neighbours, of which the index finds a share


@dataclass
class ExportConfig(OpenedRun):
    """Options of ``recd export``."""

    out: str | None = None  # directory of the export; None: RUN_DIR/export
    overwrite: bool = False
    name: str | None = None  # name of the model; None: that of the run's directory
    rows: str = "fp32"  # or fp16, int8: how rows of tables are written
    base: str | None = None  # an export before: only rows that are other than there are written
    check_samples: int = 4096  # how many samples of the split are scored by run and export, and compared
