"""The comparison of tables with samples left out, sessions by gaps, weights, windows and appended parts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.etl.checksum.sample_sums import ROW
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.etl.verify.compare import verify
from recd_dist.etl.verify.verification import Verification
from recd_dist.table.manifest import Manifest

DAY_S = 86_400
NUM = 60
AGES = "select range as user, range / 2 as age, [range, range + 1] as friends from range(8)"


def rows(change: Callable[[int], dict[str, Any]] = lambda i: {}) -> list[dict[str, Any]]:
    """Samples of 9 users over three days; the user 8 has no row of its own."""
    return [
        {
            "user": i % 9,
            "visit": i % 9 + 100 * (i // 20),
            "t": pa.scalar(1_700_000_000 + i * 4000, pa.int64()).as_py() * 1_000_000,
            "id": i,
            "history": [max(i - j, 0) for j in range(i % 5)],
            "item": i * i,
            "price": i / 7,
            "clicked": i % 2,
        }
        | change(i)
        for i in range(NUM)
    ]


def source(path: Path, samples: list[dict[str, Any]], **options: Any) -> Source:
    table = pa.Table.from_pylist(samples)
    place = table.column_names.index("t")
    table = table.set_column(place, "t", table["t"].cast(pa.timestamp("us")))
    file = path / f"raw-{len(list(path.glob('raw-*')))}.parquet"
    pq.write_table(table, file)
    described = {
        "path": str(file),
        "keys": {"session": "visit", "timestamp": "t"},
        "labels": ["clicked"],
        "groups": {"history": ["history"], "user": {"sql": AGES, "key": "user"}},
        "drop": ["id"],
    }
    return Source.from_dict(described | options)


def write_and_compare(path: Path, made: Source, **options: Any) -> Verification:
    etl(made, path / "out", progress=False, **options)
    return verify(made, path / "out", progress=False)


def column_names(found: Verification) -> set[str]:
    return {c.column for c in found.columns}


EVERYTHING = {"session_id", "timestamp", "clicked", "history", "item", "price", "age", "friends", ROW}


@pytest.mark.parametrize(
    ("options", "change", "num_left_out"),
    [
        ({"policy": {"time": "drop", "earliest": "2023-01-01"}}, lambda i: {"t": 5} if i in (3, 50) else {}, 2),
        ({"policy": {"duplicates": "drop"}, "keys": {"session": "visit", "timestamp": "t", "sample": "id"}}, None, 3),
        ({"sample": 0.5}, None, None),
        ({"sample": 0.5, "groups": None, "drop": ["id", "user"]}, None, None),
    ],
    ids=["time", "duplicate", "sampled", "sampled, automatic groups"],
)
@pytest.mark.parametrize("split", [None, "item > 2500"])
def test_what_a_policy_left_out_is_accounted_for_in_every_column(
    tmp_path: Path, options: dict[str, Any], change: Any, num_left_out: int | None, split: str | None
) -> None:
    samples = rows(change) if change else rows()
    if "duplicates" in options.get("policy", {}):
        samples += [samples[7] | {"item": -1}, samples[8], samples[9]]
    made = source(tmp_path, samples, split=split, **options)

    found = write_and_compare(tmp_path, made, shard_bytes=2000)

    assert found.equal
    assert num_left_out in (found.num_dropped, None)
    assert found.num_dropped > 0
    assert found.num_samples == {"": (len(samples) - found.num_dropped,) * 2}
    assert found.skipped == ()
    assert column_names(found) == EVERYTHING - (set() if made.groups else {"age", "friends"})

    whole = source(tmp_path, samples[1:], split=split, **options)  # the source has lost a sample since
    assert not verify(whole, tmp_path / "out", progress=False).equal


def test_sessions_found_by_gaps_are_not_there_to_be_compared(tmp_path: Path) -> None:
    made = source(tmp_path, rows(), keys={"user": "user", "timestamp": "t"}, sessions={"by": "gap", "gap": "2h"})
    found = write_and_compare(tmp_path, made)
    assert found.equal
    assert column_names(found) == EVERYTHING - {"session_id"} | {"visit"}


def test_windows_are_compared_as_the_lists_that_they_stand_for(tmp_path: Path) -> None:
    samples = rows(lambda i: {"visit": i // 20, "history": list(range(i, i + 30))})
    made = source(tmp_path, samples, features={"history": {"window": True}})
    found = write_and_compare(tmp_path, made, row_group_samples=16)
    assert Manifest.load(tmp_path / "out" / "train").schema["history"].window
    assert found.equal

    file = sorted((tmp_path / "out" / "train" / "history.stream").glob("*.parquet"))[0]
    stream = pq.read_table(file)
    place = stream.column_names.index("history")
    lists = stream["history"].to_pylist()
    lists[0][15] += 1
    pq.write_table(stream.set_column(place, stream.field(place), pa.array(lists, stream.field(place).type)), file)
    changed = verify(made, tmp_path / "out", progress=False)
    assert changed.differing_columns == ("history",)


def test_weights_are_compared_with_their_ids(tmp_path: Path) -> None:
    samples = rows(lambda i: {"scores": [j / 3 if j else None for j in range(i % 5)]})
    features = {"history": {"weights": "scores"}}
    made = source(tmp_path, samples, features=features)
    found = write_and_compare(tmp_path, made)
    assert found.equal
    assert column_names(found) == EVERYTHING

    other = rows(lambda i: {"scores": [j / 3 + (i == 7) for j in range(i % 5)]})
    changed = verify(source(tmp_path, other, features=features), tmp_path / "out", progress=False)
    assert changed.differing_columns == ("history",)
    assert "timestamp 1700028000000000" in changed.example


def test_a_table_that_was_appended_to_is_compared_with_everything_in_it(tmp_path: Path) -> None:
    samples = rows(lambda i: {"visit": i // 5})
    options = {"keys": {"session": "visit", "timestamp": "t", "sample": "id"}, "policy": {"duplicates": "drop"}}
    for number, part in enumerate((samples[:20], samples[20:40], samples[40:])):
        made = source(tmp_path, [*part, part[0]], **options)
        etl(made, tmp_path / "out", progress=False, append=number > 0)
    whole = source(tmp_path, [*samples, samples[0], samples[20], samples[40]], **options)

    found = verify(whole, tmp_path / "out", progress=False)

    assert found.equal
    assert found.num_samples == {"": (60, 60)}
    assert found.num_dropped == 3
    assert not verify(source(tmp_path, samples[20:], **options), tmp_path / "out", progress=False).equal


def test_shards_of_which_nothing_is_left_are_accounted_for(tmp_path: Path) -> None:
    samples = rows(lambda i: {"visit": i // 5})
    options = {"partition": "day", "policy": {"late": "drop"}}
    etl(source(tmp_path, samples[:30], **options), tmp_path / "out", progress=False)
    more = [*samples[:25], *samples[45:]]  # five sessions come late, each with a shard of its own
    etl(source(tmp_path, more, **options), tmp_path / "out", progress=False, append=True, shard_bytes=300)
    assert Manifest.load(tmp_path / "out" / "train").dropped == {"late": 25}

    found = verify(source(tmp_path, [*samples[:30], *more], **options), tmp_path / "out", progress=False)

    assert found.equal
    assert (found.num_samples, found.num_dropped, found.skipped) == ({"": (45, 45)}, 25, ())
