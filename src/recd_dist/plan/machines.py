"""What devices and links cost: figures of named machines, or of this one as ``recd plan --probe`` measured it.

A figure of a data sheet is a peak; DERATED says how much of it work like this reaches. Whoever has measured knows
better: ``plan.costs=FILE`` replaces every figure that the file holds.
"""

import json
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from recd_dist.errors import ConfigError, nearest

FORMAT = "recd_dist.costs"

DERATED = {"memory": 0.7, "gather": 0.5, "link": 0.7}
"""Share of a peak that is reached: streaming, rows of 64 to 512 bytes at random places, all-to-all of large messages.
Common experience, not a measurement of this project."""


@dataclass(frozen=True)
class Machine:
    """One rank's device and its links.

    Attributes:
        name: of the machine.
        device_type: ``cpu`` or ``cuda``.
        ranks_per_host: ranks of a host; 0: all ranks are on one.
        memory_bytes: memory that a rank's tables may take.
        gather_bytes_per_s: table rows read or written at random places.
        call_ms: forward, backward and update of one group of tables, beside what its ids cost.
        lookup_ns_per_id: forward, backward and update, per id, beside the bytes.
        lookup_ns_per_row: the same per pooled row.
        distinct_ns_per_id: finding the distinct ids of a batch.
        expand_bytes_per_s: rows copied by index, forward and backward together, bytes of the result.
        latency_ms: of an all-to-all of two ranks with hardly a byte.
        latency_ms_per_rank: more for each further rank.
        inside_bytes_per_s: that a rank can send to ranks of its host, and receive at the same time.
        between_bytes_per_s: the same to other hosts.
        source: where the figures come from.
    """

    name: str
    device_type: str
    ranks_per_host: int
    memory_bytes: float
    gather_bytes_per_s: float
    call_ms: float
    lookup_ns_per_id: float
    lookup_ns_per_row: float
    distinct_ns_per_id: float
    expand_bytes_per_s: float
    latency_ms: float
    latency_ms_per_rank: float
    inside_bytes_per_s: float
    between_bytes_per_s: float
    source: str

    def local_world_size(self, world_size: int) -> int:
        """Ranks of a host."""
        return min(self.ranks_per_host or world_size, world_size)


CPU = Machine(
    name="cpu",
    device_type="cpu",
    ranks_per_host=0,
    memory_bytes=8 * 2**30,
    gather_bytes_per_s=8e9,
    call_ms=0.2,
    lookup_ns_per_id=26,
    lookup_ns_per_row=15,
    distinct_ns_per_id=5,
    expand_bytes_per_s=9e9,
    latency_ms=0.2,
    latency_ms_per_rank=0.05,
    inside_bytes_per_s=0.8e9,
    between_bytes_per_s=0.8e9,
    source="`recd plan --probe` on 2 shared CPU cores, a thread a rank, gloo on loopback, torch 2.13; the latency of "
    "more than two ranks is a guess",
)

_H100 = Machine(
    name="h100",
    device_type="cuda",
    ranks_per_host=8,
    memory_bytes=80e9 * 0.8,
    gather_bytes_per_s=3.35e12 * DERATED["gather"],
    call_ms=0.10,
    lookup_ns_per_id=0.5,
    lookup_ns_per_row=0.5,
    distinct_ns_per_id=1.0,
    expand_bytes_per_s=3.35e12 * DERATED["memory"] / 4,
    latency_ms=0.03,
    latency_ms_per_rank=0.001,
    inside_bytes_per_s=450e9 * DERATED["link"],
    between_bytes_per_s=50e9 * DERATED["link"],
    source="data sheets, derated: H100 SXM 80 GB of HBM3 at 3.35 TB/s, NVLink 450 GB/s a direction, a NIC of 400 "
    "Gbit/s a GPU; kernels and latencies are estimates",
)

PRESETS = {
    "cpu": CPU,
    "cpu_1gbit": replace(
        CPU, name="cpu_1gbit", ranks_per_host=1, between_bytes_per_s=0.125e9 * 0.9, latency_ms=0.3,
        source="as cpu; a host a rank, Ethernet of 1 Gbit/s at 90%",
    ),
    "cpu_25gbit": replace(
        CPU, name="cpu_25gbit", ranks_per_host=1, between_bytes_per_s=3.125e9 * DERATED["link"], latency_ms=0.15,
        source="as cpu; a host a rank, Ethernet of 25 Gbit/s, derated",
    ),
    "h100": _H100,
    "a100": replace(
        _H100, name="a100", gather_bytes_per_s=2.04e12 * DERATED["gather"],
        expand_bytes_per_s=2.04e12 * DERATED["memory"] / 4, inside_bytes_per_s=300e9 * DERATED["link"],
        between_bytes_per_s=25e9 * DERATED["link"], lookup_ns_per_id=0.8, lookup_ns_per_row=0.8, distinct_ns_per_id=1.6,
        source="data sheets, derated: A100 SXM 80 GB of HBM2e at 2.04 TB/s, NVLink 300 GB/s a direction, a NIC of 200 "
        "Gbit/s a GPU; kernels and latencies are estimates",
    ),
}  # fmt: skip
"""By name; ``NAMExN`` has N ranks a host."""

_TOPOLOGY = re.compile(r"(?P<name>\w+?)(?:x(?P<ranks>\d+))?\Z")


def machine_of(topology: str | None, device_type: str = "cpu", measured: Path | None = None) -> Machine:
    """The figures of a topology, with those that were measured in their place.

    Args:
        topology: such as ``h100x8`` or ``cpu_1gbit``; None: ``cpu``, or ``h100`` for CUDA.
        device_type: of this job, where no topology is named.
        measured: what ``save`` wrote.

    Raises:
        ConfigError: no such topology, or a file that holds no figures.
    """
    found = _TOPOLOGY.match(topology or ("h100" if device_type == "cuda" else "cpu"))
    if found is None or found["name"] not in PRESETS or found["ranks"] == "0":
        raise ConfigError(
            f"plan.topology={topology}: unknown{nearest(str(topology), PRESETS)}; NAMExN has N ranks a host"
        )
    machine = PRESETS[found["name"]]
    if found["ranks"]:
        machine = replace(machine, name=str(topology), ranks_per_host=int(found["ranks"]))
    return replace(machine, **load(measured)) if measured else machine


def save(path: Path, measured: dict[str, Any]) -> None:
    """Writes measured figures.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        path.write_text(json.dumps({"format": FORMAT, **measured}, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"plan.costs={path}: cannot be written ({error.strerror})") from error


def load(path: Path) -> dict[str, Any]:
    """The figures that ``save`` wrote.

    Raises:
        ConfigError: no such file, or another one.
    """
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        reason = error.strerror
        raise ConfigError(f"plan.costs={path}: cannot be read ({reason}); measure with `recd plan --probe`") from error
    except ValueError as error:
        raise ConfigError(f"plan.costs={path}: not JSON ({error}); measure again with `recd plan --probe`") from error
    known = {f.name for f in fields(Machine)}
    figures = {k: v for k, v in value.items() if k in known} if isinstance(value, dict) else {}
    numbers = [k for k, v in figures.items() if isinstance(v, int | float) and v > 0]
    if not isinstance(value, dict) or value.get("format") != FORMAT or set(figures) - {"name", "source", *numbers}:
        raise ConfigError(f"plan.costs={path}: holds no costs; measure with `recd plan --probe`")
    return figures
