"""Options of the reader: how each rank of a job reads its table."""

from dataclasses import dataclass, field

from recd_dist.reader.defaults import PREFETCH, SHUFFLE_WINDOW
from recd_dist.reader.work import GivenWork


@dataclass
class Reader:
    """How a rank reads."""

    num_workers: int = 0
    order: str = "sessions"  # or partitions, table, time: in which order an epoch is read; docs/training.md
    shuffle: bool | None = None  # of older releases: false is order=table
    window: int = SHUFFLE_WINDOW  # row groups whose sessions are shuffled among each other
    prefetch: int = PREFETCH  # batches per worker
    batches: str = "samples"  # or work: batches of nearly equal work, of which batch_size is the mean size
    batch_ids: int | None = None  # unique ids that a batch may store, beside batch_size; None: any number
    whole: str | None = None  # sessions or users: what is not cut between two batches where it fits into one
    work: GivenWork = field(default_factory=GivenWork)
    follow: bool = False  # data.reader=direct: train the parts of a folder as they come
    follow_idle_s: float | None = None  # with follow: end when no part has come for so long; None: never
    equal_rows: str = "auto"  # data.reader=direct: neighbours or hash finds them; auto: found by measuring
    windows: bool = True  # histories that are stored as windows stay so in batches, where ids or batches travel
    on_bad_id: str = "error"  # or drop: ids outside their table
    on_nan: str = "error"  # or zero: dense values and weights that are not finite
    servers: list[str] = field(default_factory=list)  # host:port of `recd reader`, grpc+tls://host:port with TLS
    servers_dir: str | None = None  # instead: the directory in which servers announce themselves
    token_file: str | None = None  # what is shown to servers; None: the environment variable RECD_READER_TOKEN
    tls_ca: str | None = None  # certificates that servers must be signed by; None: those of the system
    compression: str = "none"  # of batches on their way from servers: none, lz4 or zstd
    shared_memory: bool = True  # servers on the same host write batches into memory of the trainer, not to a socket

    @property
    def read_order(self) -> str:
        """The order of an epoch: ``order``, or what the option of older releases says."""
        return "table" if self.shuffle is False else self.order

    @property
    def is_filled(self) -> bool:
        """Whether batches are filled up to a number of ids, or with whole sessions."""
        return self.batch_ids is not None or self.whole is not None

    @property
    def is_uneven(self) -> bool:
        """Whether batches of a step may have more or fewer samples than others by more than one."""
        return self.batches == "work" or self.is_filled
