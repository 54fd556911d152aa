"""The process group of a job: gloo on CPU, NCCL on CUDA, one rank without a launcher."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from recd_dist.errors import ConfigError
from recd_dist.ranks.progress import Heartbeat
from recd_dist.ranks.timeouts import Timeouts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ranks:
    """This process's place in the job.

    Attributes:
        rank: this process's number, in [0, world_size).
        world_size: the number of processes in the job.
        local_rank: this process's number on its host, in [0, local_world_size); it is also the CUDA device's number.
        local_world_size: the number of processes on this host.
        device: where this rank computes.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """True on rank 0, the only rank that writes to the screen and to files that the ranks share."""
        return self.rank == 0


@contextmanager
def process_group(device: str = "auto", timeouts: Timeouts | None = None) -> Iterator[Ranks]:
    """Joins the job that torchrun's environment variables describe, and leaves it at the end.

    Args:
        device: ``cpu``, ``cuda`` or ``auto``, which is CUDA when this host has a device for each of its ranks.
        timeouts: after ``collective_s`` seconds a collective fails, after ``link_s`` a connection to another host that
            is cut; those of ``Timeouts`` by default.

    Raises:
        ConfigError: CUDA is asked for, and this host has fewer devices than ranks, or none; or the device is unknown.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    chosen = _choose_device(device, local_rank, local_world_size)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    timeouts = timeouts or Timeouts()
    timeout = timedelta(seconds=timeouts.collective_s)
    says_nobody = "LOCAL_WORLD_SIZE" not in os.environ and "RANK" not in os.environ
    if says_nobody:
        os.environ["LOCAL_WORLD_SIZE"] = "1"  # TorchRec asks for it, and warns where it is not there
    if "RANK" not in os.environ:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    elif _is_alone(local_world_size):
        rank, world_size = int(os.environ["RANK"]), local_world_size
        store = _open_loopback_store(rank, world_size, timeout)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    else:
        dist.init_process_group(backend, timeout=timeout)
    try:
        world_size = dist.get_world_size()
        with Heartbeat(timeouts.link_s if world_size > local_world_size else None):
            yield Ranks(dist.get_rank(), world_size, local_rank, local_world_size, chosen)
    finally:
        dist.destroy_process_group()
        if says_nobody:
            del os.environ["LOCAL_WORLD_SIZE"]


def _is_alone(local_world_size: int) -> bool:
    """True when all ranks are on this host, and the launcher provides no store where they meet."""
    on_loopback = os.environ.get("MASTER_ADDR") in ("127.0.0.1", "localhost")
    has_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return on_loopback and not has_store and os.environ.get("WORLD_SIZE") == str(local_world_size)


def _open_loopback_store(rank: int, world_size: int, timeout: timedelta) -> dist.Store:
    """Opens the store where the ranks of one host meet; a store that torch makes listens on every network interface."""
    host, port = "127.0.0.1", int(os.environ["MASTER_PORT"])
    try:
        listener = socket.create_server((host, port)).detach() if rank == 0 else None
    except OSError as error:
        raise ConfigError(
            f"MASTER_PORT={port}: rank 0 cannot listen on {host} ({os.strerror(error.errno or 0)}); choose another "
            "port, or leave the choice to `recd train --nproc`"
        ) from error
    return dist.TCPStore(host, port, world_size, rank == 0, timeout, master_listen_fd=listener)


def _choose_device(device: str, local_rank: int, local_world_size: int) -> torch.device:
    """The device of this rank."""
    num_devices = torch.cuda.device_count() if device != "cpu" else 0
    if device == "auto":
        device = "cuda" if num_devices >= local_world_size else "cpu"
    if device == "cpu":
        return torch.device("cpu")
    if device != "cuda":
        raise ConfigError(f"device={device}: unknown; use cpu, cuda or auto")
    if num_devices < local_world_size:
        raise ConfigError(
            f"device=cuda: this host has {num_devices} CUDA devices for {local_world_size} ranks; "
            "start fewer ranks a host (-j 1xN) or use device=cpu"
        )
    return torch.device("cuda", local_rank)
