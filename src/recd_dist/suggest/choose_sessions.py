"""Which sessions a sample takes: blocks of neighbouring sessions, spread over all of them by chance.

::

    shards       0 1 2 3 ...                                         whole ones, while they are small enough
    sessions     0 ......................................... n       of one shard by id, as they lie in the table
    blocks         [----]        [----]            [----]  [----]    as many samples as wanted, at random places
    too many bytes [--]          [--]              [--]    [--]      every block is halved; sessions stay whole
    one session    the sample ends where the memory does, and the session may be cut

A block of neighbours, since a row that two neighbouring sessions share is stored once (all visits of one user, say):
sessions that are chosen one by one would not show it. Where ids are hashes of text, neighbours are neighbours by hash.
The places are drawn a few times, and those are taken whose sessions are as long as all sessions are on average.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.deal.assign_sessions import is_in_share
from recd_dist.etl.source.inspection import SESSION, TIMESTAMP
from recd_dist.suggest.dealing import Dealing
from recd_dist.table.hash import scramble

I64 = npt.NDArray[np.int64]

_MAX_KEYS = 1 << 16
_MAX_BLOCKS = 64
_DRAWS = 64
_MAX_TIMES = 1 << 16
_PENDING = 1 << 18
_WHOLE = 1.5  # a source of up to so many times the wanted samples is read whole
_MIDDLES = (0.1, 0.3, 0.5, 0.7, 0.9)  # where the spans of time lie between the earliest and the latest sample
_LEAST, _MOST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass
class KeyCounts:
    """What the keys of all rows of a source say, in bounded memory.

    Attributes:
        sample: the share of the sessions that the source takes.
        num_rows: number of rows of the sessions that are taken.
        num_keyless: number of rows without a session.
        keys: int64 in ascending order, distinct sessions: all of them while they are few, then those whose hash is
            below a limit that sinks.
        counts: int64, the number of rows of each of these sessions.
        log2_share: the share of all sessions that ``keys`` are, as a power of two.
        times: timestamps of every ``step``-th row of each batch, in pieces.
        step: doubles whenever there are too many timestamps.
    """

    sample: float = 1.0
    num_rows: int = 0
    num_keyless: int = 0
    keys: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    counts: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    log2_share: int = 0
    times: list[I64] = field(default_factory=list)
    step: int = 1
    _pending: list[I64] = field(default_factory=list)

    def _add(self, batch: pa.RecordBatch) -> None:
        self.num_keyless += batch.column(SESSION).null_count
        batch = take_usable(batch, self.sample)
        self.num_rows += batch.num_rows
        keys = batch.column(SESSION).to_numpy()
        self._pending.append(keys[self._is_counted(keys)])
        if sum(map(len, self._pending)) > _PENDING:
            self._count_pending()
        self.times.append(batch.column(TIMESTAMP).drop_null().to_numpy()[:: self.step])
        if sum(map(len, self.times)) > 2 * _MAX_TIMES:
            self.times = [np.concatenate(self.times)[::2]]
            self.step *= 2

    def count(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Counts the sessions of all rows.

        Args:
            batches: the session and the timestamp of every row.

        Raises:
            DataError: there are no rows.
        """
        for batch in batches:
            self._add(batch)
        self._count_pending()
        if not self.num_rows:
            raise DataError("the samples query returned no rows; check path and query")

    def _count_pending(self) -> None:
        new, num_new = np.unique(np.concatenate([self.keys[:0], *self._pending]), return_counts=True)
        self._pending = []
        self.keys, place = np.unique(np.concatenate([self.keys, new]), return_inverse=True)
        counts = np.concatenate([self.counts, num_new])
        self.counts = np.bincount(place, counts, len(self.keys)).astype(np.int64)
        while len(self.keys) > _MAX_KEYS:
            self.log2_share += 1
            stays = self._is_counted(self.keys)
            self.keys, self.counts = self.keys[stays], self.counts[stays]

    def _is_counted(self, keys: I64) -> npt.NDArray[np.bool_]:
        """Which sessions are among the share that ``keys`` are, bool [n]."""
        if not self.log2_share:
            return np.ones(len(keys), np.bool_)
        hashes: npt.NDArray[np.uint64] = scramble(keys.view(np.uint64))
        return hashes >> np.uint64(64 - self.log2_share) == 0

    @property
    def num_sessions(self) -> int:
        """Number of distinct sessions; beyond 65,536 an estimate within 1%."""
        return len(self.keys) << self.log2_share

    def choose(self, num_samples: int, max_bytes: int, dealing: Dealing) -> "ChosenSessions":
        """Chooses sessions that together have about ``num_samples``; all if the source has few more.

        Args:
            num_samples: the wanted number of samples.
            max_bytes: bytes of Arrow memory that the samples may take.
            dealing: how the ETL would deal sessions into shards. Whole shards are taken where that is enough.
        """
        share = 1.0 if self.num_rows <= _WHOLE * num_samples else num_samples / self.num_rows
        shards = self._choose_shards(dealing, share)
        inside = np.isin(dealing.shard_of(self.keys), shards)
        keys, counts = self.keys[inside], self.counts[inside]
        share *= self.counts.sum() / counts.sum()
        mean = float(self.counts.mean())
        blocks = _choose_blocks(counts, 1.0 if share * _WHOLE >= 1 else share, mean)
        where = "" if len(shards) == dealing.num_shards else dealing.condition(shards)

        def is_in_shards(session: I64) -> npt.NDArray[np.bool_]:
            return np.isin(dealing.shard_of(session), shards)

        return ChosenSessions(keys, blocks, max_bytes, self.sample, is_in_shards, where)

    def _choose_shards(self, dealing: Dealing, share: float) -> list[int]:
        """The shards that hold about a share of the samples, at least one: those with sessions of the usual length."""
        num_shards = dealing.num_shards
        if share == 1:
            return list(range(num_shards))
        shard = dealing.shard_of(self.keys)
        num_keys = np.maximum(np.bincount(shard, minlength=num_shards), 1)
        num_rows = np.bincount(shard, self.counts, num_shards)
        difference = np.abs(num_rows / num_keys / self.counts.mean() - 1)
        difference[num_rows < 0.5 * num_rows.max()] = np.inf  # what is left over at the end
        return np.argsort(difference, kind="stable")[: max(1, int(share * num_shards))].tolist()

    def time_spans(self, num_samples: int) -> list[tuple[int, int]]:
        """Spans of time, from early to late, that together hold about so many samples: (first, last) timestamp."""
        times = np.sort(np.concatenate(self.times))
        share = min(1.0, num_samples / max(self.num_rows, 1)) / len(_MIDDLES)
        spans = [(max(0.0, middle - share / 2), min(1.0, middle + share / 2)) for middle in _MIDDLES]
        return [(int(first), int(last)) for first, last in np.quantile(times, spans, method="nearest")]


def take_usable(batch: pa.RecordBatch, sample: float) -> pa.RecordBatch:
    """The rows of a batch that have a session which the source takes.

    Args:
        batch: rows with a session.
        sample: the share of the sessions that the source takes.
    """
    if batch.column(SESSION).null_count:
        batch = batch.filter(batch.column(SESSION).is_valid())
    return batch if sample == 1 else batch.filter(pa.array(is_in_share(batch.column(SESSION).to_numpy(), sample)))


def _choose_blocks(counts: I64, share: float, mean: float) -> I64:
    """Draws blocks of neighbouring sessions, one from each of equal pieces of all of them.

    Args:
        counts: int64, the number of samples of each session, in order of their ids.
        share: the share of the sessions that is wanted.
        mean: the number of samples that sessions should have, on average.

    Returns:
        int64 [blocks, 2], the first session of each block, and the one after its last.
    """
    num_keys = len(counts)
    num_blocks = int(np.clip(np.sqrt(num_keys * share), 1, min(_MAX_BLOCKS, num_keys)))
    edges = np.linspace(0, num_keys, num_blocks + 1)
    if share == 1:
        return np.stack([edges[:-1], edges[1:]], 1).round().astype(np.int64)
    rows_before, lengths = np.append(0, np.cumsum(counts)), np.diff(edges) * share
    best, least = np.empty((0, 2), np.int64), np.inf
    for draw in range(_DRAWS):
        starts = edges[:-1] + np.random.default_rng(draw).random(num_blocks) * (np.diff(edges) - lengths)
        ends = np.minimum(np.maximum(starts + lengths, starts + 1), num_keys)
        blocks = np.stack([np.minimum(starts, ends - 1), ends], 1).round().astype(np.int64)
        num_rows = (rows_before[blocks[:, 1]] - rows_before[blocks[:, 0]]).sum()
        error = abs(num_rows / (blocks[:, 1] - blocks[:, 0]).sum() / mean - 1)
        if error < least:
            best, least = blocks, error
    return best


class ChosenSessions:
    """Samples of the chosen sessions; every block of them is halved when they need too much memory.

    Args:
        keys: int64 in ascending order, the sessions of the chosen shards, or a share of them.
        blocks: int64 [blocks, 2], the first of ``keys`` of each block, and the one after its last.
        max_bytes: bytes of Arrow memory that the samples may take.
        sample: the share of the sessions that the source takes.
        is_in_shards: which of some session keys are of the chosen shards.
        where: the same as a condition in SQL; empty where all shards are chosen.
    """

    def __init__(
        self,
        keys: I64,
        blocks: I64,
        max_bytes: int,
        sample: float,
        is_in_shards: Callable[[I64], npt.NDArray[np.bool_]],
        where: str,
    ) -> None:
        self.max_bytes = max_bytes
        self.batches: list[pa.RecordBatch] = []
        self.is_cut = False
        """Whether one session alone is too large, so that it may be cut."""
        self._keys, self._blocks, self._sample = keys, blocks, sample
        self._is_in_shards, self._where = is_in_shards, where
        self._num_bytes = 0

    @property
    def has_whole_shards(self) -> bool:
        """Whether all sessions of the chosen shards are chosen."""
        return bool((self._blocks[:, 1] - self._blocks[:, 0]).sum() == len(self._keys))

    @property
    def share(self) -> float:
        """The share of the sessions of the chosen shards that is chosen."""
        return float((self._blocks[:, 1] - self._blocks[:, 0]).sum() / len(self._keys))

    @property
    def spans(self) -> I64:
        """The first and the last session id of each block, int64 [blocks, 2]."""
        keys, (first, end) = self._keys, self._blocks.T
        starts = np.where(first == 0, _LEAST, keys[first])
        ends = np.where(end == len(keys), _MOST, keys[np.minimum(end, len(keys) - 1)] - 1)
        return np.stack([starts, ends], 1)

    def condition(self) -> str:
        """The chosen sessions as a condition in SQL."""
        conditions = [f"{SESSION} is not null", *([self._where] if self._where else [])]
        if not self.has_whole_shards:
            spans = " or ".join(f"{SESSION} between {a} and {b}" for a, b in self.spans.tolist())
            conditions.append(f"({spans})")
        return " and ".join(conditions)

    def read(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Takes the samples of chosen sessions, until a session has to be cut."""
        for batch in batches:
            self.add(batch)
            if self.is_cut:
                break

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes the samples of chosen sessions; chooses fewer sessions when memory is full."""
        batch = self._filter(take_usable(batch, self._sample))
        if batch.num_rows:
            self.batches.append(batch)
            self._num_bytes += batch.nbytes
        while self._num_bytes > self.max_bytes and not self.is_cut:
            self.halve()

    def halve(self) -> None:
        """Drops half of the sessions of each block; of a single session nothing is dropped, and ``is_cut`` is set."""
        lengths = self._blocks[:, 1] - self._blocks[:, 0]
        if lengths.sum() <= 1:
            self.is_cut = True
            return
        if (lengths == 1).all():
            self._blocks = self._blocks[::2]
        else:
            self._blocks[:, 1] = self._blocks[:, 0] + (lengths + 1) // 2
        kept = [batch for batch in self._filtered() if batch.num_rows]
        self.batches = kept or self.batches[:1]
        self._num_bytes = sum(batch.nbytes for batch in self.batches)

    def table(self) -> pa.Table:
        """The samples taken so far, as they came."""
        return pa.Table.from_batches(self.batches)

    def _filtered(self) -> Iterator[pa.RecordBatch]:
        return (self._filter(batch) for batch in self.batches)

    def _filter(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        session, spans = batch.column(SESSION).to_numpy(), self.spans
        is_chosen = self._is_in_shards(session)
        if not self.has_whole_shards:
            block = np.searchsorted(spans[:, 0], session, "right") - 1
            is_chosen &= (block >= 0) & (session <= spans[np.maximum(block, 0), 1])
        return batch if is_chosen.all() else batch.filter(pa.array(is_chosen))
