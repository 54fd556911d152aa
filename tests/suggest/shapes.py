"""Logs of eight shapes, and what ``--suggest`` estimates of them against what the ETL then measures.

``python -m tests.suggest.shapes`` prints the table for the whole log and for a part of its sessions.
"""

import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from recd_dist.etl.etl_run import Options
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.suggest.proposals import suggest
from recd_dist.suggest.suggestion import Suggestion
from recd_dist.table.manifest import Manifest

SAMPLES = 40_000
PART = 8_000
"""Samples that are looked at where only a part is."""

Columns = dict[str, Any]
Rng = np.random.Generator
START = 1_700_000_000_000_000


def _values(rng: Rng, changed: np.ndarray, num_ids: int, most: int = 1 << 30) -> pa.Array:
    """A column that takes a new value (a list where ``num_ids`` is above 0) at every change."""
    row = np.cumsum(changed) - 1
    if not num_ids:
        return pa.array(rng.integers(0, most, int(changed.sum()))[row])
    return pa.array(list(rng.integers(0, most, (int(changed.sum()), num_ids))[row]))


def _first(key: np.ndarray) -> np.ndarray:
    return np.append(True, key[1:] != key[:-1])


def _rest(rng: Rng, num: int) -> Columns:
    return {
        "item": pa.array(rng.integers(0, 5000, num)),
        "price": pa.array(rng.random(num).astype(np.float32)),
        "clicked": pa.array((rng.random(num) < 0.1).astype(np.int8)),
    }


def _times(microseconds: np.ndarray) -> pa.Array:
    return pa.array(microseconds + START).cast(pa.timestamp("us"))


def _write(path: Path, columns: Columns, order: np.ndarray | None = None, files: int = 1) -> str:
    table = pa.table(columns)
    table = table if order is None else table.take(pa.array(order))
    path.mkdir()
    for number in range(files):
        start, end = (len(table) * i // files for i in (number, number + 1))
        pq.write_table(table.slice(start, end - start), path / f"part-{number:02d}.parquet")
    return f"{path}/*.parquet"


def long_sessions(path: Path, rng: Rng) -> dict[str, Any]:
    """Sessions of about 40 samples that lie one after the other, in order of time."""
    session = np.sort(rng.integers(0, SAMPLES // 40, SAMPLES))
    first = _first(session)
    columns = {
        "visit": pa.array(session),
        "time": _times(np.arange(SAMPLES) * 1_000_000),
        "history": _values(rng, first | (rng.random(SAMPLES) > 0.9), 20),
        "profile": _values(rng, first, 6),
        "age": _values(rng, first, 0, 90),
    } | _rest(rng, SAMPLES)
    return {"path": _write(path, columns), "keys": {"session": "visit", "timestamp": "time"}}


def user_gaps(path: Path, rng: Rng) -> dict[str, Any]:
    """No session: a user's samples, with gaps of hours; other users lie in between."""
    user = rng.integers(0, SAMPLES // 60, SAMPLES)
    time = rng.integers(0, 20, SAMPLES) * 8 * 3_600_000_000 + rng.integers(0, 1_200_000_000, SAMPLES)
    order = np.lexsort((time, user))
    user, time = user[order], time[order]
    visit = _first(user) | np.append(True, np.diff(time) > 1_800_000_000)
    columns = {
        "user": pa.array([f"u{u}" for u in user]),
        "time": _times(time),
        "history": _values(rng, visit, 20),
        "country": _values(rng, _first(user), 5),
    } | _rest(rng, SAMPLES)
    return {"path": _write(path, columns, np.argsort(time)), "keys": {"user": "user", "timestamp": "time"}}


def requests(path: Path, rng: Rng) -> dict[str, Any]:
    """Ten candidates a request; the request is all that a session can be."""
    request = np.arange(SAMPLES) // 10
    order = rng.permutation(SAMPLES // 10)[request] * 10 + np.arange(SAMPLES) % 10
    columns = {
        "search": pa.array(request * 7 + 3),
        "query": _values(rng, _first(request), 12),
        "context": _values(rng, _first(request) | (rng.random(SAMPLES) > 0.95), 8),
    } | _rest(rng, SAMPLES)
    return {"path": _write(path, columns, np.argsort(order)), "keys": {"request": "search"}}


def interleaved(path: Path, rng: Rng) -> dict[str, Any]:
    """Sessions of very different lengths (a Pareto law), interleaved, unsorted, over twelve files; text as ids."""
    lengths = np.minimum(1 + (rng.pareto(1.3, SAMPLES) * 4).astype(int), 800)
    session = np.repeat(np.arange(SAMPLES), lengths)[:SAMPLES]
    first = _first(session)
    columns = {
        "visit": pa.array([f"s-{s:06x}" for s in session]),
        "time": _times(rng.integers(0, 10**10, SAMPLES)[session] + np.arange(SAMPLES) * 1000),
        "history": _values(rng, first | (rng.random(SAMPLES) > 0.8), 16),
        "profile": _values(rng, first, 4),
    } | _rest(rng, SAMPLES)
    shuffled = rng.permutation(SAMPLES)
    return {"path": _write(path, columns, shuffled, 12), "keys": {"session": "visit", "timestamp": "time"}}


def growing_history(path: Path, rng: Rng) -> dict[str, Any]:
    """CSV; a history that takes in one more id with every sample and forgets the one before the last thirty."""
    num = SAMPLES // 2
    session = np.sort(rng.integers(0, num // 25, num))
    item = rng.integers(0, 5000, num)
    begins = np.flatnonzero(_first(session))[np.cumsum(_first(session)) - 1]
    lists = [" ".join(map(str, item[max(begin, i - 30) : i])) for i, begin in enumerate(begins.tolist())]
    columns = _rest(rng, num) | {
        "visit": pa.array(session),
        "time": _times(np.arange(num) * 1_000_000),
        "item": pa.array(item),
        "history": pa.array(lists),
        "tastes": _values(rng, _first(session), 0, 1 << 20),
    }
    path.mkdir()
    log = pa.table(columns)  # noqa: F841  (DuckDB reads it)
    duckdb.sql(f"copy (select * from log) to '{path}/log.csv'")
    samples = """select * replace ([x::int for x in string_split(coalesce(history, ''), ' ') if x <> ''] as history)
from read_csv('{path}')"""
    return {"path": f"{path}/log.csv", "samples": samples, "keys": {"session": "visit", "timestamp": "time"}}


def nothing_repeats(path: Path, rng: Rng) -> dict[str, Any]:
    """No session, and values that hardly repeat."""
    columns = {
        "time": _times(np.arange(SAMPLES) * 1_000_000),
        "history": _values(rng, np.ones(SAMPLES, bool), 8),
        "site": _values(rng, rng.random(SAMPLES) > 0.1, 0, 300),
    } | _rest(rng, SAMPLES)
    return {"path": _write(path, columns), "keys": {"timestamp": "time"}}


def users_side_by_side(path: Path, rng: Rng) -> dict[str, Any]:
    """Short sessions whose ids are handed out user by user: a user's features repeat beyond the session."""
    session = np.sort(rng.integers(0, SAMPLES // 3, SAMPLES))
    user = session // 6
    columns = {
        "visit": pa.array(session),
        "time": _times(np.arange(SAMPLES) * 1_000_000),
        "likes": _values(rng, _first(user), 30),
        "basket": _values(rng, _first(session), 8),
    } | _rest(rng, SAMPLES)
    return {"path": _write(path, columns), "keys": {"session": "visit", "timestamp": "time"}}


def equal_times(path: Path, rng: Rng) -> dict[str, Any]:
    """Only the day is known: most samples of a session have the same time, and their order is that of their groups."""
    session = np.sort(rng.integers(0, SAMPLES // 20, SAMPLES))
    page = _first(session) | (rng.random(SAMPLES) > 0.8)
    columns = {
        "visit": pa.array(session),
        "day": _times(session % 30 * 86_400_000_000),
        "page": _values(rng, page, 10),
        "profile": _values(rng, _first(session), 6),
    } | _rest(rng, SAMPLES)
    order = rng.permutation(SAMPLES)
    return {"path": _write(path, columns, order), "keys": {"session": "visit", "timestamp": "day"}}


SHAPES: dict[str, Callable[[Path, Rng], dict[str, Any]]] = {
    shape.__name__: shape
    for shape in (
        *(long_sessions, user_gaps, requests, interleaved),
        *(growing_history, nothing_repeats, users_side_by_side, equal_times),
    )
}


@dataclass(frozen=True)
class Row:
    """One number of one shape: what was estimated, and what the ETL measured."""

    shape: str
    looked: str
    what: str
    estimated: float
    measured: float

    @property
    def error(self) -> float:
        """How far the estimate is off, as a share of what was measured."""
        return abs(self.estimated / self.measured - 1) if self.measured else abs(self.estimated)


def describe(shape: str, directory: Path) -> dict[str, Any]:
    """Writes the log of a shape; returns the data config of a source without groups."""
    options = SHAPES[shape](directory / shape, np.random.default_rng(7))
    return {"name": shape, "labels": ["clicked"]} | options


def compare(
    config: dict[str, Any], directory: Path, num_samples: int, shard_bytes: int | None = None
) -> tuple[Suggestion, list[Row]]:
    """Suggests groups for a source, makes the table that is proposed, and compares.

    Args:
        config: the data config of the source.
        directory: where the table is made.
        num_samples: about how many samples to look at.
        shard_bytes: the most bytes of a shard of the ETL.
    """
    options = Options(shard_bytes=shard_bytes)
    suggestion = suggest(
        Source.from_dict(config), data_config=config, num_samples=num_samples, options=options, progress=False
    )
    looked = f"{suggestion.looked.share:.0%}"
    tables = etl(proposed(suggestion), directory / "table", overwrite=True, shard_bytes=shard_bytes, progress=False)
    return suggestion, [Row(config["name"], looked, *numbers) for numbers in _numbers(suggestion, tables.values())]


def proposed(suggestion: Suggestion) -> Source:
    """The source that a suggestion proposes."""
    return Source.from_dict(yaml.safe_load(suggestion.yaml) | {"table": "x"})


def _numbers(suggestion: Suggestion, tables: Collection[Manifest]) -> Iterator[tuple[str, float, float]]:
    num_samples = sum(table.num_samples for table in tables)
    yield "samples", suggestion.looked.num_samples_total, num_samples
    yield "sessions", suggestion.looked.num_sessions_total, sum(table.num_sessions for table in tables)
    for group in suggestion.groups:
        train = next(table for table in tables if table.split == "train")
        yield f"{group.name}: samples a row", group.dedup_factor, train.dedup_factor(group.name)
    storage_bytes = suggestion.proposal("suggested").estimate.storage_bytes
    yield "bytes", storage_bytes, sum(table.num_bytes for table in tables)


def main() -> None:
    """Prints the table of all shapes."""
    print(f"{'shape':20} {'looked at':>9}  {'what':26} {'--suggest':>12} {'recd etl':>12} {'off':>7}")
    with tempfile.TemporaryDirectory() as scratch:
        for shape in SHAPES:
            config = describe(shape, Path(scratch))
            for num_samples in (SAMPLES, PART):
                for row in compare(config, Path(scratch), num_samples)[1]:
                    print(
                        f"{row.shape:20} {row.looked:>9}  {row.what:26} {row.estimated:12,.2f} {row.measured:12,.2f} "
                        f"{row.error:7.1%}{'  !' if row.error > 0.1 else ''}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
