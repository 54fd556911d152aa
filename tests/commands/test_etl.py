"""``recd etl``: what it says of a table that was appended to."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.cli import main
from recd_dist.table.manifest import Manifest
from recd_dist.table.stats.disk import raw_bytes


def write_day(path: Path, first: int) -> Path:
    number = list(range(first, first + 40))
    columns = {"session": [n // 4 for n in number], "t": number, "item": [n * 7 % 11 for n in number]}
    pq.write_table(pa.table(columns | {"clicked": [n % 2 for n in number]}), path)
    return path


def etl(path: Path, *arguments: str) -> int:
    keys = ("data.keys.session=session", "data.keys.timestamp=t", "data.labels=[clicked]")
    table = ("data=parquet", "data.name=shop", f"data.path={path}", f"data.table={path.parent / 'out'}")
    return main(["etl", *table, *keys, "data.split=null", *arguments])


def test_a_table_of_two_days_is_verified_against_both(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    days = [write_day(tmp_path / f"day-{n}.parquet", 40 * n) for n in range(2)]
    assert etl(days[0], "append=true", "--verify") == 0
    assert etl(days[1], "append=true", "--verify") == 2
    assert "append first, then run `recd etl ... --verify`" in capfd.readouterr().err
    assert etl(days[1], "append=true") == 0
    assert etl(days[1], "--verify") == 1
    assert f"samples of 1 files that data.path does not name now, such as {days[0]}" in capfd.readouterr().err
    assert etl(tmp_path / "day-*.parquet", "--verify") == 0
    manifest = Manifest.load(tmp_path / "out/train")
    assert raw_bytes(manifest) == sum(day.stat().st_size for day in days)
