"""The optimizers of the tables: those without a kernel on the device are refused."""

import pytest
import torch
from torch import nn
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from recd_dist.embedding.distribute import TableOptimizer
from recd_dist.errors import ConfigError


def test_optimizers_without_a_cpu_kernel_are_refused() -> None:
    TableOptimizer("adam").check("cuda")
    with pytest.raises(ConfigError, match="'adam' has no CPU kernel in fbgemm; use sgd, adagrad, rowwise_adagrad"):
        TableOptimizer("adam").check("cpu")
    with pytest.raises(ConfigError, match="'adagrd' is unknown; did you mean 'adagrad'"):
        TableOptimizer("adagrd").check("cpu")


def test_kernels_that_do_not_run_are_refused() -> None:
    TableOptimizer(kernel="recd").check("cpu")
    with pytest.raises(ConfigError, match="kernel=recd: runs on CPU only; use auto or fbgemm"):
        TableOptimizer(kernel="recd").check("cuda")
    with pytest.raises(ConfigError, match="kernel=fbgem: unknown; did you mean 'fbgemm'"):
        TableOptimizer(kernel="fbgem").check("cpu")


def test_data_parallel_tables_have_the_same_update_or_none() -> None:
    weights = [nn.Parameter(torch.ones(2, 4))]
    assert isinstance(TableOptimizer("rowwise_adagrad").build_plain(weights), RowWiseAdagrad)
    with pytest.raises(ConfigError, match="data-parallel tables take sgd, adagrad, rowwise_adagrad, not 'adam'"):
        TableOptimizer("adam").build_plain(weights)
