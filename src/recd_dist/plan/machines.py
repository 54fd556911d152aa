"""What devices and links cost: figures of named machines, or measured ones.

A figure of a data sheet is a peak; ``REACHED`` says which share of it training reaches. Measured figures are better:
``recd plan --probe`` writes those of this machine to a file, and ``plan.costs=FILE`` takes them in place of the named
machine's.
"""

import json
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from recd_dist.errors import ConfigError, nearest
from recd_dist.files.json_text import json_text

FORMAT = "recd_dist.costs"

REACHED = {"memory": 0.7, "gather": 0.5, "link": 0.7, "dense": 0.3}
"""Share of a peak that is reached by reading memory in order, by reading rows of 64 to 512 bytes at random places, by
an all-to-all of large messages, and by dense layers of a few hundred columns in float32. These shares are common
experience; this project has not measured them."""


@dataclass(frozen=True)
class Machine:
    """One rank's device and its links.

    Attributes:
        name: name of the machine.
        device_type: ``cpu`` or ``cuda``.
        ranks_per_host: number of ranks of a host; 0 means that all ranks are on one host.
        memory_bytes: bytes that the tables of a rank may take.
        gather_bytes_per_s: bytes of table rows that can be read or written at random places in a second.
        call_ms: milliseconds of forward, backward and update of one kernel call, without what its ids and rows cost.
        lookup_ns_per_id: nanoseconds that forward, backward and update take for an id, without what its bytes cost.
        lookup_ns_per_row: nanoseconds that they take for a pooled row, without what its bytes cost.
        distinct_ns_per_id: nanoseconds for each id in which the distinct ids of a batch are found.
        expand_bytes_per_s: bytes of expanded rows that can be made in a second, forward and backward together.
        latency_ms: milliseconds of an all-to-all of two ranks that exchange hardly a byte.
        latency_ms_per_rank: milliseconds that each further rank adds to this.
        inside_bytes_per_s: bytes that a rank can send to ranks of its host in a second while it receives as many.
        between_bytes_per_s: bytes that a rank can send to other hosts in a second while it receives as many.
        dense_flops_per_s: multiplications and additions of dense layers in a second, in float32.
        source: where the figures come from, in words.
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
    dense_flops_per_s: float
    source: str

    def local_world_size(self, world_size: int) -> int:
        """The number of ranks of a host.

        Args:
            world_size: number of ranks of the job.
        """
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
    dense_flops_per_s=40e9,
    source="`recd plan --probe` on 2 shared CPU cores, a thread a rank, gloo on loopback, torch 2.13; the latency of "
    "more than two ranks is a guess",
)

_H100 = Machine(
    name="h100",
    device_type="cuda",
    ranks_per_host=8,
    memory_bytes=80e9 * 0.8,
    gather_bytes_per_s=3.35e12 * REACHED["gather"],
    call_ms=0.10,
    lookup_ns_per_id=0.5,
    lookup_ns_per_row=0.5,
    distinct_ns_per_id=1.0,
    expand_bytes_per_s=3.35e12 * REACHED["memory"] / 4,
    latency_ms=0.03,
    latency_ms_per_rank=0.001,
    inside_bytes_per_s=450e9 * REACHED["link"],
    between_bytes_per_s=50e9 * REACHED["link"],
    dense_flops_per_s=67e12 * REACHED["dense"],
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
        CPU, name="cpu_25gbit", ranks_per_host=1, between_bytes_per_s=3.125e9 * REACHED["link"], latency_ms=0.15,
        source="as cpu; a host a rank, Ethernet of 25 Gbit/s, derated",
    ),
    "h100": _H100,
    "a100": replace(
        _H100, name="a100", gather_bytes_per_s=2.04e12 * REACHED["gather"],
        expand_bytes_per_s=2.04e12 * REACHED["memory"] / 4, inside_bytes_per_s=300e9 * REACHED["link"],
        between_bytes_per_s=25e9 * REACHED["link"], dense_flops_per_s=19.5e12 * REACHED["dense"],
        lookup_ns_per_id=0.8, lookup_ns_per_row=0.8, distinct_ns_per_id=1.6,
        source="data sheets, derated: A100 SXM 80 GB of HBM2e at 2.04 TB/s, NVLink 300 GB/s a direction, a NIC of 200 "
        "Gbit/s a GPU; kernels and latencies are estimates",
    ),
}  # fmt: skip
"""The machines that ``plan.topology`` can name. ``NAMExN`` is the machine NAME with N ranks a host."""

_TOPOLOGY = re.compile(r"(?P<name>\w+?)(?:x(?P<ranks>\d+))?\Z")


def find_machine(topology: str | None, device_type: str = "cpu", measured: Path | None = None) -> Machine:
    """Finds the figures of a topology; measured ones take the place of its own.

    Args:
        topology: name such as ``h100x8`` or ``cpu_1gbit``; None is ``cpu``, or ``h100`` where the device is CUDA.
        device_type: device of the job, used where no topology is named.
        measured: the file that ``save_costs`` wrote, if there is one.

    Raises:
        ConfigError: there is no such topology, or the file holds no figures.
    """
    parsed = _TOPOLOGY.match(topology or ("h100" if device_type == "cuda" else "cpu"))
    if parsed is None or parsed["name"] not in PRESETS or parsed["ranks"] == "0":
        raise ConfigError(
            f"plan.topology={topology}: unknown{nearest(str(topology), PRESETS)}; NAMExN has N ranks a host"
        )
    machine = PRESETS[parsed["name"]]
    if parsed["ranks"]:
        machine = replace(machine, name=str(topology), ranks_per_host=int(parsed["ranks"]))
    return replace(machine, **load_costs(measured)) if measured else machine


def save_costs(path: Path, measured: dict[str, Any]) -> None:
    """Writes measured figures to a file.

    Args:
        path: the file.
        measured: figures of ``Machine`` by name.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        path.write_text(json_text({"format": FORMAT, **measured}) + "\n")
    except OSError as error:
        raise ConfigError(f"plan.costs={path}: cannot be written ({error.strerror})") from error


def load_costs(path: Path) -> dict[str, Any]:
    """Reads the figures that ``save_costs`` wrote.

    Args:
        path: the file.

    Returns:
        Figures of ``Machine`` by name.

    Raises:
        ConfigError: there is no such file, or it holds no figures.
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
