"""The position of a job: where it stands in its epochs, in a checkpoint and back.

::

    {"epoch": 1, "remaining": [[120, 500], [900, 1000]], "table": "5f1c..", "seed": 0, "order": "sessions", "window": 8}

It says which samples no rank has trained, by their numbers in the order of the epoch. Numbers mean the same samples as
long as the table, the seed, the order and the window are the same ones: these are compared, and refused where they are
not.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recd_dist.errors import ConfigError
from recd_dist.reader.intervals import Interval
from recd_dist.reader.order import SESSIONS, TABLE, Shuffle
from recd_dist.table.manifest import Manifest


@dataclass(frozen=True)
class Position:
    """Where a job stands: the epoch and the samples of it that no rank has trained.

    Attributes:
        epoch: counted from 0.
        remaining: intervals of samples, by their numbers in the order of the epoch.
        table: fingerprint of the table's files.
        shuffle: what the order of an epoch depends on.
    """

    epoch: int
    remaining: tuple[Interval, ...]
    table: str
    shuffle: Shuffle

    @staticmethod
    def at_start(manifest: Manifest, shuffle: Shuffle, epoch: int = 0) -> "Position":
        """The beginning of an epoch."""
        return Position(epoch, ((0, manifest.num_samples),), fingerprint(manifest), shuffle)

    def to_json(self) -> dict[str, Any]:
        """A small JSON-ready dict; ``Position.from_json`` is its inverse."""
        return {
            "epoch": self.epoch,
            "remaining": [list(interval) for interval in self.remaining],
            "table": self.table,
            "seed": self.shuffle.seed,
            "order": self.shuffle.order,
            "window": self.shuffle.window_size,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any], manifest: Manifest, shuffle: Shuffle) -> "Position":
        """The position that ``to_json`` wrote, checked against the table and the settings of this run.

        Args:
            value: what ``to_json`` wrote.
            manifest: what the table of this run holds.
            shuffle: the settings of this run.

        Raises:
            ConfigError: the table, seed, order or window is another one, with which the same numbers mean other
                samples; or the position is damaged.
        """
        if value["table"] != fingerprint(manifest):
            raise ConfigError(
                f"resume: the checkpoint was made on another table than '{manifest.name}/{manifest.split}' is now "
                f"({value['table']}, found {fingerprint(manifest)}); point at that table or start a new run directory"
            )
        then = {"order": SESSIONS if value.get("shuffle", True) else TABLE, **value}  # older ones say shuffle or not
        options = {"seed": "seed", "order": "reader.order", "window": "reader.window"}
        for name, now in (("seed", shuffle.seed), ("order", shuffle.order), ("window", shuffle.window_size)):
            if then[name] != now:
                raise ConfigError(
                    f"resume: the checkpoint's reader has {name}={then[name]}, this run {name}={now}; its position "
                    f"means other samples then. Set {options[name]}={then[name]} or start a new run directory"
                )
        intervals = tuple((int(start), int(end)) for start, end in value["remaining"])
        _check_intervals(intervals, manifest.num_samples)
        return Position(int(value["epoch"]), intervals, value["table"], shuffle)


def _check_intervals(intervals: Sequence[Interval], num_samples: int) -> None:
    """Refuses a position that would read a sample twice or one that does not exist."""
    end = 0
    for start, stop in sorted(intervals):
        if start < end or stop < start or stop > num_samples:
            raise ConfigError(
                f"resume: damaged reader position, {[start, stop]} overlaps or leaves 0..{num_samples}; start a new "
                "run directory, or remove the newest checkpoint"
            )
        end = stop


def fingerprint(manifest: Manifest) -> str:
    """Names the samples of a table and their order: 16 hexadecimal digits of its sample files' sizes and checksums."""
    digest = hashlib.sha256()
    for part in manifest.parts:
        digest.update(repr((part.samples.row_groups, part.samples.num_bytes, part.samples.crc32)).encode())
    return digest.hexdigest()[:16]
