"""While torch.export traces the dense layers: sizes are symbols then, and tensors hold no numbers to look at."""

from typing import Any

import torch


def is_traced() -> bool:
    """Whether a program is being made of what runs now, so that neither sizes nor values are known."""
    return torch.compiler.is_exporting()


def expected_size(size: Any) -> int:
    """A size by which work is divided: while a program is made, that of the example.

    Args:
        size: a number of rows; a symbol while a program is made.
    """
    return int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)
