"""The lookup of tables on CPU: this project's loops against fbgemm's kernel. Claim lookup.distinct and others.

    python benchmarks/lookup.py [CASE ...] [--quick] [--markdown] [--json FILE] [--threads N]

Both look up the same ids in tables with the same first weights, forward, backward and update, by turns in one process;
the sums of the first batch and the weights at the end are compared. Every batch has other ids, so that rows of large
tables come from memory, as they do in a job. A call of fbgemm's takes int64 ids, as TorchRec's modules give them;
ours takes int32, as the exchange gives them.

| case | measures |
|---|---|
| distinct | the lookup of a rank in exchange.s16: 40,960 ids of 256 rows in 4 tables of 100,000 x 64 |
| expanded | rows that hardly repeat: 4096 rows of 10 ids |
| ids | un-pooled tables and ``plan.send=ids``: every row is one id |
| weighted | ``distinct`` with a weight for each id |
| zipf, same | ids that follow Zipf's law, and one id only: rows lie in the cache |
| cached | ``distinct`` in tables of 1,000 rows |
| few, one, tables | 64 ids; one id; 64 tables of 8 rows with one id: what a call costs |
| d8 d16 d32 d128 d256 | ``distinct`` with 10 ids a row and other widths |
| sgd, adagrad | ``distinct`` with other optimizers than row-wise Adagrad |

``distinct`` also tells the floor: a bare loop that adds up the same rows, fetched ahead in the same way, and one that
adds to each of them in the order of the sorted ids.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import numba
import numpy as np
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.embedding.lookup.row_lookup import RowLookup
from recd_dist.embedding.lookup.row_loops import AHEAD, fetch
from recd_dist.table.instructions import add_scaled

ROWWISE, SGD, ADAGRAD = EmbOptimType.EXACT_ROWWISE_ADAGRAD, EmbOptimType.EXACT_SGD, EmbOptimType.EXACT_ADAGRAD


@dataclass(frozen=True)
class Case:
    """What is looked up.

    Attributes:
        num_rows: the number of rows of the output.
        num_ids: the number of ids in each row of each table.
        num_tables: the number of tables.
        size: the number of rows of a table.
        dim: the number of columns of a table.
        draw: how ids are drawn: ``uniform``, ``zipf`` or ``same``.
        weighted: True if every id has a weight.
        optimizer: fbgemm's name of the optimizer.
    """

    num_rows: int = 256
    num_ids: int = 40
    num_tables: int = 4
    size: int = 100_000
    dim: int = 64
    draw: str = "uniform"
    weighted: bool = False
    optimizer: EmbOptimType = ROWWISE

    def batch(self, number: int) -> dict[str, Any]:
        """The arguments of a batch's KeyedJaggedTensor."""
        random = np.random.default_rng(number)
        size = self.num_rows * self.num_ids * self.num_tables
        ids = np.zeros(size, np.int64)
        if self.draw == "uniform":
            ids = random.integers(0, self.size, size)
        elif self.draw == "zipf":
            ids = (random.zipf(1.2, size) - 1) % self.size
        lengths = torch.full((self.num_rows * self.num_tables,), self.num_ids, dtype=torch.int32)
        return {
            "keys": [f"f{n}" for n in range(self.num_tables)],
            "values": torch.from_numpy(ids),
            "weights": torch.rand(size) if self.weighted else None,
            "lengths": lengths,
            "stride": self.num_rows,
        }

    def build(self) -> Any:
        """Fbgemm's kernel, with weights that are the same each time."""
        place = EmbeddingLocation.HOST, ComputeDevice.CPU
        module = SplitTableBatchedEmbeddingBagsCodegen(
            [(self.size, self.dim, *place)] * self.num_tables,
            optimizer=self.optimizer,
            learning_rate=0.02,
            eps=1e-8,
            device=torch.device("cpu"),
        )
        with torch.no_grad():
            module.weights_host.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
        return module


CASES = {
    "distinct": Case(),
    "expanded": Case(num_rows=4096, num_ids=10),
    "ids": Case(num_rows=20480, num_ids=1, num_tables=1),
    "weighted": Case(weighted=True),
    "zipf": Case(draw="zipf"),
    "same": Case(draw="same"),
    "cached": Case(size=1000),
    "few": Case(num_rows=8, num_ids=2, size=1000),
    "one": Case(num_rows=1, num_ids=1, num_tables=1, size=1000),
    "tables": Case(num_rows=8, num_ids=1, num_tables=64, size=1000, dim=32),
    **{f"d{dim}": Case(num_ids=10, dim=dim) for dim in (8, 16, 32, 128, 256)},
    "sgd": Case(optimizer=SGD),
    "adagrad": Case(optimizer=ADAGRAD),
}


def call_fbgemm(module: Any) -> Callable[[KeyedJaggedTensor], Tensor]:
    """Fbgemm's lookup, called as TorchRec calls it."""
    return lambda kjt: module(kjt.values().long(), kjt.offsets().long(), kjt.weights_or_none())


class Side:
    """One of the two lookups, and the time that it took.

    Args:
        look_up: the lookup.
        batches: the arguments of each batch's KeyedJaggedTensor.
        gradient: the gradient of the sums.
    """

    def __init__(self, look_up: Callable[[KeyedJaggedTensor], Tensor], batches: list[Any], gradient: Tensor) -> None:
        self.look_up, self.batches, self.gradient = look_up, batches, gradient
        self.forward_s: list[float] = []
        self.backward_s: list[float] = []

    def steps(self) -> float:
        """A step on every batch; returns the seconds that they took."""
        forward = backward = 0.0
        for batch in self.batches:
            kjt = KeyedJaggedTensor(**batch)
            start = time.perf_counter()
            out = self.look_up(kjt)
            between = time.perf_counter()
            out.backward(self.gradient)
            forward, backward = forward + between - start, backward + time.perf_counter() - between
        self.forward_s.append(forward / len(self.batches))
        self.backward_s.append(backward / len(self.batches))
        return forward + backward


@numba.njit(nogil=True)
def _add_rows(base: int, positions: Any, columns: int, total: int, write: bool) -> None:
    """Adds up rows, or adds to every one of them."""
    for n in range(len(positions)):
        if n + AHEAD < len(positions):
            fetch(base + 4 * positions[n + AHEAD], 4 * columns)
        row = base + 4 * positions[n]
        if write:
            add_scaled(row, total, np.float32(1), columns)
        else:
            add_scaled(total, row, np.float32(1), columns)


def floor_ms(case: Case, weights: Tensor, batches: list[Any]) -> tuple[float, float]:
    """Milliseconds of bare loops over the rows of a batch: one that reads, one that adds to sorted rows."""
    total = np.zeros(case.dim, np.float32)
    times: tuple[list[float], list[float]] = ([], [])
    table = np.arange(case.num_tables).repeat(case.num_rows * case.num_ids) * case.size
    for _ in range(4):
        for batch in batches:
            positions = (batch["values"].numpy() + table) * case.dim
            for write, found in enumerate(times):
                chosen = np.unique(positions) if write else positions
                start = time.perf_counter()
                _add_rows(weights.data_ptr(), chosen, case.dim, total.ctypes.data, bool(write))
                found.append(time.perf_counter() - start)
    reading, writing = (round(1e3 * statistics.median(found[len(batches) :]), 2) for found in times)
    return reading, writing


def measure_case(name: str, *, quick: bool) -> dict[str, Any]:
    """Measures one case, after it has compared both sides."""
    case = CASES[name]
    large = case.num_rows * case.num_ids * case.num_tables > 1000
    batches = [case.batch(n) for n in range((4 if quick else 8) if large else 32)]
    gradient = torch.randn(case.num_rows, case.num_tables * case.dim, generator=torch.Generator().manual_seed(1))
    theirs, module = case.build(), case.build()
    short = [{**batch, "values": batch["values"].int()} for batch in batches]
    baseline, ours = Side(call_fbgemm(theirs), batches, gradient), Side(RowLookup(module), short, gradient)
    sums = [side.look_up(KeyedJaggedTensor(**side.batches[0])) for side in (ours, baseline)]
    torch.testing.assert_close(*sums, rtol=1e-4, atol=1e-4)
    pairs = measure.alternate(ours.steps, baseline.steps, (5 if quick else 15) + 1)[1:]
    torch.testing.assert_close(module.weights_host, theirs.weights_host, rtol=1e-3, atol=1e-3)
    details = {
        f"{side}_{what}_ms": round(1e3 * statistics.median(values[1:]), 3)
        for side, each in (("ours", ours), ("fbgemm", baseline))
        for what, values in (("forward", each.forward_s), ("backward", each.backward_s))
    }
    if name == "distinct":
        details["floor_read_ms"], details["floor_update_ms"] = floor_ms(case, module.weights_host, batches)
    return {"pairs": pairs, "details": details}


def words_of(case: Case, threads: int) -> str:
    """A case in words."""
    kind = f"{case.draw}, weighted" if case.weighted else case.draw
    shape = (
        f"{case.num_tables} tables of {case.size:,} x {case.dim}, {case.num_rows} rows of {case.num_ids} ids ({kind})"
    )
    return f"{shape}, {case.optimizer.value}, {threads} thread{'s' if threads > 1 else ''}"


def rank_main(config: dict[str, Any]) -> None:
    """One process, in the environment of a rank: measures the cases and writes what it found."""
    torch.set_num_threads(config["threads"])
    found = {name: measure_case(name, quick=config["quick"]) for name in config["cases"]}
    Path(config["out"]).write_text(json.dumps(found))


def main() -> None:
    parser = measure.build_parser(__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--threads", type=int, default=1, help="threads of both (default 1, as a rank of two has)")
    parser.add_argument("--rank", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        rank_main(options.rank)
        return
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"unknown case '{unknown[0]}'; there are {', '.join(CASES)}")
    config = {"cases": options.cases or list(CASES), "threads": options.threads, "quick": options.quick}
    found = measure.run_ranks(__file__, config, num_ranks=1)
    results = [
        measure.speed_up(
            f"lookup.{name}",
            each["pairs"],
            "fbgemm's SplitTableBatchedEmbeddingBags",
            words_of(CASES[name], options.threads),
            **each["details"],
        )
        for name, each in found.items()
    ]
    measure.report(results, options)


if __name__ == "__main__":
    main()
