"""What is written for each sample: keys and chosen columns, scores, vectors; and what is kept of all samples.

::

    table   sample_id  session_id  request_id  timestamp  clicked | item    | score_clicked
    input   input_row  visit  search  at                  clicked | note    | score_clicked | rank
            keys, as they are stored or as they stand there         columns   of the model
"""

from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from recd_dist.errors import ConfigError, nearest
from recd_dist.job.input_of_run import origin_of
from recd_dist.job.options import PredictConfig
from recd_dist.job.score_places import reads_input
from recd_dist.model.tower_choice import TOWER_MODELS
from recd_dist.reader.direct_columns import open_columns
from recd_dist.reader.direct_table import DirectTable
from recd_dist.reader.input_columns import INPUT_ROW, InputColumns
from recd_dist.table.schema import KEYS, REQUEST_ID, SAMPLE_ID
from recd_dist.train.embedding_rows import ITEMS, QUERIES, SIDES, VECTORS, EmbeddingRows
from recd_dist.train.items_of_samples import item_feature
from recd_dist.train.score_directory import ScoreDirectory
from recd_dist.train.score_parts import BesideScores
from recd_dist.train.top_samples import RANK, choose_top
from recd_dist.train.trained_run import TrainedRun
from recd_dist.train.vector_index import check_index

SCORE = "score"
"""The columns of scores begin with it: ``score_clicked`` is that of the task ``clicked``."""


class Kept(Protocol):
    """What is kept of the samples: the best of each request, or each vector once."""

    @property
    def per(self) -> str:
        """The column that tells requests or items apart."""

    def columns(self, names: list[str]) -> list[str]:
        """The columns that are written, of those that there are."""

    def reduce(self, rows: pa.Table, start: int) -> pa.Table:
        """What is kept of samples that follow each other, from that number on."""

    def merge(self, directory: ScoreDirectory, num_samples: int) -> dict[str, Any]:
        """Makes one part of all, and says what it holds."""


@dataclass(frozen=True)
class Scoring:
    """What is written for each sample.

    Attributes:
        run: the opened run.
        beside: what stands beside the scores.
        vectors: the vectors of query and item stand there, too.
        kept: what is kept of the samples; None keeps all.
    """

    run: TrainedRun
    beside: BesideScores
    vectors: bool
    kept: Kept | None

    @property
    def widths(self) -> dict[str, int]:
        """The columns of scores by name, with their width."""
        widths = {f"{SCORE}_{task.name}": 1 for task in self.run.job.tasks}
        if self.vectors:
            widths |= dict.fromkeys(VECTORS.values(), int(self.run.job.config.model["vector"]))
        return widths

    @property
    def names(self) -> list[str]:
        """All columns that are written, in their order."""
        names = [*self.beside.names, *self.widths]
        return names if self.kept is None else self.kept.columns(names)


def choose_columns(config: PredictConfig, run: TrainedRun) -> Scoring:
    """Says what is written for each sample.

    Args:
        config: names columns, vectors, and what is kept.
        run: the opened run.

    Raises:
        ConfigError: a column that is not there, or that is named like a score.
    """
    table, labels = run.job.table, list(dict.fromkeys(task.label for task in run.job.tasks))
    is_input, wanted = reads_input(config), list(config.columns)
    known, keys, per, number = [], [*KEYS, *labels], config.per or REQUEST_ID, SAMPLE_ID
    if is_input:
        known, origin = table.manifest.source["columns"], origin_of(run.job.config)
        keys = [column for column in dict.fromkeys((*origin.keys.values(), *labels)) if column in known]
        per, number = config.per or origin.keys.get("request") or "", INPUT_ROW
        wanted = [name for name in wanted if name not in keys]
    kept = choose_kept(config, run, per, number)
    if kept is not None and (key := kept.per) not in (*keys, *wanted):
        if is_input and key not in known:
            raise ConfigError(f"the input has no column '{key}' that tells requests apart; name one, per=COLUMN")
        wanted.append(key)
    beside: BesideScores
    if is_input and isinstance(table, DirectTable):
        beside = InputColumns.of(table, [*keys, *wanted])
    else:
        beside = open_columns(table, [*keys, *wanted])
    scoring = Scoring(run, beside, config.vectors or config.embeddings is not None, kept)
    for name in [*scoring.widths, RANK] if config.top is not None else scoring.widths:
        if name in beside.names:
            raise ConfigError(f"columns: '{name}' is the name of scores; leave it out")
    return scoring


def choose_kept(config: PredictConfig, run: TrainedRun, per: str, number: str) -> Kept | None:
    """What is kept of the samples; None for all.

    Args:
        config: asks for the best samples, or for vectors.
        run: the opened run.
        per: the column that tells requests apart.
        number: the column by which one sample is later than another.

    Raises:
        ConfigError: a task that is unknown or not named where there are several.
    """
    if config.embeddings is not None:
        key = item_feature(run.job) if config.embeddings == ITEMS else per
        return EmbeddingRows(config.embeddings, key, number, config.index, tuple(config.recall_at))
    if config.top is not None:
        return choose_top(config.top, config.top_by, per, [task.name for task in run.job.tasks], SCORE)
    return None


def check_kept(config: PredictConfig, model: str) -> None:
    """Refuses options of what is written that do not fit each other or the model.

    Args:
        config: the options.
        model: the name of the model.

    Raises:
        ConfigError: the message names the option and the remedy.
    """
    for name, wanted in (("vectors=true", config.vectors), (f"embeddings={config.embeddings}", config.embeddings)):
        if wanted and model not in TOWER_MODELS:
            raise ConfigError(f"{name}: model '{model}' of {config.run_dir} has no towers; leave it out")
    numbers = [("samples_per_file", config.samples_per_file), ("top", config.top)]
    for name, value in [*numbers, *(("recall_at", k) for k in config.recall_at)]:
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value}: must be at least 1")
    if config.embeddings is not None:
        if config.embeddings not in SIDES:
            raise ConfigError(
                f"embeddings={config.embeddings}: unknown{nearest(config.embeddings, SIDES)}; one of {', '.join(SIDES)}"
            )
        if config.top is not None or config.vectors or config.columns:
            raise ConfigError(
                "embeddings: only vectors are written, each once; leave top, vectors and columns out, or leave "
                "embeddings out"
            )
    if config.index is not None:
        if config.embeddings != ITEMS:
            raise ConfigError(f"index={config.index}: is made of the vectors of items; add embeddings=items")
        check_index(config.index)
    if config.top is None and (config.top_by is not None or (config.per is not None and config.embeddings != QUERIES)):
        raise ConfigError("top_by and per: say how many samples of each request are kept, such as top=10")
