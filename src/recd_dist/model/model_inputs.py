"""What a model computes with: the embedded features and the dense ones, as tensors that stand for a row per sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from recd_dist.errors import ConfigError
from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged
from recd_dist.tensors.levels import Levels
from recd_dist.tensors.shared import Rows, Shared


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors side by side.

    Attributes:
        names: the vectors' names.
        values: [B, number of names * width], the vectors in the order of ``names``; rows may be shared.
    """

    names: tuple[str, ...]
    values: Rows


@dataclass(frozen=True, eq=False)
class Inputs:
    """One batch as a model takes it; shared rows are those of the batch's groups, where sharing is worth it.

    Attributes:
        vectors: for each group its pooled features side by side.
        dense: for each group that has them its dense features, float [B, n].
        histories: for each feature that is not pooled its lists of vectors; they know their level.
        batch_size: B, the number of samples.
        ids: for each feature that is not looked up its lists of ids; they know their level.
    """

    vectors: Mapping[str, Vectors]
    dense: Mapping[str, Rows]
    histories: Mapping[str, GroupedJagged]
    batch_size: int
    ids: Mapping[str, GroupedJagged] = field(default_factory=dict)

    @staticmethod
    def of(embedded: Embedded, dense: Mapping[str, Grouped], dim: int | None = None) -> "Inputs":
        """The inputs of a batch.

        Args:
            embedded: for each group its pooled features, and the lists of vectors.
            dense: for each group its dense features.
            dim: the width that every pooled feature must have; None takes any.

        Raises:
            ConfigError: a table has another width.
            ValueError: the batch holds no features.
        """
        if dim is not None:
            _check_width(embedded, dim)
        levels = Levels()
        sizes = [x.batch_size for tensors in (embedded.pooled, dense) for x in tensors.values()]
        sizes += [x.batch_size for x in embedded.sequences.values()]
        if not sizes:
            raise ValueError("model: the batch holds no features")
        return Inputs(
            {g: Vectors(x.keys, _share(levels, x)) for g, x in embedded.pooled.items() if x.keys},
            {g: _share(levels, x) for g, x in dense.items()},
            {name: _share_lists(levels, x) for name, x in embedded.sequences.items()},
            sizes[0],
            {name: _share_lists(levels, x) for name, x in embedded.ids.items()},
        )

    @cached_property
    def pooled(self) -> dict[str, Rows]:
        """For each pooled feature its vector, [B, dim]."""
        return {
            name: vector
            for part in self.vectors.values()
            for name, vector in zip(part.names, part.values.chunk(len(part.names), 1), strict=True)
        }

    def columns(self, names: Sequence[str]) -> Rows | None:
        """The vectors of pooled features side by side, [B, n * dim], in the order of names; None without names."""
        place = {name: (group, n) for group, part in self.vectors.items() for n, name in enumerate(part.names)}
        runs: list[list[Any]] = []  # [group, number of its first vector, how many]; these stand side by side already
        for name in names:
            group, number = place[name]
            if runs and runs[-1][0] == group and sum(runs[-1][1:]) == number:
                runs[-1][2] += 1
            else:
                runs.append([group, number, 1])
        return join_columns([self._take_vectors(*run) for run in runs])

    def _take_vectors(self, group: str, first: int, count: int) -> Rows:
        part = self.vectors[group]
        width = part.values.shape[1] // len(part.names)
        taken: Rows = part.values.narrow(1, first * width, count * width) if count < len(part.names) else part.values
        return taken

    def dense_columns(self, groups: Sequence[str]) -> Rows | None:
        """The dense features side by side, [B, n], in the order of groups; None where there are none."""
        parts = [self.dense[g] for g in groups if g in self.dense]
        return join_columns(parts)


def _check_width(embedded: Embedded, dim: int) -> None:
    for pooled in embedded.pooled.values():
        if other := {d for d in pooled.dims if d != dim}:
            name = pooled.keys[pooled.dims.index(min(other))]
            raise ConfigError(
                f"feature '{name}' has vectors of width {min(other)}, this model's are {dim} wide; "
                f"set model.dim, or the dim of its table, so that they agree"
            )


def join_columns(parts: Sequence[Rows | None]) -> Rows | None:
    """Lays matrices [B, n] side by side, their rows shared as before; None where there are no columns."""
    filled = [p for p in parts if p is not None and p.shape[1]]
    if not filled:
        return None
    if len(filled) == 1:
        return filled[0]
    joined: Rows = torch.cat(filled, 1)  # type: ignore[arg-type]
    return joined


def _share(levels: Levels, grouped: Grouped) -> Rows:
    level = levels.find(grouped.inverse, grouped.num_rows, grouped.known_inverse)
    return grouped.expand() if level is None else Shared(grouped.values, level)


def _share_lists(levels: Levels, lists: GroupedJagged) -> GroupedJagged:
    level = levels.find(lists.inverse, lists.num_rows, lists.known_inverse)
    return lists.expand() if level is None else replace(lists, level=level)
