"""A trainer that reads from a server for long, while the server is killed and started anew: claim flight.soak.

    python benchmarks/soak.py [--minutes 10] [--quick] [--kills 5] [--json FILE] [--dir DIR]

Epoch after epoch is read through `recd reader` on loopback, and every sample id is counted. The server is killed with
SIGKILL at even distances and started anew at the same port. Resident memory of both processes is sampled. The exit code
is 0 only if every epoch had every sample once and neither process has grown.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import flight
import measure
import numpy as np

GROWTH = 1.15
"""Memory is flat if the last third of the samples has at most so many times the median of the third before it."""


@dataclass
class Server:
    """`recd reader` in a process that is killed and started anew at one port."""

    table: Path
    port: int = 0
    process: "subprocess.Popen[str] | None" = field(default=None, repr=False)

    def start(self) -> None:
        """Starts it, at the port that it had before, and waits until it is ready."""
        command = ["-m", "recd_dist.cli", "reader", "--tables", str(self.table), "--listen", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=flight.environment(),
        )  # fmt: skip
        line = self.process.stdout.readline() if self.process.stdout else ""
        self.port = int(line.split()[4].rstrip(",").rpartition(":")[2])

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Kills it and waits for its end."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()


def resident_mb(pid: int) -> float:
    """Memory of a process that lies in RAM, in MB; 0 where it has gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6
    except OSError:
        return 0.0


class Watcher(threading.Thread):
    """Kills the server at even distances, and samples memory: (second, trainer MB, server MB)."""

    def __init__(self, server: Server, seconds: float, num_kills: int) -> None:
        super().__init__(daemon=True)
        self._server, self._seconds = server, seconds
        self._kill_at = [seconds * (n + 1) / (num_kills + 1) for n in range(num_kills)]
        self.samples: list[tuple[float, float, float]] = []
        self.kills: list[float] = []
        self.is_over = threading.Event()

    def run(self) -> None:
        """Watches until the soak is over."""
        start = time.monotonic()
        while not self.is_over.wait(min(1.0, self._seconds / 60)):
            now = time.monotonic() - start
            if self._kill_at and now >= self._kill_at[0]:
                self._kill_at.pop(0)
                self._server.kill()
                self._server.start()
                self.kills.append(now)
            pid = self._server.process.pid if self._server.process else 0
            self.samples.append((now, resident_mb(os.getpid()), resident_mb(pid)))


def soak(table: Path, seconds: float, num_kills: int) -> dict[str, object]:
    """Reads for so long; what was counted."""
    server = Server(table)
    server.start()
    watcher = Watcher(server, seconds, num_kills)
    lost = twice = epoch = num_batches = 0
    try:
        with closing(flight.loader_of(table, f"127.0.0.1:{server.port}", batch_size=flight.BATCH)) as loader:
            start = time.monotonic()
            watcher.start()
            while time.monotonic() - start < seconds or len(watcher.kills) < num_kills:
                loader.start_epoch(epoch)
                seen = np.zeros(loader._manifest.num_samples, np.int64)
                for batch in loader:
                    np.add.at(seen, batch.sample_ids.numpy(), 1)
                    num_batches += 1
                lost, twice, epoch = lost + int((seen == 0).sum()), twice + int((seen > 1).sum()), epoch + 1
            elapsed = time.monotonic() - start
    finally:
        watcher.is_over.set()
        watcher.join()
        server.kill()
    return {
        "seconds": round(elapsed, 1), "epochs": epoch, "batches": num_batches, "samples": epoch * len(seen),
        "lost": lost, "twice": twice, "kills": [round(k, 1) for k in watcher.kills], "memory": watcher.samples,
    }  # fmt: skip


def growth_of(memory: list[tuple[float, float, float]], column: int) -> float:
    """The median of the last third of the samples over that of the third before it."""
    third = max(len(memory) // 3, 1)
    late, before = (np.median([row[column] for row in part]) for part in (memory[-third:], memory[-2 * third : -third]))
    return float(late / before)


def chart(memory: list[tuple[float, float, float]], column: int, width: int = 60) -> str:
    """Memory over time, as a line of blocks from 0 to the most."""
    parts = np.array_split(np.array([row[column] for row in memory]), min(width, len(memory)))
    values = np.array([part.max() for part in parts])
    return "".join(" ▁▂▃▄▅▆▇█"[int(np.ceil(8 * v / max(values.max(), 1)))] for v in values)


def main() -> int:
    """Soaks and reports."""
    parser = measure.build_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="keep raw logs and tables there")
    options = parser.parse_args()
    seconds = 30.0 if options.quick else 60 * options.minutes
    with tempfile.TemporaryDirectory() as scratch:
        table = flight.table_of(options.dir or Path(scratch), 100_000)
        found = soak(table, seconds, options.kills)
    memory: list[tuple[float, float, float]] = found.pop("memory")  # type: ignore[assignment]
    growths = {name: growth_of(memory, column) for name, column in (("trainer", 1), ("server", 2))}
    sys.stdout.write(f"{measure.machine()}\n{found}\n")
    for name, column in (("trainer", 1), ("server", 2)):
        values = [row[column] for row in memory]
        sys.stdout.write(
            f"{name:8} {chart(memory, column)}  MB: median {np.median(values):.0f}, most {max(values):.0f}\n"
        )
    sys.stdout.write(f"last third over the one before: {', '.join(f'{n} {g:.3f}' for n, g in growths.items())}\n")
    if options.json:
        options.json.write_text(json.dumps([{"claim": "flight.soak", **found, "growth": growths}], indent=1) + "\n")
    is_exact = not found["lost"] and not found["twice"]
    return 0 if is_exact and max(growths.values()) <= GROWTH else 1


if __name__ == "__main__":
    flight.keep_memory()
    sys.exit(main())
