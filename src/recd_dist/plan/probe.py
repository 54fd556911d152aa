"""Measures this machine: lookups, distinct ids, expansion, a dense layer, an all-to-all of two ranks.

It takes a few seconds. Each figure is that of the fastest of several runs, which shows what the machine can do even
while other programs slow it down. Lookups are timed in four shapes, each of which differs from the one before in one
number, so that the cost of a call, an id, a row and a byte can be told apart::

    1 id in 1 row, dim 4           a call
    N ids in N rows, dim 4         + N ids + N rows
    N ids in N / 20 rows, dim 4    + N ids + N / 20 rows
    N ids in N / 20 rows, dim 64   + the bytes of 60 more columns
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.embedding.exchange.distinct import distinct_ids
from recd_dist.embedding.lookup.row_lookup import RowLookup, is_supported
from recd_dist.plan.cost import dense_flops
from recd_dist.ranks.health.machine_share import usable_cores
from recd_dist.tensors.expansion import expand_rows

logger = logging.getLogger(__name__)

NUM_IDS, ROWS_OF_TABLE, IDS_A_ROW = 65536, 200_000, 20
SMALL, LARGE = 4, 64  # columns of the tables
NUM_SAMPLES, NUM_ROWS, WIDTH = 2048, 256, 512  # shape of the expansion
MESSAGE_BYTES = 4 * 2**20  # bytes that each rank sends to the other
REPEATS = 7  # timed runs, of which the fastest counts


def measure_machine(device_type: str | None = None) -> dict[str, Any]:
    """Measures this machine.

    Args:
        device_type: ``cpu`` or ``cuda``; when absent, CUDA if there is a device.

    Returns:
        Figures of ``machines.Machine`` by name: those of the local device and, on CPU, those of gloo on loopback.
    """
    chosen = device_type or ("cuda" if torch.cuda.is_available() else "cpu")
    device, threads = torch.device(chosen), torch.get_num_threads()
    torch.set_num_threads(max(1, usable_cores() // 2))  # the share of one of two ranks
    try:
        figures = {
            **_measure_lookups(device),
            **_measure_rows(device),
            "dense_flops_per_s": _measure_dense(device),
            **(measure_loopback() if chosen == "cpu" else {}),
        }
    finally:
        torch.set_num_threads(threads)
    what = (
        torch.cuda.get_device_name() if chosen == "cuda" else f"{usable_cores()} CPU cores, two ranks, gloo on loopback"
    )
    return {"source": f"`recd plan --probe`: {what}, torch {torch.__version__}", **figures}


def _time_fastest(run: Callable[[], object], device: torch.device) -> float:
    """Seconds that the fastest of several runs takes, after one run that warms up."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _measure_lookups(device: torch.device) -> dict[str, float]:
    """Measures what a call, an id, a row and a byte cost in forward, backward and update together."""
    small, large = (build_table(columns, device) for columns in (SMALL, LARGE))
    num_rows = NUM_IDS // IDS_A_ROW
    num_ids = num_rows * IDS_A_ROW
    call = _time_fastest(_prepare_lookup(small, 1, 1, SMALL, device), device)
    single = _time_fastest(_prepare_lookup(small, num_ids, num_ids, SMALL, device), device)
    pooled = _time_fastest(_prepare_lookup(small, num_ids, num_rows, SMALL, device), device)
    wide = _time_fastest(_prepare_lookup(large, num_ids, num_rows, LARGE, device), device)
    row = max((single - pooled) / (num_ids - num_rows), 1e-10)
    one = max((pooled - call - row * num_rows) / num_ids, 1e-10)
    num_bytes = (3 * num_ids + 2 * num_rows) * (LARGE - SMALL) * 4
    return {
        "call_ms": call * 1e3,
        "lookup_ns_per_id": one * 1e9,
        "lookup_ns_per_row": row * 1e9,
        "gather_bytes_per_s": num_bytes / max(wide - pooled, 1e-6),
    }


def build_table(columns: int, device: torch.device) -> Any:
    """Fbgemm's kernel for one table, with its fused optimizer.

    Args:
        columns: number of columns of the table, which has ``ROWS_OF_TABLE`` rows.
        device: the device of the table.
    """
    on_cuda = device.type == "cuda"
    place = EmbeddingLocation.DEVICE if on_cuda else EmbeddingLocation.HOST
    table = SplitTableBatchedEmbeddingBagsCodegen(
        [(ROWS_OF_TABLE, columns, place, ComputeDevice.CUDA if on_cuda else ComputeDevice.CPU)],
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        device=device,
    )
    table.init_embedding_weights_uniform(-0.01, 0.01)
    return table


def _prepare_lookup(table: Any, num_ids: int, num_rows: int, columns: int, device: torch.device) -> Callable[[], None]:
    """A function that looks up random ids, forward and backward."""
    ids = torch.randint(ROWS_OF_TABLE, (num_ids,), device=device)
    lengths = torch.full((num_rows,), num_ids // num_rows, dtype=torch.int32, device=device)
    offsets = torch.arange(num_rows + 1, device=device) * (num_ids // num_rows)
    gradient = torch.ones(num_rows, columns, device=device)
    loops = RowLookup(table) if is_supported(table) else None  # what a job uses, see optim.tables.kernel

    def run() -> None:
        if loops is None:
            table(ids, offsets).backward(gradient)
        else:
            loops(KeyedJaggedTensor(["key"], ids, lengths=lengths, stride=num_rows)).backward(gradient)

    return run


def _measure_rows(device: torch.device) -> dict[str, float]:
    """Measures how fast distinct ids are found, and how fast rows are copied to samples."""
    ids = torch.randint(ROWS_OF_TABLE, (NUM_IDS,), dtype=torch.int32, device=device)
    return {
        "distinct_ns_per_id": _time_fastest(lambda: distinct_ids(ids, ROWS_OF_TABLE, 1), device) / NUM_IDS * 1e9,
        "expand_bytes_per_s": NUM_SAMPLES * WIDTH * 4 / _time_fastest(_prepare_expansion(device), device),
    }


def _measure_dense(device: torch.device) -> float:
    """Measures how many multiplications and additions of a dense layer a second has, forward and backward together."""
    layer = torch.nn.Linear(WIDTH, WIDTH, device=device)
    rows = torch.randn(NUM_SAMPLES, WIDTH, device=device, requires_grad=True)
    gradient = torch.ones(NUM_SAMPLES, WIDTH, device=device)
    seconds = _time_fastest(lambda: layer(rows).backward(gradient), device)
    return dense_flops(WIDTH * WIDTH, NUM_SAMPLES) / seconds


def _prepare_expansion(device: torch.device) -> Callable[[], None]:
    """A function that copies rows to samples, forward and backward."""
    rows = torch.randn(NUM_ROWS, WIDTH, device=device, requires_grad=True)
    inverse = torch.arange(NUM_SAMPLES, dtype=torch.int32, device=device) * NUM_ROWS // NUM_SAMPLES
    gradient = torch.ones(NUM_SAMPLES, WIDTH, device=device)

    def run() -> None:
        rows.grad = None
        expand_rows(rows, inverse).backward(gradient)

    return run


def measure_loopback() -> dict[str, float]:
    """Measures latency and bandwidth of an all-to-all of two processes on this host, through gloo."""
    context = torch.multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        queue = context.SimpleQueue()
        ranks = [context.Process(target=_run_rank, args=(rank, f"{directory}/store", queue)) for rank in range(2)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(60)
        failed = [process for process in ranks if process.exitcode != 0]
        for process in failed:
            process.kill()
        if failed:
            logger.warning("probe: the two ranks of the all-to-all failed; the link keeps the figures of the topology")
            return {}
        figures: dict[str, float] = queue.get()
    return figures


def _run_rank(rank: int, store: str, queue: Any) -> None:
    """Runs one of the two ranks; the first one puts what it measured into the queue."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    cpu = torch.device("cpu")

    def time_all_to_all(num_bytes: int) -> float:
        sent = torch.zeros(2, num_bytes // 4)
        received = torch.empty_like(sent)

        def run(sent: Tensor = sent, received: Tensor = received) -> None:
            dist.all_to_all_single(received, sent)

        return _time_fastest(run, cpu)

    latency, large = time_all_to_all(8), time_all_to_all(MESSAGE_BYTES)
    if rank == 0:
        speed = MESSAGE_BYTES / max(large - latency, 1e-6)
        queue.put({"latency_ms": latency * 1e3, "inside_bytes_per_s": speed, "between_bytes_per_s": speed})
    dist.barrier()
    dist.destroy_process_group()
