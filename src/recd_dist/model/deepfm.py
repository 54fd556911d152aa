"""The DeepFM model: a first order, the products of all pairs of vectors, and an MLP, added up.

After Guo et al., 2017. The first order is a linear function of the vectors and the dense features. Each number of the
pair products has a weight for each task, which is 1 before training: that is the paper's sum.
"""

from collections.abc import Sequence

from torch import nn

from recd_dist.model.factorization import add_pair_products
from recd_dist.model.layers import Tower, check_layers
from recd_dist.model.model_inputs import Inputs, Vectors
from recd_dist.model.pooled_model import FeatureColumns, PooledModel, join_parts
from recd_dist.table.schema import Schema
from recd_dist.tensors.shared import Rows


class DeepFM(PooledModel):
    """First order, pair products and an MLP.

    Args:
        schema: the features; every table must be ``dim`` wide.
        dim: the width of the embeddings.
        bottom: the widths of the bottom MLP's layers, over dense features.
        over: the widths of the MLP's hidden layers.
        dropout: the share of the MLP's activations that is dropped in training, in [0, 1).
        num_tasks: T, the number of tasks.

    Raises:
        ConfigError: a width or the share is out of range.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int,
        bottom: Sequence[int] = (128, 64),
        over: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        num_tasks: int = 1,
    ) -> None:
        super().__init__(dim)
        check_layers(dropout, over=over)
        self.columns = FeatureColumns(schema, dim, bottom)
        self.first_order = nn.Linear(self.columns.num_plain, num_tasks)
        self.pairs = nn.Linear(dim, num_tasks, bias=False)
        nn.init.ones_(self.pairs.weight)
        # The dense features take part in the pairs as one more vector.
        self.project = None if self.columns.bottom is None else nn.Linear(self.columns.bottom.size, dim)
        self.deep = Tower(self.columns.width, over, dropout, num_tasks)

    def compute(self, inputs: Inputs) -> Rows:
        """Logits [B, T].

        Args:
            inputs: the batch.
        """
        embedded, dense = self.columns.parts(inputs)
        vectors = list(inputs.vectors.values())
        if self.project is not None:
            vectors.append(Vectors(("dense",), self.project(dense)))
        pairs = self.pairs(add_pair_products(vectors, self.dim))
        first_order = self.first_order(self.columns.plain(inputs))
        logits: Rows = first_order + pairs + self.deep(join_parts(embedded, dense))
        return logits
