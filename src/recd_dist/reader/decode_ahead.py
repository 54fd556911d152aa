"""Decodes the next shuffle window while batches are made of the one in use."""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from recd_dist.reader.order import ShuffleWindow
from recd_dist.reader.shuffle_window import DecodedShuffleWindow


class ShuffleWindowCache:
    """The shuffle window in use and the next one, which a thread decodes meanwhile (decoding releases the GIL).

    Args:
        decode: reads a shuffle window of an epoch.
        size: shuffle windows that are kept.
    """

    def __init__(self, decode: Callable[[int, ShuffleWindow], DecodedShuffleWindow], size: int = 2) -> None:
        self._decode, self._size = decode, size
        self._shuffle_windows: OrderedDict[tuple[int, int], Future[DecodedShuffleWindow]] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recd-decode")

    def fetch(
        self, epoch: int, shuffle_window: ShuffleWindow, following: ShuffleWindow | None = None
    ) -> DecodedShuffleWindow:
        """Waits for a decoded shuffle window, which is in memory already where it was the following one before.

        Args:
            epoch: the epoch of the shuffle window, counted from 0.
            shuffle_window: what to decode.
            following: what will be asked for next; its decoding begins.
        """
        decoded = self._future(epoch, shuffle_window)
        if following is not None:
            self._future(epoch, following)
        return decoded.result()

    def _future(self, epoch: int, shuffle_window: ShuffleWindow) -> "Future[DecodedShuffleWindow]":
        key = (epoch, shuffle_window.number)
        if key not in self._shuffle_windows:
            self._shuffle_windows[key] = self._thread.submit(self._decode, epoch, shuffle_window)
        self._shuffle_windows.move_to_end(key)
        while len(self._shuffle_windows) > self._size:
            self._shuffle_windows.popitem(last=False)[1].cancel()
        return self._shuffle_windows[key]

    def close(self) -> None:
        """Ends the thread; shuffle windows that wait are not decoded."""
        self._thread.shutdown(wait=True, cancel_futures=True)
