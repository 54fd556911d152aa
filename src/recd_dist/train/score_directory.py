"""The directory of scores that ranks write together: whole or absent, in the order of the table.

::

    out/part-00000.parquet   keys and scores of the first samples, from rank 0
        part-00001.parquet   those of rank 1, and so on: by name, the files are in the table's order
        _SUCCESS             JSON: run, step, table, number of samples, files; written last

Locally the ranks write into ``.out.partial`` beside it, and one rename, or one exchange with the scores that are there,
puts it in place. A store has no rename: each rank keeps its file on its disk until all have computed theirs, then they
are uploaded, and ``_SUCCESS`` last. pandas, pyarrow, DuckDB, Polars and Spark read the directory or ``part-*.parquet``
as they are; they skip names that begin with an underscore or a dot.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch.distributed as dist

from recd_dist.errors import ConfigError, DataError
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_directory import put_in_place
from recd_dist.ranks.process_group import Ranks
from recd_dist.table.location import Location, contents, file_size, is_remote, put, report_store_errors

if TYPE_CHECKING:
    from upath import UPath

SUCCESS = "_SUCCESS"
"""The last file that is written; it names the others."""
_LOCK = "lock"


class ScoreDirectory:
    """Where this rank writes its file, and how all files come into their place. Every method is a collective.

    Args:
        out: the directory, local or in a store, of which ``require_free`` has nothing to say.
        ranks: this rank's place in the job.
    """

    def __init__(self, out: Location, ranks: Ranks) -> None:
        self.out, self._ranks = out, ranks
        self.name = f"part-{ranks.rank:05d}.parquet"

    @contextmanager
    def open(self) -> Iterator[Path]:
        """A local file for this rank's part. Where the block fails nothing stays.

        Raises:
            DataError: another run writes to the same place, or it cannot be written.
        """
        with _no_os_error(self.out), self._open_work() as work:
            dist.barrier()  # rank 0 has emptied the directory
            yield work / self.name

    @contextmanager
    def _open_work(self) -> Iterator[Path]:
        """The local directory that holds this rank's part: one for all ranks beside ``out``, or one of its own."""
        if is_remote(self.out):
            with tempfile.TemporaryDirectory(prefix="recd_scores_") as own:
                yield Path(own)
            return
        work = self._work()
        if not self._ranks.is_first:
            yield work
            return
        work.mkdir(parents=True, exist_ok=True)
        with (work / _LOCK).open("w") as lock:
            _hold(lock, work)
            try:
                for left in work.iterdir():  # by a run that was killed
                    if left.name != _LOCK:
                        left.unlink()
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def _work(self) -> Path:
        out = Path(os.path.abspath(str(self.out)))
        return out.parent / f".{out.name}.partial"

    def finish(self, part: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Puts the parts of all ranks in place, which must be called inside ``open``.

        Args:
            part: this rank's file, which is whole.
            facts: what ``_SUCCESS`` says beside the files; those of rank 0 count.

        Returns:
            The content of ``_SUCCESS``.
        """
        names: list[str | None] = [None] * self._ranks.world_size
        dist.all_gather_object(names, self.name)  # all parts are written
        value = {**facts, "files": sorted(str(name) for name in names)}
        if is_remote(self.out):
            self._upload(part, self.out, value)
        elif self._ranks.is_first:
            (part.parent / SUCCESS).write_text(json_text(value) + "\n")
            (part.parent / _LOCK).unlink()
            self.out.parent.mkdir(parents=True, exist_ok=True)
            put_in_place(part.parent, Path(str(self.out)))
        dist.barrier()
        return value

    def _upload(self, part: Path, out: "UPath", value: Mapping[str, Any]) -> None:
        """Replaces what a store has: first its ``_SUCCESS`` goes, and the new one comes last."""
        if self._ranks.is_first:
            for name in (SUCCESS, *_parts_in(out)):
                with report_store_errors(out), suppress(FileNotFoundError):
                    out.fs.rm_file((out / name).path)
        dist.barrier()
        with report_store_errors(out):
            out.fs.makedirs(out.path, exist_ok=True)
            out.fs.put_file(str(part), (out / self.name).path)
        dist.barrier()
        if self._ranks.is_first:
            put(out / SUCCESS, (json_text(value) + "\n").encode())


def read_success(out: Location) -> dict[str, Any]:
    """What ``_SUCCESS`` says of the scores in a directory.

    Args:
        out: the directory, local or in a store.
    """
    value: dict[str, Any] = json.loads(contents(out / SUCCESS))
    return value


def require_free(out: Location, overwrite: bool) -> None:
    """Refuses a directory that holds what may not be replaced.

    Args:
        out: the directory, local or in a store.
        overwrite: scores that are there are replaced.

    Raises:
        ConfigError: scores are there that may not be replaced, or something else; or it is named like a file.
    """
    if out.suffix == ".parquet":
        raise ConfigError(f"out={out}: each rank writes a file, so name a directory: out={str(out)[:-8]}")
    if file_size(out) is not None:
        raise ConfigError(f"out={out}: a file is there; name a directory for the scores")
    if file_size(out / SUCCESS) is not None:
        if not overwrite:
            raise ConfigError(
                f"out={out}: scores are there already; overwrite=true replaces them, or choose another directory"
            )
        return
    if is_remote(out):
        return  # parts without _SUCCESS are what a killed upload has left
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"out={out}: something else than scores is there; choose another directory")


def _parts_in(out: "UPath") -> list[str]:
    """Names of the parts that stand in a store."""
    with report_store_errors(out), suppress(FileNotFoundError, NotADirectoryError):
        out.fs.invalidate_cache()
        names = (name.rstrip("/").rpartition("/")[2] for name in out.fs.ls(out.path, detail=False))
        return sorted(name for name in names if name.startswith("part-") and name.endswith(".parquet"))
    return []


def _hold(lock: IO[str], work: Path) -> None:
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
