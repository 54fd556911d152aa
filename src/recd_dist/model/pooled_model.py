"""What models of pooled vectors have in common: all features as columns, from the same inputs to the same logits."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from recd_dist.model.layers import DenseArch, check_layers
from recd_dist.model.model_inputs import Inputs, join_columns
from recd_dist.table.schema import SAMPLE, Schema
from recd_dist.tensors.grouped import Embedded, Grouped
from recd_dist.tensors.shared import Rows, expand


class PooledModel(nn.Module):
    """A model of pooled vectors and dense features; a subclass computes logits in ``compute``.

    Args:
        dim: the width of the embeddings.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @staticmethod
    def sequence_features(schema: Schema) -> tuple[str, ...]:
        """The features that these models take as lists of vectors: none, because lists come pooled."""
        del schema
        return ()

    def forward(self, embedded: Embedded, dense: Mapping[str, Grouped]) -> Tensor:
        """Logits float [B, T].

        Args:
            embedded: for each group its pooled features, [U, n * dim].
            dense: for each group its dense features, [U, n].
        """
        return expand(self.compute(Inputs.of(embedded, dense, self.dim)))

    def compute(self, inputs: Inputs) -> Rows:
        """Logits [B, T], their rows shared where everything that they depend on is.

        Args:
            inputs: the batch.
        """
        raise NotImplementedError


class FeatureColumns(nn.Module):
    """All features side by side: the vectors of each group, then the dense features through the bottom MLP.

    Args:
        schema: the features.
        dim: the width of the embeddings.
        bottom: the widths of the bottom MLP's layers, over dense features.

    Attributes:
        width: the number of columns.
        num_dense: the number of dense features.
        num_plain: the number of columns of ``plain``.
    """

    def __init__(self, schema: Schema, dim: int, bottom: Sequence[int]) -> None:
        super().__init__()
        check_layers(dim=[dim], bottom=bottom)
        self.groups = (*schema.dedup_groups, SAMPLE)
        self.names = tuple(name for group in self.groups for name in schema.sparse_of(group))
        self.num_dense = len(schema.dense)
        self.bottom = DenseArch(self.num_dense, bottom) if self.num_dense else None
        self.width = len(self.names) * dim + (0 if self.bottom is None else self.bottom.size)
        self.num_plain = len(self.names) * dim + self.num_dense

    def forward(self, inputs: Inputs) -> Rows:
        """The columns [B, width], each with its rows shared as they are in its group."""
        return join_parts(*self.parts(inputs))

    def parts(self, inputs: Inputs) -> tuple[Rows | None, Rows | None]:
        """The vectors side by side, and what the bottom MLP makes of the dense features; None where there are none."""
        dense = inputs.dense_columns(self.groups)
        return inputs.columns(self.names), None if self.bottom is None or dense is None else self.bottom(dense)

    def plain(self, inputs: Inputs) -> Rows:
        """The vectors and the dense features as they are, [B, num_plain]."""
        return join_parts(inputs.columns(self.names), inputs.dense_columns(self.groups))


def join_parts(vectors: Rows | None, dense: Rows | None) -> Rows:
    """Lays vectors and dense columns side by side, [B, width].

    Raises:
        ValueError: there are neither.
    """
    columns = join_columns([vectors, dense])
    if columns is None:
        raise ValueError("model: there are no features")
    return columns
