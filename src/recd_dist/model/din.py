"""The Deep Interest Network: a small network weighs each event of a history for each candidate.

After Zhou et al., 2018. Histories without a candidate are pooled, as are all other lists. Vectors of histories then
interact with those of other features, as in the other models here (head.py).
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from recd_dist.errors import ConfigError
from recd_dist.model.activation_unit import ActivationUnit
from recd_dist.model.head import DotHead
from recd_dist.model.histories import module_per_history, read_candidate, read_history, split_vectors
from recd_dist.model.history_choice import find_histories
from recd_dist.model.model_inputs import Inputs, Vectors
from recd_dist.table.module_names import module_key
from recd_dist.table.schema import Schema
from recd_dist.tensors.grouped import Embedded, Grouped


class DIN(nn.Module):
    """Activation units over histories, then dot interaction and over-arch.

    Args:
        schema: the features; every table must be ``dim`` wide.
        dim: the width of the embeddings.
        bottom: the widths of the bottom MLP's layers, over dense features.
        over: the widths of the over-arch's hidden layers.
        dropout: the share of the over-arch's activations that is dropped in training, in [0, 1).
        unit: the width of the activation unit's hidden layer.
        softmax: True to make the weights of a history sum up to 1.
        max_length: how many of a history's ids are used at most; they are the last ones.
        histories: the lists that are histories; None for all that have a candidate.
        beside: for each history the lists whose vectors are added to its own.
        num_tasks: T, the number of tasks.
        batch_norm: normalise the over-arch's layers over the samples of all ranks.

    Raises:
        ConfigError: the schema has no history with a candidate, or a value is out of range.
    """

    def __init__(  # noqa: PLR0913  (each is an option of the model)
        self,
        schema: Schema,
        dim: int,
        *,
        bottom: Sequence[int] = (128, 64),
        over: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        unit: int = 32,
        softmax: bool = False,
        max_length: int = 200,
        histories: Sequence[str] | None = None,
        beside: Mapping[str, Sequence[str]] | None = None,
        num_tasks: int = 1,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if unit < 1:
            raise ConfigError(f"model.unit is {unit}; the activation unit needs a hidden layer of at least 1")
        if max_length < 1:
            raise ConfigError(f"model.max_length is {max_length}; a history needs at least 1")
        self.dim, self.max_length = dim, max_length
        self.chosen = find_histories("din", schema, histories, beside)
        self.units = module_per_history(self.chosen, [ActivationUnit(dim, unit, softmax) for _ in self.chosen])
        vectors = split_vectors(schema, self.chosen)
        self.head = DotHead(schema, *vectors, dim, bottom, over, dropout, num_tasks, batch_norm)

    @staticmethod
    def sequence_features(
        schema: Schema, histories: Sequence[str] | None = None, beside: Mapping[str, Sequence[str]] | None = None
    ) -> tuple[str, ...]:
        """The features that this model takes as lists of vectors: the histories that have a candidate."""
        chosen = find_histories("din", schema, histories, beside)
        return tuple(name for h in chosen for name in h.lists)

    def forward(self, embedded: Embedded, dense: Mapping[str, Grouped]) -> Tensor:
        """Logits float [B, T].

        Args:
            embedded: for each group its pooled features, [U, n * dim], and the histories, [N, dim].
            dense: for each group its dense features, [U, n].
        """
        inputs, seen = Inputs.of(embedded, dense, self.dim), list[Vectors]()
        for history in self.chosen:
            vectors, candidate = read_history(history, inputs, self.max_length), read_candidate(history, inputs)
            seen.append(Vectors((history.name,), self.units[module_key(history.name)](vectors, candidate)))
        logits: Tensor = self.head(inputs, seen)
        return logits
