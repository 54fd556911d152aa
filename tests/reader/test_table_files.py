import gc
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from recd_dist.errors import ConfigError, DataError
from recd_dist.reader.order import RowGroup
from recd_dist.reader.table_files import TableFiles
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.schema import Feature, Kind, Schema


def test_a_row_group_holds_its_samples(small):
    first, second = (small.manifest.parts[0].samples.row_groups[i] for i in (0, 1))
    rows = TableFiles(small.clustered).read(RowGroup(0, 1, second))
    assert rows.sample_ids.tolist() == list(range(first, first + second))
    history = rows.columns["history"]
    for place, number in enumerate(rows.sample_ids):
        row = rows.row_of_sample["user"][place]
        assert history.values[history.offsets[row] : history.offsets[row + 1]].tolist() == small.samples[number].history
    assert rows.num_rows["user"] == len(history.offsets) - 1 < second


def test_only_the_columns_of_the_schema_are_read(small):
    schema = small.schema.without(["history", "age", "tags"])
    rows = TableFiles(small.clustered, schema).read(RowGroup(0, 0, 0))
    assert set(rows.columns) == {"country", "candidate", "price"}
    assert set(rows.row_of_sample) == {"profile"}


def test_truncated_file(spoiled):
    table = spoiled()
    path = table.path / "user/part-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    files = TableFiles(table.clustered)
    with pytest.raises(
        DataError, match=r"user/part-00001.parquet: [\d,]+ bytes, [\d,]+ were written: the file was cut off or"
    ):
        files.check_sizes()
    with pytest.raises(DataError, match=r"cut off or replaced; make the table again"):
        files.read(RowGroup(1, 0, 0))


def test_missing_file(spoiled):
    table = spoiled()
    (table.path / "samples/part-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"samples/part-00001.parquet: no such file, though the manifest names it"):
        TableFiles(table.clustered).read(RowGroup(1, 0, 0))


def test_damaged_page_names_its_row_group(spoiled):
    table = spoiled()
    path = table.path / "samples/part-00001.parquet"
    data = bytearray(path.read_bytes())
    data[4:400] = b"\xff" * 396  # pages of the first row group; the footer stays
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"samples/part-00001.parquet, row group 0: cannot be decoded"):
        TableFiles(table.clustered).read(RowGroup(1, 0, 0))


def test_any_damage_of_a_footer_is_an_error_or_harmless(spoiled):
    """Also names that are no text, and columns that lie outside of the file."""
    table, refused = spoiled(), 0
    path = table.path / "samples/part-00001.parquet"
    whole = path.read_bytes()
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for place in range(start, len(whole) - 8, 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x80]) + whole[place + 1 :])
        try:
            TableFiles(table.clustered).read(RowGroup(1, 0, 0))
        except DataError:
            refused += 1
    assert refused > 10


def test_damaged_footer(spoiled):
    table = spoiled()
    path = table.path / "samples/part-00000.parquet"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(DataError, match=r"samples/part-00000.parquet: not a readable Parquet file"):
        TableFiles(table.clustered).read(RowGroup(0, 0, 0))


def test_row_groups_other_than_written(spoiled):
    table = spoiled()
    first = table.manifest.parts[0]
    wrong = replace(first, samples=replace(first.samples, row_groups=(1, 2)))
    manifest = replace(table.manifest, parts=(wrong, *table.manifest.parts[1:]))
    with pytest.raises(DataError, match=r"3 row groups with \d+ rows, the manifest says 2 with 3"):
        TableFiles(ClusteredTable(table.path, manifest)).read(RowGroup(0, 0, 1))


def test_missing_column(spoiled, rewrite):
    table = spoiled()
    rewrite(table, "user/part-00000.parquet", lambda c: {n: v for n, v in c.items() if n != "age"} | {"agee": c["age"]})
    with pytest.raises(DataError, match=r"user/part-00000.parquet: no column 'age'; did you mean 'agee'"):
        TableFiles(table.clustered).read(RowGroup(0, 0, 0))


@pytest.mark.parametrize(
    ("file", "name", "change", "message"),
    [
        ("samples", "candidate", lambda c: c.cast(pa.float64()), "'candidate' is double, a feature of kind id is"),
        ("user", "history", lambda c: pa.array([1] * len(c)), "'history' is int64, a feature of kind ids is list"),
        ("user", "age", lambda c: c.cast(pa.int32()), "'age' is int32, a feature of kind dense is float32"),
        ("samples", "clicked", lambda c: c.cast(pa.int32()), "label 'clicked' is int32, wanted float32"),
        ("samples", "sample_id", lambda c: c.cast(pa.int32()), "key column 'sample_id' is int32, wanted int64"),
    ],
)  # fmt: skip
def test_changed_type(spoiled, rewrite, file, name, change, message):
    table = spoiled()
    rewrite(table, f"{file}/part-00000.parquet", lambda c: c | {name: change(c[name])})
    with pytest.raises(DataError, match=message):
        TableFiles(table.clustered).read(RowGroup(0, 0, 0))


def test_rows_of_another_file(spoiled, rewrite):
    table = spoiled()
    rewrite(table, "user/part-00000.parquet", lambda c: c | {"row": pa.array([r.as_py() + 1000 for r in c["row"]])})
    with pytest.raises(DataError, match=r"'user_row' goes from .* the files do not belong together"):
        TableFiles(table.clustered).read(RowGroup(0, 0, 0))


def test_label_that_is_not_a_number(spoiled):
    table = spoiled(number=1, clicked=float("nan"))
    with pytest.raises(
        DataError, match=r"samples/part-00000.parquet, row group 0, row 1: label 'clicked' is nan; leave"
    ):
        TableFiles(table.clustered).read(RowGroup(0, 0, 0))


def test_unknown_feature(small):
    schema = Schema((Feature("prise", Kind.dense),), ("clicked",))
    with pytest.raises(ConfigError, match=r"feature 'prise': table small/train has none; did you mean 'price'"):
        TableFiles(small.clustered, schema)


def test_feature_of_another_kind(small):
    schema = Schema((Feature("candidate", Kind.ids, "sample", "item"),), ("clicked",))
    with pytest.raises(
        ConfigError, match=r"ids in group 'sample' asked for, table small/train has id in group 'sample'"
    ):
        TableFiles(small.clustered, schema)


def test_unknown_label(small):
    with pytest.raises(ConfigError, match=r"label 'clickd': .* did you mean 'clicked'"):
        TableFiles(small.clustered, Schema(small.schema.features, ("clickd",)))


def test_files_are_closed_when_nobody_reads_any_more(small):
    def count_files() -> tuple[int, int]:
        """The open files while a table is read, and afterwards."""
        files = TableFiles(small.clustered)
        files.read(RowGroup(0, 0, 0))
        while_read = len(list(Path("/proc/self/fd").iterdir()))
        del files
        gc.collect()
        return while_read, len(list(Path("/proc/self/fd").iterdir()))

    count_files()  # what libraries open once stays open
    first, second = count_files(), count_files()
    assert first[1] < first[0]
    assert second == first
