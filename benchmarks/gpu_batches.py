"""Batches for benchmarks/gpu.py, made in memory in the shape of the presets: no logs, DuckDB or Hydra needed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recd_dist.table.schema import Feature, Kind, Schema, Table
from recd_dist.tensors.batch import Batch
from recd_dist.tensors.ikjt import IKJT, GroupLayout

SAMPLES_PER_ROW = 8
"""Samples of each unique row of a user, a request has half as many."""


@dataclass(frozen=True)
class Shape:
    """A model and the batches that it is trained on.

    Attributes:
        model: name of the model.
        dim: width of the tables.
        batch_size: samples a batch.
        lists: number of list features of the user.
        length: ids of such a list, at most; half of it at least.
        ids: number of single-id features of the request, and of the sample.
    """

    model: str
    dim: int
    batch_size: int
    lists: int
    length: int
    ids: int

    def quick(self) -> "Shape":
        """The same in small, for a machine without a GPU."""
        return Shape(self.model, 16, 128, 2, 12, 3)


SHAPES = {"rm1": Shape("sequence", 64, 4096, 6, 180, 26), "dlrm": Shape("dlrm", 128, 8192, 12, 40, 26)}


def schema_of(shape: Shape) -> Schema:
    """Features of a user, a request and a sample; the candidate looks up the table of the first list."""
    lists = [Feature(f"list_{n}", Kind.ids, "user", f"items_{n}") for n in range(shape.lists)]
    request = [Feature(f"request_{n}", Kind.id, "request", f"request_{n}") for n in range(shape.ids)]
    sample = [Feature(f"sample_{n}", Kind.id, "sample", f"sample_{n}") for n in range(shape.ids)]
    candidate = Feature("candidate", Kind.id, "sample", "items_0")
    return Schema((*lists, *request, candidate, *sample, Feature("price", Kind.dense, "sample", None)))


def tables_of(shape: Shape, rows: int) -> dict[str, Table]:
    """For each table its size: lists look up many rows, single ids a hundredth of them."""
    names = schema_of(shape).tables
    return {t: Table(t, rows if t.startswith("items") else max(16, rows // 100), shape.dim) for t in names}


def random_batch(shape: Shape, tables: dict[str, Table], seed: int) -> Batch:
    """A batch on the host; few ids are frequent and many are rare."""
    schema, random, size = schema_of(shape), torch.Generator().manual_seed(seed), shape.batch_size
    rows = {"user": size // SAMPLES_PER_ROW, "request": size // (SAMPLES_PER_ROW // 2), "sample": size}
    groups = tuple(GroupLayout(g, schema.sparse_of(g), rows[g]) for g in schema.groups)
    values, lengths, offsets = list[Tensor](), list[Tensor](), [0]
    for group, feature in ((g, schema[key]) for g in groups for key in g.keys):
        own = torch.ones(group.num_rows, dtype=torch.int32)
        if feature.kind is Kind.ids:
            own = torch.randint(shape.length // 2, shape.length + 1, own.shape, generator=random).int()
        uniform = torch.rand(int(own.sum()), generator=random)
        values.append((uniform**3 * tables[str(feature.table)].num_embeddings).int())
        lengths.append(own)
        offsets.append(offsets[-1] + len(values[-1]))
    inverse = [torch.arange(size, dtype=torch.int32) // (size // rows[g.name]) for g in groups if g.name != "sample"]
    sparse = IKJT(groups, size, torch.cat(values), torch.cat(lengths), torch.cat(inverse), tuple(offsets))
    labels = (torch.rand(size, 1, generator=random) < 0.3).float()
    ids = torch.arange(size)
    return Batch(sparse, {"sample": torch.rand(size, 1, generator=random)}, labels, ids, ids // SAMPLES_PER_ROW)
