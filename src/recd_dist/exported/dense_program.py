"""The dense layers as a program of torch.export: plain operators of torch, for any number of rows and samples.

::

    program(inputs, weights) -> scores float32 [B, T], logits float32 [B, T]

    weights           what dense.safetensors holds; inputs:
    inverse           int64 [B]        for each sample the row of its user, in [0, U); only where users are deduplicated
    pooled.GROUP      float32 [U, ...] or [B, ...] for ``sample``: the vectors of its features side by side
    dense.GROUP       float32 [U, n] or [B, n]: its numbers
    list.FEATURE      float32 [N, D]: vectors of a history, row after row, with
    lengths.FEATURE   int64 [U] or [B]: the lengths of the rows, at most ``max_length`` of the model
    ids.FEATURE       int64 [N]: ids that the model takes as they are, with lengths
    steps             int64 [L]: 0 ... L - 1, where L is the length of the longest history, and at least 1

All deduplicated groups have the rows of the users here: U distinct combinations. Whoever has none may give each sample
its own row, with inverse 0 ... B - 1.
"""

import io
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call

from recd_dist.errors import ConfigError, DataError
from recd_dist.exported.description import CUSTOM, DENSE, PROGRAM, PROGRAM_REQUEST, Description
from recd_dist.exported.lookups import pooled_features
from recd_dist.exported.tensor_files import save_tensors
from recd_dist.model.scores import to_scores
from recd_dist.model.task import Task
from recd_dist.table.location import first_line
from recd_dist.table.schema import SAMPLE
from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged
from recd_dist.tensors.jagged import gather_rows
from recd_dist.tensors.levels import TracedLevel

_POOLED, _DENSE, _LIST, _LENGTHS, _IDS = "pooled.", "dense.", "list.", "lengths.", "ids."
_INVERSE, _STEPS = "inverse", "steps"


class _Program(nn.Module):
    """The layers behind inputs that are plain tensors; it has no weights of its own, they are given, too.

    Args:
        layers: the dense layers, in evaluation mode.
        keys: for each group the names of its pooled features.
        dim: the width of a vector.
        homes: for each list its group.
        tasks: what the logits are of.
    """

    def __init__(
        self,
        layers: nn.Module,
        keys: Mapping[str, tuple[str, ...]],
        dim: int,
        homes: Mapping[str, str],
        tasks: tuple[Task, ...],
    ) -> None:
        super().__init__()
        self._layers = (layers,)  # in a tuple, so that its weights do not become those of the program
        self._keys, self._dim, self._homes, self._tasks = keys, dim, homes, tasks

    def forward(self, inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Scores and logits, float32 [B, T]."""
        inverse = inputs.get(_INVERSE)
        levels = dict[str, TracedLevel]()

        def grouped(group: str, values: Tensor, **names: Any) -> Grouped:
            if group == SAMPLE or inverse is None:
                return Grouped(values, None, **names)
            level = levels.setdefault("user", TracedLevel(inverse, values.shape[0]))
            return Grouped(values, inverse, known_inverse=cast(Any, level), **names)

        def jagged(name: str, values: Tensor) -> GroupedJagged:
            lengths, most = inputs[_LENGTHS + name], inputs[_STEPS].shape[0]
            if self._homes[name] == SAMPLE or inverse is None:
                return GroupedJagged(values, lengths, most=most)
            level = levels.setdefault("user", TracedLevel(inverse, lengths.shape[0]))
            return GroupedJagged(values, lengths, inverse, None, cast(Any, level), most=most)

        pooled, dense, lists, ids = (
            {name.removeprefix(start): given for name, given in inputs.items() if name.startswith(start)}
            for start in (_POOLED, _DENSE, _LIST, _IDS)
        )
        embedded = Embedded(
            {g: grouped(g, v, keys=self._keys[g], dims=(self._dim,) * len(self._keys[g])) for g, v in pooled.items()},
            {name: jagged(name, values) for name, values in lists.items()},
            {name: jagged(name, values) for name, values in ids.items()},
        )
        given = embedded, {g: grouped(g, v) for g, v in dense.items()}
        logits = functional_call(self._layers[0], weights, given).float()
        return to_scores(logits, self._tasks), logits


class ProgramInputs:
    """Makes the inputs of a program of what was looked up.

    Args:
        description: the export.
    """

    def __init__(self, description: Description) -> None:
        schema = description.schema
        self.dim = int(description.model["dim"])
        self.pooled = {g: names for g, names in pooled_features(description).items() if names}
        self.dense = {g: schema.dense_of(g) for g in schema.groups if schema.dense_of(g)}
        self.lists = description.sequences
        # A model that is looked up for an id knows it by its vector; its ids only save work.
        self.ids = tuple(name for name in description.ids if name in description.unused)
        self.homes = {name: schema[name].group for name in (*self.lists, *self.ids)}
        self.has_users = bool(schema.dedup_groups)
        self._most = int(description.model.get("max_length", 1 << 30))

    def of(self, embedded: Embedded, dense: Mapping[str, Grouped]) -> dict[str, Tensor]:
        """The inputs of a batch, deduplicated or expanded.

        Args:
            embedded: the vectors of the batch.
            dense: its numbers; those of an expanded batch stand in ``sample``, group after group.
        """
        jagged = {**embedded.sequences, **embedded.ids}
        users = _Users.of([*embedded.pooled.values(), *dense.values(), *jagged.values()])
        columns = {name: (x, x[name]) for x in embedded.pooled.values() for name in x.keys}
        inputs = dict[str, Tensor]()
        if self.has_users:
            inputs[_INVERSE] = users.inverse
        for group, names in self.pooled.items():
            inputs[_POOLED + group] = torch.cat([users.rows(group, *columns[name]) for name in names], 1)
        for group, names in self.dense.items():
            inputs[_DENSE + group] = users.rows(group, *self._numbers(dense, group, len(names)))
        longest = 1
        for name in (*self.lists, *self.ids):
            values, lengths = users.lists(self.homes[name], jagged[name], self._most)
            inputs[(_LIST if name in self.lists else _IDS) + name] = values
            inputs[_LENGTHS + name] = lengths.long()
            longest = max(longest, int(lengths.max()) if len(lengths) else 0)
        if self.homes:
            inputs[_STEPS] = torch.arange(longest)
        return dict(sorted(inputs.items()))

    def _numbers(self, dense: Mapping[str, Grouped], group: str, width: int) -> tuple[Grouped, Tensor]:
        """The numbers of a group, and whose rows they are."""
        if group in dense and dense[group].values.shape[1] == width:
            return dense[group], dense[group].values
        first = 0
        for other, names in self.dense.items():
            if other == group:
                break
            first += len(names)
        return dense[SAMPLE], dense[SAMPLE].values[:, first : first + width]

    def example(self) -> dict[str, Tensor]:
        """Made-up inputs of 4 users with 16 samples each, by whose sizes the work of the program is divided."""
        inputs, rows = dict[str, Tensor](), {SAMPLE: 64}
        if self.has_users:
            inputs[_INVERSE] = torch.arange(4).repeat_interleave(16)
        draw = torch.Generator().manual_seed(0)
        for start, groups, width in ((_POOLED, self.pooled, self.dim), (_DENSE, self.dense, 1)):
            for group, names in groups.items():
                inputs[start + group] = torch.randn(rows.get(group, 4), len(names) * width, generator=draw)
        for name in (*self.lists, *self.ids):
            lengths = torch.arange(rows.get(self.homes[name], 4)) % 5 + 2
            if name in self.ids and self.homes[name] == SAMPLE:
                lengths = torch.ones_like(lengths)
            size = int(lengths.sum())
            values = torch.randn(size, self.dim, generator=draw) if name in self.lists else torch.arange(size)
            inputs |= {(_LIST if name in self.lists else _IDS) + name: values, _LENGTHS + name: lengths}
        if self.homes:
            inputs[_STEPS] = torch.arange(7)
        return dict(sorted(inputs.items()))


class _Users(NamedTuple):
    """The users of a batch: the distinct combinations of rows that samples have.

    Attributes:
        inverse: int64 [B], for each sample its user.
        first: int64 [U], for each user the first sample.
    """

    inverse: Tensor
    first: Tensor

    @staticmethod
    def of(parts: Sequence[Grouped | GroupedJagged]) -> "_Users":
        """The users of what was looked up."""
        inverses = [x.inverse.numpy() for x in parts if x.inverse is not None]
        if not inverses:
            own = torch.arange(parts[0].batch_size)
            return _Users(own, own)
        distinct = {id(x): x for x in inverses}
        _, first, inverse = np.unique(np.stack(list(distinct.values())), axis=1, return_index=True, return_inverse=True)
        return _Users(torch.from_numpy(inverse.reshape(-1)), torch.from_numpy(first))

    def rows(self, group: str, of: Grouped, values: Tensor) -> Tensor:
        """Rows of a group as the program takes them: of users, or of samples."""
        if group == SAMPLE:
            return values
        return values.index_select(0, self.first if of.inverse is None else of.inverse[self.first].long())

    def lists(self, group: str, of: GroupedJagged, most: int) -> tuple[Tensor, Tensor]:
        """Lists as the program takes them, cut to their last values; and their lengths."""
        cut = of.keep_last(most)
        if group == SAMPLE:
            return cut.values, cut.lengths
        rows = self.first if of.inverse is None else of.inverse[self.first].long()
        values, lengths, _ = gather_rows(cut.values, cut.lengths, rows)
        return values, lengths


class ProgramLayers(nn.Module):
    """A program in the place of the dense layers.

    Args:
        program: what torch.export has made.
        inputs: makes its inputs.
        weights: those of the dense layers.
    """

    def __init__(self, program: nn.Module, inputs: ProgramInputs, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.program, self.inputs, self.weights = program, inputs, dict(sorted(weights.items()))

    def forward(self, embedded: Embedded, dense: Mapping[str, Grouped]) -> Tensor:
        """Logits, float32 [B, T]."""
        logits: Tensor = self.program(self.inputs.of(embedded, dense), self.weights)[1]
        return logits


def write_program(
    directory: Path, description: Description, layers: nn.Module, given: Mapping[str, Tensor]
) -> str | None:
    """Writes the program, and some samples as its inputs with what it gives.

    Args:
        directory: the export.
        description: what it is.
        layers: its dense layers.
        given: what ``ProgramInputs`` makes of the samples.

    Returns:
        None; or why this model has no program.
    """
    if description.model.get("fuse"):
        return "model.fuse=true lays histories into each other by their times, on the host"
    inputs = ProgramInputs(description)
    program = _Program(layers, inputs.pooled, inputs.dim, inputs.homes, description.tasks).eval()
    example = inputs.example()
    weights = {name: weight.detach() for name, weight in sorted(layers.state_dict().items())}
    shapes = {name: {0: torch.export.Dim.DYNAMIC} for name in example}, dict.fromkeys(weights)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.export.export(program, (example, weights), dynamic_shapes=shapes, strict=False)
    except Exception as error:
        if description.model["name"] != CUSTOM:
            raise
        return f"torch.export cannot follow {description.model['class']}: {first_line(error)}"
    # Torch finds the order of the dicts by its example, which is saved, too: without the numbers of the weights.
    made.example_inputs = ((example, {name: torch.empty(0) for name in weights}), {})
    for node in made.graph.nodes:
        for told in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):  # lines of the sources
            node.meta.pop(told, None)
    file = io.BytesIO()  # so that a disk that refuses is an OSError, which says why
    torch.export.save(made, file)
    (directory / PROGRAM).write_bytes(file.getvalue())
    scores, logits = made.module()(dict(given), weights)
    save_tensors({**given, "scores": scores, "logits": logits}, directory / PROGRAM_REQUEST)
    return None


def load_program(directory: Path, description: Description) -> ProgramLayers:
    """Loads the program of an export.

    Raises:
        ConfigError: the export has none.
        DataError: it cannot be loaded.
    """
    path = directory / PROGRAM
    if not path.is_file():
        raise ConfigError(f"{path}: this model has no program; load it with engine=layers")
    try:
        with _tensors_alone():
            made = torch.export.load(path)
    except Exception as error:
        raise DataError(f"{path}: cannot be loaded ({error!r}); export the run again") from error
    return ProgramLayers(made.module(), ProgramInputs(description), load_file(directory / DENSE))


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """Lets torch.load read tensors and nothing else, though torch.export asks it for all that a pickle may hold."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
