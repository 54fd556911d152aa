"""The DLRM model: pooled embeddings, a bottom MLP, dot products and an over-arch.

After Naumov et al., 2019. With deduplication each part is computed on the rows where it is unique (interaction.py,
layers.py); without it, every part is computed per sample. Parameters and results are the same.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from recd_dist.model.head import DotHead
from recd_dist.model.model_inputs import Inputs
from recd_dist.table.schema import SAMPLE, Schema
from recd_dist.tensors.grouped import Embedded, Grouped


class DLRM(nn.Module):
    """The dot-interaction model.

    Args:
        schema: the features; every table must be ``dim`` wide.
        dim: the width of the embeddings.
        bottom: the widths of the bottom MLP's layers, over dense features.
        over: the widths of the over-arch's hidden layers.
        dropout: the share of the over-arch's activations that is dropped in training, in [0, 1).
        num_tasks: T, the number of tasks.
        batch_norm: normalise the over-arch's layers over the samples of all ranks.

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
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.dim = dim
        shared = [name for group in schema.dedup_groups for name in schema.sparse_of(group)]
        self.head = DotHead(schema, shared, schema.sparse_of(SAMPLE), dim, bottom, over, dropout, num_tasks, batch_norm)

    @staticmethod
    def sequence_features(schema: Schema) -> tuple[str, ...]:
        """The features that this model takes as lists of vectors: none, because lists come pooled."""
        del schema
        return ()

    def forward(self, embedded: Embedded, dense: Mapping[str, Grouped]) -> Tensor:
        """Logits float [B, T].

        Args:
            embedded: for each group its pooled features, [U, n * dim].
            dense: for each group its dense features, [U, n].
        """
        logits: Tensor = self.head(Inputs.of(embedded, dense, self.dim))
        return logits
