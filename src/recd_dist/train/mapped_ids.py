"""Ids that come and go in a training run: batches are mapped one ahead, rows reset in time, mappings kept exactly.

::

    reader --raw ids--> a thread: rows --> TorchRec's pipeline (two batches) --> forward --> backward
                        one batch ahead                                          |
                        changes wait in order ---------------------------------> reset rows, keep the change

Before a batch is looked up, the batches before it are trained. That is when the rows that it took from other ids are
reset, and when the change that it brought is kept: a checkpoint has the mapping of its step, whatever was mapped ahead.
All collectives of the mapping run in the one thread, on a group of their own, in the order in which every rank asks for
them.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any

import numpy as np
import torch.distributed as dist
from torch import Tensor, nn

from recd_dist.embedding.ids.kept_ids import KeptIds
from recd_dist.embedding.ids.mapped_tables import Counts, Mapped, MappedTables
from recd_dist.embedding.ids.reset_rows import RowReset
from recd_dist.embedding.ids.row_owners import RowOwners
from recd_dist.job.job import Job
from recd_dist.metrics.gather import reduce_over_ranks
from recd_dist.ranks.process_group import Ranks
from recd_dist.tensors.batch import Batch

SUMMARY = "ids"
"""Key of ``summary.json`` under which the numbers of mapped tables stand."""

_LEAVE_S = 10.0
"""How long a job that ends by an error waits for the thread."""


class IdState(nn.Module):
    """The kept ids as part of a model's state, for checkpoints; it computes nothing.

    Args:
        kept: for each mapped table the ids of this rank's zones.
    """

    def __init__(self, kept: Mapping[str, KeptIds]) -> None:
        super().__init__()
        self.kept = dict(kept)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        del keep_vars
        for table, kept in self.kept.items():
            for name, tensor in kept.to_tensors().items():
                destination[f"{prefix}{table}.{name}"] = tensor

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
        for table, kept in self.kept.items():
            start = f"{prefix}{table}."
            kept.load({k.removeprefix(start): v for k, v in state_dict.items() if k.startswith(start)})


class MappedIds:
    """Maps the batches of a job; without mapped tables it passes them on as they are. Making it is a collective.

    Args:
        job: the job.
        ranks: this rank.
        model: the sharded model, into whose state the kept ids go as ``ids``.
        optimizer: the StepOptimizer of the whole model, which says how many steps are done when training begins; None
            where nothing is trained.
    """

    def __init__(self, job: Job, ranks: Ranks, model: Any, optimizer: Any = None) -> None:
        self._ranks, self._seed, self._model, self._optimizer = ranks, job.config.seed, model, optimizer
        schema = model.module.embeddings.schema
        mapped = any(job.tables[name].mapped for name in schema.tables)
        group: Any = None
        if mapped and ranks.world_size > 1:
            timeout = timedelta(seconds=job.config.timeouts.collective_s)
            group = dist.new_group(backend="gloo", timeout=timeout)
        self._owners = RowOwners(group)
        self._tables = MappedTables(schema, job.tables, self._owners)
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._ahead: deque[Mapped] = deque()  # mapped, and not trained yet
        self._reset: RowReset | None = None
        self._steps_before = job.chain.steps  # ids that runs before have seen are older than any step of this one
        self._step = self._mapped_step = 0
        self._counts = {name: Counts() for name in self._tables.names}
        self._evaluated = {name: Counts() for name in self._tables.names}
        self._shown: tuple[int, dict[str, dict[str, float]]] = (0, {})  # step and sums of the last ``numbers``
        if mapped:
            self._thread = threading.Thread(target=self._run, name="recd-ids", daemon=True)
            self._thread.start()
            model.module.ids = IdState(self._tables.kept)

    @property
    def is_idle(self) -> bool:
        """Whether no table is mapped."""
        return not self._tables.names

    def begin(self, step: int) -> None:
        """Goes on after a step, once the kept ids are loaded.

        Args:
            step: the number of steps that are done.
        """
        self._step = self._mapped_step = self._steps_before + step
        self._shown = (self._step, {})
        if not self.is_idle and self._optimizer is not None:
            self._tables.begin()
            self._model.register_forward_pre_hook(self._before_lookup)

    def ahead(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Maps batches that will be trained in this order, while the one before is trained."""
        return batches if self.is_idle else self._one_ahead(batches, self._give)

    def known(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        """Maps batches that are evaluated, by the ids as of the last step that was trained."""
        if self.is_idle:
            return batches
        finders = self._tables.finders(self._step)
        return self._one_ahead(iter(batches), lambda batch: self._tables.find(batch.sparse, finders), evaluated=True)

    def _one_ahead(
        self, batches: Iterator[Batch], map_batch: Callable[[Batch], Mapped], evaluated: bool = False
    ) -> Iterator[Batch]:
        waiting: tuple[Batch, Future[Mapped]] | None = None
        for batch in batches:
            following = batch, self._submit(map_batch, batch)
            if waiting is not None:
                yield self._take(*waiting, evaluated)
            waiting = following
        if waiting is not None:
            yield self._take(*waiting, evaluated)

    def _take(self, batch: Batch, future: "Future[Mapped]", evaluated: bool) -> Batch:
        mapped = future.result()
        if evaluated:
            for name, counts in mapped.counts.items():
                self._evaluated[name].add(counts)
        else:
            self._ahead.append(mapped)
        return replace(batch, sparse=mapped.sparse)

    def _give(self, batch: Batch) -> Mapped:
        self._mapped_step += 1
        return self._tables.give(batch.sparse, self._mapped_step)

    def _submit(self, function: Callable[[Batch], Mapped], batch: Batch) -> "Future[Mapped]":
        future: Future[Mapped] = Future()

        def work() -> None:
            try:
                future.set_result(function(batch))
            except BaseException as error:
                future.set_exception(error)

        self._work.put(work)
        return future

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _before_lookup(self, model: nn.Module, _batch: Any) -> None:
        """Every batch before this one is trained: its rows are reset, and its change is kept."""
        if not model.training:
            return
        mapped = self._ahead.popleft()
        self._step += 1
        for table, rows in mapped.reset.items():
            if len(rows):
                self._row_reset().reset(table, rows)
        for table, change in mapped.changes.items():
            self._tables.kept[table].apply(change)
        for table, counts in mapped.counts.items():
            self._counts[table].add(counts)

    def _row_reset(self) -> RowReset:
        """Made when rows are first taken: optimizers of data-parallel tables may make their states in a step."""
        if self._reset is None:
            sizes = {name: kept.zones.num_embeddings for name, kept in self._tables.kept.items()}
            self._reset = RowReset(self._model.module, self._optimizer, self._seed, sizes)
        return self._reset

    def numbers(self) -> dict[str, dict[str, float]]:
        """For the dashboard: what there is of each mapped table, and what a step brought since the last call.

        A collective. Returns for each number its value by table.
        """
        of_steps, self._shown = max(1, self._step - self._shown[0]), (self._step, self._shown[1])
        numbers: dict[str, dict[str, float]] = {}
        for table, total in self._sums().items():
            before = self._shown[1].get(table, {})
            since = {name: value - before.get(name, 0.0) for name, value in total.items()}
            self._shown[1][table] = total
            of_table = {
                "rows_used": total["rows_used"] / total["rows"],
                "unknown": since["unknown"] / max(1.0, since["lookups"]),
                "admitted": since["admitted"] / of_steps,
                "evicted": since["evicted"] / of_steps,
            }
            for name, value in of_table.items():
                numbers.setdefault(name, {})[table] = value
        return numbers

    def evaluated(self) -> dict[str, tuple[float, float]]:
        """For each mapped table the lookups of evaluations so far, and those of the unknown row; a collective."""
        sums = self._sums()
        return {table: (of["evaluated_lookups"], of["evaluated_unknown"]) for table, of in sums.items()}

    def admitted(self) -> dict[str, int]:
        """For each mapped table the ids that have got a row of this rank's zones in this attempt."""
        return {table: counts.admitted for table, counts in self._counts.items()}

    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """What mapped tables came to in this attempt, under ``ids``, by table; empty without any. A collective."""
        found: dict[str, dict[str, float]] = {}
        for table, total in self._sums().items():
            found[table] = {name: int(total[name]) for name in ("rows", "rows_used")}
            if total["lookups"]:
                found[table] |= {name: int(total[name]) for name in ("admitted", "evicted")}
                found[table]["unknown_share"] = total["unknown"] / total["lookups"]
            if total["evaluated_lookups"]:
                found[table]["unknown_share_evaluated"] = total["evaluated_unknown"] / total["evaluated_lookups"]
        return {SUMMARY: found} if found else {}

    def _sums(self) -> dict[str, dict[str, float]]:
        """What is counted of each mapped table, over all ranks; a collective."""
        mine: dict[str, float] = {}
        for table, kept in self._tables.kept.items():
            numbers = {**vars(self._counts[table]), "rows_used": np.count_nonzero(kept.is_live(self._step))}
            numbers |= {f"evaluated_{name}": getattr(self._evaluated[table], name) for name in ("lookups", "unknown")}
            mine |= {f"{table}/{name}": float(value) for name, value in numbers.items()}
        sums = reduce_over_ranks(mine, "sum", self._ranks.device) if mine else {}
        found: dict[str, dict[str, float]] = {
            table: {"rows": float(kept.zones.num_embeddings - 1)} for table, kept in self._tables.kept.items()
        }
        for name, value in sums.items():
            table, _, number = name.partition("/")
            found[table][number] = value
        return found

    def __enter__(self) -> "MappedIds":
        if self._optimizer is not None:
            self.begin(self._optimizer.steps_done)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the thread: every rank has asked for the same collectives, so that it waits for none of them.

        Where a job ends by an error, another rank may have died, and the thread may wait for it.
        """
        if self._thread is not None:
            self._work.put(None)
            self._thread.join(None if error is None or isinstance(error, SystemExit) else _LEAVE_S)
