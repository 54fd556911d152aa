"""The directory of scores that ranks write together: whole or absent, and a prediction that was stopped goes on.

::

    .out.partial/prediction.json                        what is scored, by which weights, and what stands beside
                 part-000000000000-000000262144.parquet  samples [0 .. 262,144): a part that is finished
                 part-000000524288-000000786432.parquet  the samples between them are left to score
    out/part-...   _SUCCESS                             all parts, and JSON that names them; written last

A part appears under its name when it is whole, and its name says which samples it holds. Whoever goes on, on however
many ranks, scores those that no part holds. Locally one rename, or one exchange with the scores that are there, puts
the directory in place. A store has no rename: finished parts are copied to their place there, and ``_SUCCESS`` last.
pandas, pyarrow, DuckDB, Polars and Spark read the directory or ``part-*.parquet`` as they are; they skip names that
begin with an underscore or a dot.
"""

import fcntl
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch.distributed as dist

from recd_dist.errors import ConfigError, DataError
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_directory import put_in_place
from recd_dist.job.score_places import SUCCESS, work_directory
from recd_dist.ranks.process_group import Ranks
from recd_dist.reader.intervals import Interval, merge_intervals
from recd_dist.table.location import (
    Location,
    arrow_input,
    contents,
    is_remote,
    listing,
    put,
    report_store_errors,
)
from recd_dist.train.shared_table import agree_on

logger = logging.getLogger(__name__)

_LOCK, _RECORD = "lock", "prediction.json"
_PART = re.compile(r"part-(\d{12})-(\d{12})\.parquet")


def part_name(start: int, end: int) -> str:
    """The name of the file of samples [start, end)."""
    return f"part-{start:012d}-{end:012d}.parquet"


class ScoreDirectory:
    """Where this rank writes its parts, and how all parts come into their place.

    ``open``, ``begin`` and ``finish`` are collectives; ``draft`` and ``keep`` are of one rank.

    Args:
        out: the directory, local or in a store, of which ``require_free`` has nothing to say.
        ranks: this rank's place in the job.
        resume: go on with what is there; False begins anew.
    """

    def __init__(self, out: Location, ranks: Ranks, resume: bool = True) -> None:
        self.out, self.work, self._ranks, self._resume = out, work_directory(out), ranks, resume
        self._scratch = Path()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Inside, parts may be written. Where the block fails, finished parts stay, and nothing where there is none.

        Raises:
            DataError: another run writes to the same place, or it cannot be written.
        """
        with _no_os_error(self.out), tempfile.TemporaryDirectory(prefix="recd_scores_") as scratch, self._hold():
            self._scratch = Path(scratch if is_remote(self.work) else str(self.work))
            dist.barrier()  # rank 0 has made the directory
            yield

    @contextmanager
    def _hold(self) -> Iterator[None]:
        """Rank 0 holds the directory, and removes it at the end unless parts of it are worth keeping."""
        if not self._ranks.is_first:
            yield
            return
        if is_remote(self.work):
            yield from self._clear_around()
            return
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / _LOCK).open("w") as lock:
            _lock(lock, self.work)
            yield from self._clear_around()

    def _clear_around(self) -> Iterator[None]:
        if not self._resume:
            self._remove_all()
        try:
            yield
        finally:
            with suppress(DataError):
                if not self.parts():
                    self._remove_all(also_directory=True)

    def begin(self, record: Mapping[str, Any], num_samples: int, world_size: int) -> list[Interval]:
        """The samples that are left to score.

        Args:
            record: what is scored, by which weights, and what stands beside; JSON-ready, the same when it goes on.
            num_samples: samples of all.
            world_size: ranks, of which each needs a sample, unless none is left.

        Raises:
            ConfigError: something else was begun there.
        """
        return agree_on(lambda: self._begin(record, num_samples, world_size), self._ranks)

    def _begin(self, record: Mapping[str, Any], num_samples: int, world_size: int) -> list[Interval]:
        parts, then = self.parts(), self._read_record()
        for path in _inside(self.work):
            if path.suffix == ".tmp":
                path.unlink()
        if then is None:  # nobody knows what they are of
            for name in parts:
                self._remove(name)
            parts = {}
        if parts and then is not None:
            _require_same(self.out, then, record)
        for name, (start, end) in sorted(parts.items()):
            if not self._is_whole(name):
                self._remove(name)
                del parts[name]
                logger.warning("%s: cannot be read; samples %d to %d are scored again", self.work / name, start, end)
        while parts and 0 < num_samples - sum(end - start for start, end in parts.values()) < world_size:
            name = max(parts)
            self._remove(name)
            del parts[name]
        put(self.work / _RECORD, (json_text(dict(record)) + "\n").encode())
        left, place = list[Interval](), 0
        for start, end in sorted(parts.values()):
            left.append((place, start))
            place = end
        left.append((place, num_samples))
        if parts:
            done = num_samples - sum(end - start for start, end in left)
            logger.info("%s: %s of %s samples are scored already; going on", self.work, f"{done:,}", f"{num_samples:,}")
        return list(merge_intervals(left))

    def draft(self, start: int) -> Path:
        """A local file for the part that begins with a sample, under a name that nobody takes for a part."""
        return self._scratch / f".part-{start:012d}.tmp"

    def keep(self, draft: Path, start: int, end: int) -> None:
        """Makes a draft that is whole the part of samples [start, end).

        Raises:
            StoreError: the store cannot be reached.
        """
        self.keep_beside(draft, part_name(start, end))

    def keep_beside(self, draft: Path, name: str) -> None:
        """Puts a draft that is whole among the parts; what is no part begins with an underscore, and is kept, too."""
        place = self.work / name
        if is_remote(place):
            with report_store_errors(place):
                place.fs.makedirs(place.parent.path, exist_ok=True)
                place.fs.put_file(str(draft), place.path)
            draft.unlink()
        else:
            draft.replace(str(place))

    def parts(self) -> dict[str, Interval]:
        """The parts that are finished, by name, each with its samples; none where there is no directory.

        Raises:
            StoreError: the store cannot be reached.
        """
        names = listing(self.work) if is_remote(self.work) else [path.name for path in _inside(self.work)]
        found = ((name, _PART.fullmatch(name)) for name in names)
        return {name: (int(match[1]), int(match[2])) for name, match in found if match is not None}

    def schema_of_parts(self, wanted: str) -> pa.Schema:
        """The columns of the parts, with types wide enough for all of them.

        Args:
            wanted: a column that parts have until they are merged.

        Raises:
            DataError: the prediction was stopped just when they were merged.
        """
        schemas = [pq.read_schema(arrow_input(self.work / name)) for name in sorted(self.parts())]
        if any(wanted not in schema.names for schema in schemas):
            raise DataError(f"{self.work}: was stopped when its parts were merged; begin anew by resume=false")
        return pa.unify_schemas(schemas, promote_options="permissive")

    def read_parts(self) -> Iterator[pa.Table]:
        """The rows of all parts, in order, row group by row group."""
        for name in sorted(self.parts()):
            with report_store_errors(place := self.work / name), pq.ParquetFile(arrow_input(place)) as file:
                for number in range(file.num_row_groups):
                    yield file.read_row_group(number)

    def wait(self) -> None:
        """Waits until all ranks have written their parts; a collective."""
        dist.barrier()

    def replace_parts(self, draft: Path, num_samples: int) -> None:
        """Makes one part of all, which a draft holds; of rank 0."""
        old = self.parts()
        self.keep(draft, 0, num_samples)
        for name in old:
            if name != part_name(0, num_samples):
                self._remove(name)

    def finish(self, facts: Mapping[str, Any], num_samples: int) -> dict[str, Any]:
        """Puts the parts of all ranks in place, which must be called inside ``open``.

        Args:
            facts: what ``_SUCCESS`` says beside the files; those of rank 0 count.
            num_samples: samples of all.

        Returns:
            The content of ``_SUCCESS``.

        Raises:
            DataError: a sample is in no part, or in two.
        """
        dist.barrier()  # all parts are written
        names: list[str] = agree_on(lambda: self._tiled(num_samples), self._ranks)
        value = {**facts, "files": names}
        if is_remote(self.out):
            self._copy_in_store(names, value)
        elif self._ranks.is_first:
            put(self.work / SUCCESS, (json_text(value) + "\n").encode())
            for path in _inside(self.work):
                if path.name not in names and not path.name.startswith("_"):
                    path.unlink()
            self.out.parent.mkdir(parents=True, exist_ok=True)
            put_in_place(Path(str(self.work)), Path(str(self.out)))
        dist.barrier()
        return value

    def _tiled(self, num_samples: int) -> list[str]:
        """Names of the parts, which hold each sample once."""
        parts, place = sorted(self.parts().items()), 0
        for name, (start, end) in parts:
            if start != place:
                raise DataError(f"{self.work / name}: begins with sample {start}, the part before it ends at {place}")
            place = end
        if place != num_samples:
            raise DataError(f"{self.work}: its parts hold {place} of {num_samples} samples; begin anew by resume=false")
        return [name for name, _ in parts]

    def _copy_in_store(self, names: Sequence[str], value: Mapping[str, Any]) -> None:
        """Replaces what a store has: first its ``_SUCCESS`` goes, and the new one comes last."""
        out, work = self.out, self.work
        if not (is_remote(out) and is_remote(work)):
            return
        if self._ranks.is_first:
            old = [name for name in listing(out) if name.startswith("part-") and name.endswith(".parquet")]
            for name in (SUCCESS, *old, *(name for name in listing(out) if name.startswith("_"))):
                with report_store_errors(out), suppress(FileNotFoundError):
                    out.fs.rm_file((out / name).path)
        dist.barrier()
        with report_store_errors(out):
            out.fs.makedirs(out.path, exist_ok=True)
            beside = sorted(name for name in listing(work) if name.startswith("_"))
            for name in [*names, *beside][self._ranks.rank :: self._ranks.world_size]:
                out.fs.cp_file((work / name).path, (out / name).path)
        dist.barrier()
        if self._ranks.is_first:
            put(out / SUCCESS, (json_text(dict(value)) + "\n").encode())
            self._remove_all(also_directory=True)

    def _read_record(self) -> dict[str, Any] | None:
        """What was begun there; None where nothing tells it."""
        with suppress(FileNotFoundError, ValueError):
            value = json.loads(contents(self.work / _RECORD))
            return value if isinstance(value, dict) else None
        return None

    def _is_whole(self, name: str) -> bool:
        """Whether a part has the end of a Parquet file."""
        with suppress(pa.ArrowException, OSError):
            pq.read_metadata(arrow_input(self.work / name)).num_rows  # noqa: B018
            return True
        return False

    def _remove(self, name: str) -> None:
        place = self.work / name
        with report_store_errors(place), suppress(FileNotFoundError):
            if is_remote(place):
                place.fs.rm_file(place.path)
            else:
                Path(str(place)).unlink()

    def _remove_all(self, also_directory: bool = False) -> None:
        """Empties the directory."""
        work = self.work
        if is_remote(work):
            with report_store_errors(work), suppress(FileNotFoundError):
                work.fs.invalidate_cache()
                work.fs.rm(work.path, recursive=True)
        elif also_directory:
            shutil.rmtree(str(work), ignore_errors=True)
        else:
            for path in _inside(work):
                if path.name != _LOCK:
                    path.unlink()


def _require_same(out: Location, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on with scores of something else."""
    for name in dict.fromkeys((*now, *then)):
        if (was := then.get(name)) != (found := now.get(name)):
            raise ConfigError(
                f"out={out}: holds a prediction that was stopped, with {name}={was}, now {found}; finish that one, "
                "begin anew by resume=false, or choose another directory"
            )


def _inside(directory: Location) -> list[Path]:
    place = Path(str(directory))
    return sorted(place.iterdir()) if place.is_dir() else []


def _lock(lock: IO[str], work: Location) -> None:
    """Locks the directory, and refuses to begin while another run holds it."""
    try:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DataError(f"{work}: another `recd predict` is writing there; wait for it or stop it") from None


@contextmanager
def _no_os_error(out: Location) -> Iterator[None]:
    """Says in one line what the disk refuses."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"out={out}: cannot be written ({error.strerror or error}); choose another directory"
        ) from error
