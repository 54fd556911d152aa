"""The ranks of all hosts meet, send each other something, and compare their clocks.

The launcher starts these ranks like those of a job (``--module recd_dist.ranks.meet``), over the same rendezvous
and process group: what keeps a job from starting keeps them from meeting, too.
"""

import json
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recd_dist.errors import ConfigError
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import write_whole
from recd_dist.ranks.health.finding import Finding, ok
from recd_dist.ranks.health.places import check_clocks

MEET_S = 30.0
"""Seconds after which ranks that have found each other wait no longer for one of them."""

NUM_BYTES = 1 << 20
"""Bytes that each rank sends to each other one."""


NUM_MOMENTS = 5
"""How often clocks are compared: a rank that happens to sleep at a moment looks late."""


def main(arguments: Sequence[str]) -> None:
    """One rank of the meeting.

    Args:
        arguments: ``out=FILE``, where rank 0 writes what was found; ``found=FILE``, findings of this host that go with
            it; ``device=auto``.

    Raises:
        ConfigError: what arrived is not what was sent.
    """
    given = dict(argument.split("=", 1) for argument in arguments)
    import torch.distributed as dist

    from recd_dist.ranks.process_group import process_group
    from recd_dist.ranks.quiet import quiet_libraries
    from recd_dist.ranks.timeouts import Timeouts

    quiet_libraries()
    with process_group(given.get("device", "auto"), Timeouts(collective_s=MEET_S)) as ranks:
        took_s, arrived = _exchange(ranks)
        mine: dict[str, Any] = {"host": socket.gethostname(), "clock": _clock(), "findings": []}
        if ranks.local_rank == 0 and "found" in given:
            mine["findings"] = json.loads(Path(given["found"]).read_text())
        everyone: list[Any] = [None] * ranks.world_size
        dist.all_gather_object(everyone, {**mine, "arrived": arrived})
        if not all(one["arrived"] for one in everyone):
            raise ConfigError("bytes that a rank received are not those that were sent; look at the network interface")
        if ranks.is_first:
            findings = _describe(dist.get_backend(), ranks, everyone, took_s)
            others = [found for one in everyone for found in one["findings"]]
            write_whole(Path(given["out"]), json_text([*(f.to_json() for f in findings), *others]))


def _exchange(ranks: Any) -> tuple[float, bool]:
    """An all-to-all: seconds that the second one took, and whether the right bytes have arrived."""
    import torch
    import torch.distributed as dist

    size = ranks.world_size
    sent = torch.arange(size, dtype=torch.int64).repeat_interleave(NUM_BYTES // 8) + 1000 * ranks.rank
    sent, took_s = sent.to(ranks.device), 0.0
    received = torch.empty_like(sent)
    for _ in range(2):  # the first one opens the connections
        started_s = time.perf_counter()
        dist.all_to_all_single(received, sent)
        if ranks.device.type == "cuda":
            torch.cuda.synchronize()
        took_s = time.perf_counter() - started_s
    wanted = 1000 * torch.arange(size, dtype=torch.int64).repeat_interleave(NUM_BYTES // 8) + ranks.rank
    return took_s, bool((received.cpu() == wanted).all())


def _clock() -> list[float]:
    """This host's clock at a few moments, each of them about the same on all ranks."""
    import torch.distributed as dist

    times_s = []
    for _ in range(NUM_MOMENTS):
        dist.barrier()
        times_s.append(time.time())
    return times_s


def _describe(backend: str, ranks: Any, everyone: Sequence[Any], took_s: float) -> list[Finding]:
    hosts = sorted({one["host"] for one in everyone})
    speed = NUM_BYTES * (ranks.world_size - 1) / max(took_s, 1e-9) / 1e6
    counts = ((ranks.world_size, "rank"), (len(hosts), "host"))
    shown = " on ".join(f"{number} {name}{'s'[: number > 1]}" for number, name in counts)
    speed_shown = f", {speed:,.0f} MB/s from each" if ranks.world_size > 1 else ""
    findings = [ok("exchange", f"{shown} by {backend}: all-to-all in {1e3 * took_s:.1f} ms{speed_shown}")]
    names = [f"{one['host']}, rank {rank}" for rank, one in enumerate(everyone)]
    moments = [
        dict(zip(names, clocks, strict=True)) for clocks in zip(*(one["clock"] for one in everyone), strict=True)
    ]
    nearest = min(moments, key=lambda clocks: max(clocks.values()) - min(clocks.values()))  # the least disturbed one
    return [*findings, check_clocks(nearest)]
