"""Columns as they are stored, a row for each sample, in the order of the table and from any sample to any other."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from tests.reader.conftest import SmallTable

from recd_dist.errors import ConfigError
from recd_dist.reader.stored_columns import StoredColumns
from recd_dist.table.clustered import ClusteredTable

NAMES = ("sample_id", "session_id", "clicked", "candidate", "tags", "country", "history", "age")


@pytest.mark.parametrize(("start", "end"), [(0, None), (0, 1), (17, 203), (100, 101), (50, 50)])
def test_every_column_of_an_interval(small: SmallTable, start: int, end: int | None) -> None:
    end = len(small.samples) if end is None else end
    chunks = list(StoredColumns.of(small.clustered, NAMES).read(start, end))
    found = pa.concat_tables(chunks).to_pylist() if chunks else []

    wanted = [
        {"sample_id": number, "session_id": s.session, **{name: getattr(s, name) for name in NAMES[2:]}}
        for number, s in enumerate(small.samples[start:end], start)
    ]
    assert found == wanted


def test_integers_have_64_bits(small: SmallTable) -> None:
    """The table stores candidates and tags in 32; another part of it might need 64."""
    table = next(StoredColumns.of(small.clustered, ("candidate", "tags")).read(0, 1))

    assert table.schema.types == [pa.int64(), pa.list_(pa.int64())]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("candidat",), r"columns: the table .* has no column 'candidat'; did you mean 'candidate'\?"),
        (("clicked", "age", "clicked"), "columns: 'clicked' stands there already; name it once"),
    ],
)
def test_what_cannot_be_read(small: SmallTable, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StoredColumns.of(small.clustered, names)


def test_a_key_that_the_table_keeps_under_another_name_or_not_at_all(small: SmallTable) -> None:
    keys = {"keys": {"session": "visit", "user": "member"}}
    table = replace(small.clustered, manifest=replace(small.manifest, source=keys))
    with pytest.raises(ConfigError, match=r"as it is keys\.session \(it is there as session_id\); to keep it, "):
        StoredColumns.of(table, ("visit",))
    with pytest.raises(ConfigError, match=r"as it is keys\.user; .* `member as member_copy`, and train with "):
        StoredColumns.of(table, ("member",))


def test_a_history_in_windows_is_refused(tiny: list[str]) -> None:
    table = ClusteredTable.load(Path(tiny[2].partition("=")[2]) / "train")
    with pytest.raises(ConfigError, match=r"'history_item' is a history that is stored as windows.*`recd sql` gives"):
        StoredColumns.of(table, ("history_item",))
