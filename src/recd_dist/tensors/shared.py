"""Shared tensors: they stand for a row per sample and hold a row per unique row.

::

    Shared(values [U, width], level)   stands for the tensor   level.expand(values)   of shape [B, width]

A model's ``forward`` is written as for ordinary tensors [B, ...]. Functions of torch that treat rows one by one are
computed on the U rows that are held, and give a shared tensor again; a function of several shared tensors is computed
at the join of their levels; a linear layer over columns of several levels multiplies each level's columns where they
are unique (``Columns``); any other function gets the expanded tensor, so that it is right and merely not faster.
``expand`` does that on demand. Where nothing is shared a model gets plain tensors, and none of this runs.

::

    torch.relu(user)                             U rows
    layer_norm(user) * request                   once per request, if every request lies in one user's rows
    linear(torch.cat([user, request, item], 1))  W_user user: U rows; W_request request: R rows; W_item item: B rows
    user.mean(0)                                 expanded first: a mean over samples needs them all
"""

from recd_dist.tensors import row_functions
from recd_dist.tensors.row_tensors import Columns, Rows, RowTensor, Shared, expand, level_of, rows_at, stand_beside

# row_functions stands here for what its import does: it says how functions of torch take shared tensors.
__all__ = ["Columns", "RowTensor", "Rows", "Shared", "expand", "level_of", "row_functions", "rows_at", "stand_beside"]
