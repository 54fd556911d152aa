"""The ranks that tables are spread over, and whether a table has rows for all of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """The ranks that tables are spread over.

    Attributes:
        size: number of ranks.
        host_size: number of ranks of one host. The last host has fewer where ``size`` is no multiple of it.
        device_type: ``cpu`` or ``cuda``.
    """

    size: int
    host_size: int
    device_type: str = "cpu"

    @staticmethod
    def of_one_host(size: int, device_type: str = "cpu") -> "World":
        """A world whose ranks are all on one host.

        Args:
            size: number of ranks.
            device_type: ``cpu`` or ``cuda``.
        """
        return World(size, size, device_type)

    @property
    def num_hosts(self) -> int:
        """Number of hosts."""
        return -(-self.size // self.host_size)

    def ranks_of(self, host: int) -> range:
        """The ranks of one host.

        Args:
            host: number of the host, from 0.
        """
        return range(host * self.host_size, min((host + 1) * self.host_size, self.size))


def can_divide_rows(num_embeddings: int, num_ranks: int, device_type: str = "cpu") -> bool:
    """Whether a table's rows can be divided into equal blocks, one for each rank.

    On CPU every rank must get at least one row. Where a shard is empty, fbgemm's CPU backward reads past its table
    sizes (embedding_backward_split_cpu_template.cpp, ``get_hash_size``): that is sometimes an error about 2B rows and
    sometimes garbage.

    Args:
        num_embeddings: rows of the table.
        num_ranks: number of ranks.
        device_type: ``cpu`` or ``cuda``.
    """
    return device_type != "cpu" or -(-num_embeddings // num_ranks) * (num_ranks - 1) < num_embeddings
