"""Batches from a server on loopback against batches read by the trainer: flight.local, flight.shared, flight.wire.

    python benchmarks/flight.py [--quick] [--markdown] [--json FILE] [--dir DIR]

flight.local: samples/s of an epoch of the rm1 table, from `recd reader` in a process of its own, by Flight over a
socket, and from the trainer's own thread, by turns. Nothing is computed with the batches. flight.shared: the same, but
the server makes batches in memory of the trainer, as it does on one host. flight.wire: GB/s of one large
batch that a server has ready, from the question to the batch in aligned memory, against a plain socket that sends as
many bytes from one process into the memory of another.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import measure
import rm1

BATCH, EPOCHS = 4096, 2
WIRE_BATCH = 32768
ROUNDS = 9
READING_HERE = "the same batches, read by a thread of the trainer"
PLAIN = "as many bytes over a plain socket of loopback, received into memory that is used again"


def table_of(directory: Path, num_samples: int) -> Path:
    """The rm1 table with lz4, made unless it is there."""
    table = directory / "tables" / f"rm1-{num_samples}"
    if not table.is_dir():
        made = rm1.raw_logs(directory, num_samples).overrides
        wanted = [*made, f"data.table={table}", "compression=lz4"]
        subprocess.run([sys.executable, "-m", "recd_dist.cli", "etl", *wanted], check=True)
    return table


@contextmanager
def server(table: Path, *, ready: bool = False) -> Iterator[str]:
    """The address of a server of a table; with ``ready`` it answers every task with the batch of its first one."""
    command = ["-m", "recd_dist.cli", "reader"] if not ready else [__file__, "--serve"]
    command = [sys.executable, *command, "--tables", str(table), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        line = (process.stdout or sys.stdin).readline()
        try:
            yield line.split()[4].rstrip(",")
        finally:
            process.terminate()


def environment() -> dict[str, str]:
    """What ranks have: memory that was freed is kept by the process, on both sides alike."""
    from recd_dist.ranks.launcher import rank_environment

    return {**rank_environment(1, 1), **os.environ, "PYTHONSAFEPATH": ""}  # a script imports those beside it


def keep_memory() -> None:
    """Starts this process anew with that environment: it counts where a process begins."""
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], environment())


def serve_ready() -> None:
    """A server in which nothing is read after the first batch."""
    from recd_dist.cli import main
    from recd_dist.reader.tier.sessions import Session

    answer, known = Session.answer, {}

    def ready(self: Session, tasks: Any, *_: Any) -> Any:
        if self not in known:
            known[self] = answer(self, tasks[:1])
        return known[self]

    Session.answer = ready  # type: ignore[method-assign]
    sys.exit(main(["reader", *sys.argv[2:]]))


def loader_of(table: Path, address: str | None, shared: bool = False, **options: Any) -> Any:
    """A loader over the training split, that reads here or asks a server, over a socket or with shared memory."""
    from recd_dist.job.config import load
    from recd_dist.job.job import resolve
    from recd_dist.reader.loader import Loader
    from recd_dist.reader.tier.remote_reader import RemoteReader
    from recd_dist.reader.tier.server_address import Address
    from recd_dist.reader.tier.servers import Servers

    job = resolve(load("train", ["data=rm1", f"data.table={table}"]))
    servers = None if address is None else RemoteReader(Servers((Address.parse(address),), shared_memory=shared))
    transforms = job.transforms.fit(job.table)
    return Loader(job.table, job.schema, job.tables, transforms, servers=servers, **options)


def epochs(loader: Any) -> Callable[[], float]:
    """Reads epochs of a loader; seconds a sample."""
    number = 0

    def run() -> float:
        nonlocal number
        num_samples, start = 0, time.perf_counter()
        for _ in range(EPOCHS):
            loader.start_epoch(number)
            number += 1
            num_samples += sum(batch.batch_size for batch in loader)
        return (time.perf_counter() - start) / num_samples

    return run


def against_local(table: Path, rounds: int, shared: bool) -> measure.Result:
    """A server against reading here, over a socket or with shared memory."""
    with (
        server(table) as address,
        closing(loader_of(table, address, shared, batch_size=BATCH)) as far,
        closing(loader_of(table, None, batch_size=BATCH)) as near,
    ):
        pairs = measure.alternate(epochs(far), epochs(near), rounds + 1)[1:]
    speeds = {name: f"{1 / statistics.median(p[n] for p in pairs):,.0f}" for n, name in enumerate(("served", "local"))}
    details = {"served samples/s": speeds["served"], "local samples/s": speeds["local"]}
    config = f"rm1, lz4, batches of {BATCH}, one server, one stream, a process each"
    return measure.speed_up("flight.shared" if shared else "flight.local", pairs, READING_HERE, config, **details)


def wire(table: Path, rounds: int) -> measure.Result:
    """A batch that lies ready, against a plain socket."""
    from recd_dist.reader.tier.arrow_batches import count_bytes
    from recd_dist.reader.tier.blocks import ArrivingBlocks
    from recd_dist.reader.tier.messages import write_opening
    from recd_dist.reader.tier.server_access import TrainerAccess
    from recd_dist.reader.tier.server_address import Address
    from recd_dist.reader.tier.server_connection import ServerConnection

    with (
        server(table, ready=True) as address,
        closing(loader_of(table, address, batch_size=WIRE_BATCH, expand=True)) as x,
    ):
        connection = ServerConnection(Address.parse(address), TrainerAccess(), 60.0)
        opening, task = partial(write_opening, x._options, "wire", "none"), next(x.tasks())
        blocks, repeats = ArrivingBlocks(), 10
        num_bytes = count_bytes(next(connection.read(opening, [task], [], blocks)).batch.unpack())

        def flight() -> float:
            start = time.perf_counter()
            for _ in range(repeats):
                next(connection.read(opening, [task], [], blocks))
            return (time.perf_counter() - start) / repeats

        with plain_socket(num_bytes) as receive:
            pairs = measure.alternate(flight, lambda: receive(repeats), rounds + 1)[1:]
    gb = [num_bytes / 1e9 / statistics.median(p[n] for p in pairs) for n in (0, 1)]
    details = {"served GB/s": f"{gb[0]:.2f}", "plain socket GB/s": f"{gb[1]:.2f}"}
    config = f"one batch of {num_bytes / 1e6:.0f} MB ({task_size(task):,} samples, expanded), not compressed"
    return measure.speed_up("flight.wire", pairs, PLAIN, config, **details)


def task_size(task: Any) -> int:
    """Samples of a task."""
    return sum(end - start for start, end in task.samples)


@contextmanager
def plain_socket(num_bytes: int) -> Iterator[Callable[[int], float]]:
    """A function that receives so many bytes from another process; seconds each time."""
    code = (
        "import socket, sys\n"
        "peer = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "data = bytearray(int(sys.argv[2]))\n"
        "while peer.recv(1): peer.sendall(data)\n"
    )
    target = memoryview(bytearray(num_bytes))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [sys.executable, "-c", code, str(listening.getsockname()[1]), str(num_bytes)]
        with subprocess.Popen(command) as process:
            peer = listening.accept()[0]

            def receive(repeats: int) -> float:
                start = time.perf_counter()
                for _ in range(repeats):
                    peer.send(b"x")
                    place = 0
                    while place < num_bytes:
                        place += peer.recv_into(target[place:])
                return (time.perf_counter() - start) / repeats

            with peer:
                yield receive
            process.wait()


def main() -> None:
    """Measures and reports."""
    parser = measure.build_parser(__doc__)
    parser.add_argument("--dir", type=Path, help="keep raw logs and tables there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        table = table_of(options.dir or Path(scratch), 100_000 if options.quick else 400_000)
        rounds = 5 if options.quick else ROUNDS
        local = [against_local(table, rounds, shared) for shared in (False, True)]
        measure.report([*local, wire(table, rounds)], options)


if __name__ == "__main__":
    keep_memory()
    if sys.argv[1:2] == ["--serve"]:
        serve_ready()
    main()
