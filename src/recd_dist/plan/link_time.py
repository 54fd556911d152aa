"""Seconds in which ranks exchange bytes: over the slower link, on the busiest rank, in one step or in two.

Links run both ways at once, so that the larger direction counts. A rank that many others ask sends to all of them.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from recd_dist.plan.machines import Machine
from recd_dist.plan.step_bytes import Array, all_reduce_bytes


@lru_cache(maxsize=4)
def hosts_and_neighbours(world_size: int, local_world_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The host of each rank, and how many other ranks it has, int64 [W] each.

    Args:
        world_size: W, the number of ranks.
        local_world_size: number of ranks of a host; the last host may have fewer.
    """
    hosts = np.arange(world_size) // local_world_size
    return hosts, np.bincount(hosts)[hosts] - 1


def exchange_ms(exchanged: Array, machine: Machine) -> float:
    """Milliseconds of an all-to-all on its slowest rank, without latency; links run both ways at once.

    Args:
        exchanged: bytes that each rank sends to each of the ranks, float64 [W].
        machine: what the links cost.
    """
    return float(exchange_seconds(exchanged, machine).max()) * 1e3


def exchange_seconds(exchanged: Array, machine: Machine) -> Array:
    """Seconds of an all-to-all on each rank, float64 [W].

    Args:
        exchanged: bytes that each rank sends to each of the ranks, float64 [W].
        machine: what the links cost.
    """
    world_size = len(exchanged)
    hosts, neighbours = hosts_and_neighbours(world_size, machine.local_world_size(world_size))
    of_host = np.bincount(hosts, weights=exchanged)[hosts]
    inside = np.maximum(of_host - exchanged, exchanged * neighbours)
    between = np.maximum(exchanged.sum() - of_host, exchanged * (world_size - 1 - neighbours))
    seconds: Array = np.maximum(inside / machine.inside_bytes_per_s, between / machine.between_bytes_per_s)
    return seconds


def relay_ms(inner: Array, outer: Array, machine: Machine) -> float:
    """Milliseconds of an exchange in two steps on its slowest rank, without latency.

    Args:
        inner: bytes that each batch sends to each rank of its host, float64 [W].
        outer: bytes that each host sends to each rank, float64 [W].
        machine: what the links cost.
    """
    return float(relay_seconds(inner, outer, machine).max()) * 1e3


def relay_seconds(inner: Array, outer: Array, machine: Machine) -> Array:
    """Seconds of an exchange in two steps on each rank, float64 [W].

    Args:
        inner: bytes that each batch sends to each rank of its host, float64 [W].
        outer: bytes that each host sends to each rank, float64 [W].
        machine: what the links cost.
    """
    world_size = len(inner)
    if not inner.any() and not outer.any():
        return np.zeros(world_size)
    size = machine.local_world_size(world_size)
    by_host, by_number = inner.reshape(-1, size), outer.reshape(-1, size)
    inside = np.maximum(by_host.sum(1, keepdims=True) - by_host, (size - 1) * by_host)
    between = np.maximum(by_number.sum(0, keepdims=True) - by_number, (len(by_number) - 1) * by_number)
    seconds: Array = inside / machine.inside_bytes_per_s + between / machine.between_bytes_per_s
    return seconds.reshape(-1)


def latency_ms(world_size: int, machine: Machine) -> float:
    """Milliseconds of a collective that moves hardly a byte.

    Args:
        world_size: number of ranks that take part.
        machine: what the links cost.
    """
    return machine.latency_ms + machine.latency_ms_per_rank * (world_size - 2) if world_size > 1 else 0.0


def all_reduce_ms(num_parameters: int, world_size: int, machine: Machine) -> float:
    """Milliseconds in which the gradients of copies are summed over all ranks, without latency.

    Args:
        num_parameters: number of float32 parameters.
        world_size: W, the number of ranks.
        machine: what the links cost.
    """
    inside, between = split_all_reduce(num_parameters, world_size, machine)
    return (inside / machine.inside_bytes_per_s + between / machine.between_bytes_per_s) * 1e3


def split_all_reduce(num_parameters: int, world_size: int, machine: Machine) -> tuple[float, float]:
    """Bytes that the mean rank sends when gradients of copies are summed over all ranks.

    On several hosts the ranks of a host first sum up a share each, and exchange their shares with the ranks of the same
    number on other hosts: a host's cards carry one L-th each, as the rings of NCCL do.

    Args:
        num_parameters: number of float32 parameters.
        world_size: W, the number of ranks.
        machine: the machines; they say how many ranks a host has.

    Returns:
        Bytes sent inside the rank's host, and bytes sent to other hosts.
    """
    local = machine.local_world_size(world_size)
    hosts = -(-world_size // local)
    return all_reduce_bytes(num_parameters, local), all_reduce_bytes(num_parameters, hosts) / local


def two_step_latency_ms(world_size: int, machine: Machine) -> float:
    """Milliseconds of a collective inside hosts, and one between ranks of the same number.

    Args:
        world_size: W, the number of ranks.
        machine: what the links cost.
    """
    local = machine.local_world_size(world_size)
    return latency_ms(local, machine) + latency_ms(-(-world_size // local), machine)
