"""The vectors of a model of two towers, each item or each query once, with an index of the items.

::

    samples          item 7: a   item 9: b   item 7: c      vectors of the item tower
    items            item 7: c   item 9: b                  that of the latest sample, sorted by the item
    _items.faiss     row 0 is item 7, row 1 is item 9       nearest by inner product with a query's vector
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recd_dist.errors import DataError
from recd_dist.etl.raw.duckdb_sql import connect, report_query_errors
from recd_dist.table.flat import identifier, string_literal
from recd_dist.train.score_directory import ScoreDirectory
from recd_dist.train.vector_index import build_index, tune_index, write_index

ITEMS, QUERIES = "items", "queries"
SIDES = (ITEMS, QUERIES)
"""What ``embeddings`` may be."""

VECTORS = {QUERIES: "query_vector", ITEMS: "item_vector"}
"""The column of the vectors of each side; a score is the product of the two."""

INDEX = "_items.faiss"
"""The index, in a file that engines pass over when they read the directory."""

_NUM_QUERIES = 1000  # by which recall is measured: 0.1% of one more or less
_MEMORY = "1GB"


@dataclass(frozen=True)
class EmbeddingRows:
    """Which vectors are kept.

    Attributes:
        side: ``items`` or ``queries``.
        per: the column that names an item, or tells requests or users apart.
        order: the column by which one sample is later than another.
        index: the kind of index of the items; None for none.
        recall_at: the numbers of neighbours whose recall is measured.
    """

    side: str
    per: str
    order: str
    index: str | None
    recall_at: tuple[int, ...]

    def columns(self, names: list[str]) -> list[str]:
        """The columns that are written, of those that there are."""
        return [name for name in (self.per, VECTORS[self.side]) if name in names]

    def reduce(self, rows: pa.Table, start: int) -> pa.Table:
        """The latest row of each key among some samples.

        Args:
            rows: samples that follow each other, N rows.
            start: the number of the first one in the input.

        Raises:
            DataError: a sample has no key.
        """
        if rows[self.per].null_count:
            row = start + int(np.argmax(rows[self.per].is_null().to_numpy()))
            raise DataError(f"embeddings={self.side}: sample {row} has no '{self.per}'; fill it by a query in data.sql")
        queries = [VECTORS[QUERIES]] if self.index is not None else []
        chosen = dict.fromkeys((self.per, self.order, VECTORS[self.side], *queries))
        latest = f"row_number() over (partition by {identifier(self.per)} order by {identifier(self.order)} desc) = 1"
        with connect(_MEMORY) as connection:
            connection.register("scored", rows.select(list(chosen)))
            found: pa.Table = connection.sql(f"select * from scored qualify {latest}").to_arrow_table()
        return found

    def merge(self, directory: ScoreDirectory, num_samples: int) -> dict[str, Any]:
        """Replaces parts that were reduced by one with each key once, sorted by it, and makes the index.

        Args:
            directory: holds the parts of all ranks.
            num_samples: samples of all.

        Returns:
            How many keys there are, and what the index is and finds.

        Raises:
            DataError: there is no room on the disk.
        """
        draft, key = directory.draft(num_samples), identifier(self.per)
        schema = directory.schema_of_parts(self.order)
        batches = (batch for table in directory.read_parts() for batch in table.cast(schema).to_batches())
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        with tempfile.TemporaryDirectory(prefix="recd_vectors_") as scratch:
            whole = Path(scratch) / "whole.parquet"
            with connect(_MEMORY, spill=Path(scratch)) as opened, report_query_errors(f"embeddings={self.side}"):
                opened.register("scored", reader)
                latest = f"row_number() over (partition by {key} order by {identifier(self.order)} desc) = 1"
                sql = f"select * from scored qualify {latest} order by {key}"
                opened.execute(f"copy ({sql}) to {string_literal(str(whole))} (format parquet, compression zstd)")
            rows = pq.read_table(whole)
        side = VECTORS[self.side]
        vectors = _matrix(rows[side])
        written = pa.table({self.per: rows[self.per], side: _lists(vectors)})
        pq.write_table(written, draft, compression="zstd")
        found = self._make_index(directory, vectors, rows) if self.index is not None else {}
        directory.replace_parts(draft, num_samples)
        return {self.side: {"per": self.per, "num": len(rows), "width": vectors.shape[1], **found}}

    def _make_index(self, directory: ScoreDirectory, vectors: NDArray[np.float32], rows: pa.Table) -> dict[str, Any]:
        """Writes the index beside the parts, and measures what it finds for queries of the samples."""
        kind = str(self.index)
        index = build_index(kind, vectors)
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(_NUM_QUERIES, len(rows))).round().astype(np.int64))
        queries = _matrix(rows[VECTORS[QUERIES]].take(pa.array(chosen)))
        found = tune_index(kind, index, vectors, queries, self.recall_at)
        draft = directory.draft(0)
        write_index(index, draft)
        directory.keep_beside(draft, INDEX)
        return {"index": kind, "file": INDEX, **found}


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Vectors of one length as float32 [N, D]."""
    flat = np.concatenate([np.zeros(0, np.float32), *(chunk.flatten().to_numpy() for chunk in column.chunks)])
    return np.ascontiguousarray(flat.reshape(len(column), -1), dtype=np.float32)


def _lists(vectors: NDArray[np.float32]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
