"""The servers of a job, as its options name them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recd_dist.reader.tier.announcements import announced, token_of
from recd_dist.reader.tier.server_access import TrainerAccess
from recd_dist.reader.tier.server_address import Address


@dataclass(frozen=True)
class Servers:
    """Where servers are, and how they are asked.

    Attributes:
        addresses: where they listen; empty where they announce themselves.
        directory: where they announce themselves.
        token_file, tls_ca: what ``TrainerAccess`` takes.
        compression: of the bodies of batches.
        shared_memory: lend memory to servers on this host.
        wait_s: a batch that no server has sent for so long ends the run.
        call_s: a server that takes longer for a batch is taken for one that hangs; None: half of ``wait_s``.
        rank: this rank; streams of different ranks begin at different servers.
    """

    addresses: tuple[Address, ...] = ()
    directory: Path | None = None
    token_file: Path | None = None
    tls_ca: Path | None = None
    compression: str = "none"
    shared_memory: bool = True
    wait_s: float = 120.0
    call_s: float | None = None
    rank: int = 0

    def num_streams(self, num_workers: int) -> int:
        """Streams of a rank: as many as workers are wanted, or one for each server.

        Args:
            num_workers: the option ``reader.num_workers``; 0 wants what is usual.
        """
        return num_workers or max(len(self.addresses), 1)

    def find(self) -> Sequence[Address]:
        """The servers that there are now."""
        return self.addresses if self.directory is None else announced(self.directory)

    @property
    def access(self) -> TrainerAccess:
        """What is shown to servers, and whom to trust."""
        file = self.token_file
        if file is None and self.directory is not None and any(not a.is_loopback for a in self.find()):
            file = token_of(self.directory)
        return TrainerAccess(file, self.tls_ca)
