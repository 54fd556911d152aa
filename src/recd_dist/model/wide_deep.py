"""The Wide & Deep model: a linear function and an MLP of all features, added up.

After Cheng et al., 2016. The wide part reads the vectors of all ids, crossed ids among them where the data has such
columns (``hash(a, b)`` in its SQL), and the dense features as they are.
"""

from collections.abc import Sequence

import torch
from torch import nn

from recd_dist.model.layers import Tower, check_layers
from recd_dist.model.model_inputs import Inputs
from recd_dist.model.pooled_model import FeatureColumns, PooledModel
from recd_dist.table.schema import Schema
from recd_dist.tensors.shared import Rows


class WideDeep(PooledModel):
    """A linear function and an MLP.

    Args:
        schema: the features; every table must be ``dim`` wide.
        dim: the width of the embeddings.
        bottom: the widths of the bottom MLP's layers, over dense features.
        over: the widths of the deep part's hidden layers.
        dropout: the share of the deep part's activations that is dropped in training, in [0, 1).
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
        self.wide = nn.Linear(self.columns.num_plain, num_tasks)
        self.deep = Tower(self.columns.width, over, dropout, num_tasks)

    def compute(self, inputs: Inputs) -> Rows:
        """Logits [B, T].

        Args:
            inputs: the batch.
        """
        logits: Rows = torch.add(self.wide(self.columns.plain(inputs)), self.deep(self.columns(inputs)))
        return logits
