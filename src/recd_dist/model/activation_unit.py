"""DIN's activation unit: how much a vector of a history counts for a candidate.

The unit is a small network over [vector h, candidate c, h - c, h * c]. Its first layer is linear, so that its columns
may be regrouped::

    W1 h + W2 c + W3 (h - c) + W4 (h * c)  =  (W1 + W3) h     once per vector of a unique history
                                            + (W2 - W3) c     once per row of the candidate
                                            + W4 (h * c)      per pair

Per pair a quarter of the products remains, and the concatenation is never made.
"""

import torch
import torch.nn.functional as F
from torch import nn

from recd_dist.model.attention import SlottedQueries, index_of_rows, score_bias
from recd_dist.model.unit_blocks import score_pairs
from recd_dist.tensors.grouped import GroupedJagged
from recd_dist.tensors.levels import join_levels
from recd_dist.tensors.list_queries import ListQueries, fits_loops
from recd_dist.tensors.shared import Rows, Shared, level_of, rows_at


class ActivationUnit(nn.Module):
    """What a candidate sees of a history: the sum of its vectors, weighted by the unit (Zhou et al., 2018, 4.3).

    Args:
        dim: the width of the vectors.
        hidden: the width of the unit's hidden layer, which PReLU follows.
        softmax: True to make the weights of a history sum up to 1; the paper keeps them as they are, so that their sum
            says how much of the history is of the candidate's kind.
    """

    def __init__(self, dim: int, hidden: int, softmax: bool = False) -> None:
        super().__init__()
        self.dim, self.softmax = dim, softmax
        self.first = nn.Linear(4 * dim, hidden)
        self.slope = nn.Parameter(torch.full((1,), 0.25))
        # A softmax does not change with a bias, whose gradient would be rounding noise.
        self.out = nn.Linear(hidden, 1, bias=not softmax)

    def forward(self, history: GroupedJagged, candidates: Rows) -> Rows:
        """What each sample's candidate sees of its history, [B, dim]; zeros for an empty history.

        Args:
            history: the vectors [N, dim] of unique rows.
            candidates: the samples' vectors, [B, dim].
        """
        level = join_levels([history.level, level_of(candidates)])
        of_h, of_c, of_difference, of_product = self.first.weight.split(self.dim, 1)
        vector = history.values
        of_vector = F.linear(vector, of_h + of_difference, self.first.bias)
        own: Rows = F.linear(candidates, of_c - of_difference)  # type: ignore[arg-type]
        of_candidate, candidate = rows_at(level, own), rows_at(level, candidates)
        index = index_of_rows(history, level)
        out, bias = self.out.weight[0], self.out.bias
        if fits_loops(vector) and vector.dtype == of_vector.dtype:  # autocast gives layers another dtype
            queries = ListQueries.of(history, None if index is None else index.known)
            scores = score_pairs(queries, vector, of_vector, candidate, of_candidate, of_product, out, self.slope)
            scores = queries.softmax(scores) if bias is None else scores + bias
            return Shared.of(queries.sum(scores, vector), level)
        slots = SlottedQueries.of(index)
        width = self.first.out_features
        sides = torch.cat([vector, of_vector], 1)
        padded, mask = slots.gather_lists(history.with_values(sides))
        h, of_h = padded.split([self.dim, width], 2)
        c, of_c = slots.fill(torch.cat([candidate, of_candidate], 1)).split([self.dim, width], 2)
        weights = (c[:, :, None, :] * of_product).flatten(1, 2)
        x = torch.bmm(h, weights.mT).unflatten(2, (-1, width)) + of_h[:, :, None, :] + of_c[:, None, :, :]
        score = (torch.where(x > 0, x, self.slope * x) @ out).mT  # [slots, width of a slot, L]
        score = (score + score_bias(mask, score.dtype)[:, None, :]).softmax(-1) if bias is None else score + bias
        return Shared.of(slots.take(torch.bmm(score * mask[:, None, :], h)), level)
