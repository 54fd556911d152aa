"""``recd check``: a table as it was written, and tables whose files were changed, cut off or lost."""

import json
import shutil
from pathlib import Path

import pytest

from recd_dist.cli import main

pytestmark = pytest.mark.usefixtures("own_logging")


@pytest.fixture
def table(tiny: list[str], tmp_path: Path) -> Path:
    """A copy of the tiny table, both splits, to be damaged."""
    tables = next(o.partition("=")[2] for o in tiny if o.startswith("data.table="))
    return Path(shutil.copytree(tables, tmp_path / "table"))


def first_part(split: Path) -> Path:
    return min(split.rglob("*.parquet"))


def test_a_table_as_it_was_written(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    num_files = {split: len(list((table / split).rglob("part-*.parquet"))) for split in ("train", "test")}
    assert main(["check", str(table)]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert len(lines) == 2
    for split, line in zip(("train", "test"), sorted(lines, reverse=True), strict=True):
        assert line.startswith(f"{table / split}: {num_files[split]} files, ")
        assert line.endswith(" MiB: all as they were written")


def test_one_changed_byte_is_found(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = first_part(table / "train")
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)

    assert main(["check", str(table / "train"), str(table / "test"), "--json", str(tmp_path / "check.json")]) == 1
    out = capsys.readouterr().out
    assert "1 damaged; make the table again with `recd etl ... overwrite=true`" in out
    assert f"  {part}: its checksum is " in out
    train, test = json.loads((tmp_path / "check.json").read_text())
    assert [damage["path"] for damage in train["damaged"]] == [str(part)]
    assert test["damaged"] == []


@pytest.mark.parametrize("name", ["sketches.parquet", "statistics.parquet"])
def test_one_changed_byte_of_a_note_is_found(table: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    note = table / "train" / name
    data = bytearray(note.read_bytes())
    data[len(data) // 2] ^= 1
    note.write_bytes(data)

    assert main(["check", str(table / "train")]) == 1
    assert f"  {note}: its checksum is " in capsys.readouterr().out


def test_every_damaged_file_is_named(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut, lost = sorted((table / "train").rglob("part-*.parquet"))[:2]
    cut.write_bytes(cut.read_bytes()[:-1])
    lost.unlink()

    assert main(["check", str(table / "train")]) == 1
    out = capsys.readouterr().out
    assert "2 damaged" in out
    assert (
        f"  {cut}: {cut.stat().st_size:,} bytes, {cut.stat().st_size + 1:,} were written: the file was cut off" in out
    )
    assert f"  {lost}: no such file, though the manifest names it" in out


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("{}/nowhere", "no clustered table there; give the directory that holds manifest.json, or the one above it"),
        ("data=tiny", "recd check data=tiny: takes directories of tables, such as `recd check tables/tiny`"),
    ],
)
def test_what_is_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], argument: str, message: str) -> None:
    assert main(["check", argument.format(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_a_split_without_a_readable_manifest_does_not_hide_the_other(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (table / "test/manifest.json").write_text("{")
    lost = first_part(table / "train")
    lost.unlink()

    assert main(["check", str(table)]) == 1
    out = capsys.readouterr().out
    assert f"  {table / 'test/manifest.json'}: not readable as JSON" in out
    assert f"  {lost}: no such file" in out
    (table / "test/manifest.json").unlink()
    assert main(["check", str(table)]) == 1
    assert f"{table / 'test'}: no clustered table here (no manifest.json)" in capsys.readouterr().out


def test_statistics_that_an_append_needs(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (table / "train/statistics.parquet").unlink()
    (table / "train/sketches.parquet").write_bytes(b"PAR1")

    assert main(["check", str(table / "train")]) == 1
    out = capsys.readouterr().out
    assert "statistics.parquet: no such file, though the manifest names it" in out
    assert "sketches.parquet: 4 bytes, " in out


def test_tables_may_stand_on_both_sides_of_a_flag(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = tmp_path / "check.json"
    assert main(["check", str(table / "train"), "--json", str(said), str(table / "test"), str(table / "train")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(json.loads(said.read_text())) == 2
