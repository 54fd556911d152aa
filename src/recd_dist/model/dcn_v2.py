"""The DCN v2 model: cross layers over all features, then an over-arch.

After Wang et al., 2021, stacked as in MLPerf's DLRM-DCNv2: the bottom MLP over dense features, the cross layers over
its output beside the embeddings, the over-arch over theirs.
"""

from collections.abc import Sequence

from recd_dist.model.cross import CrossLayers
from recd_dist.model.layers import Tower, check_layers
from recd_dist.model.model_inputs import Inputs
from recd_dist.model.pooled_model import FeatureColumns, PooledModel
from recd_dist.table.schema import Schema
from recd_dist.tensors.shared import Rows


class DCNv2(PooledModel):
    """Cross layers, then an over-arch.

    Args:
        schema: the features; every table must be ``dim`` wide.
        dim: the width of the embeddings.
        bottom: the widths of the bottom MLP's layers, over dense features.
        over: the widths of the over-arch's hidden layers.
        dropout: the share of the over-arch's activations that is dropped in training, in [0, 1).
        cross_layers: the number of cross layers.
        rank: the rank of their matrices; 0 for full ones.
        num_tasks: T, the number of tasks.

    Raises:
        ConfigError: a number or the share is out of range.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int,
        bottom: Sequence[int] = (128, 64),
        over: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        cross_layers: int = 3,
        rank: int = 64,
        num_tasks: int = 1,
    ) -> None:
        super().__init__(dim)
        check_layers(dropout, over=over)
        self.columns = FeatureColumns(schema, dim, bottom)
        self.cross = CrossLayers(self.columns.width, cross_layers, rank)
        self.over = Tower(self.columns.width, over, dropout, num_tasks)

    def compute(self, inputs: Inputs) -> Rows:
        """Logits [B, T].

        Args:
            inputs: the batch.
        """
        logits: Rows = self.over(self.cross(self.columns(inputs)))
        return logits
