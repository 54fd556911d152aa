"""``recd compact``: what it says, once."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.cli import main

pytestmark = pytest.mark.usefixtures("own_logging")


def add_log(folder: Path, number: int) -> list[str]:
    """Adds a file of four samples to a table; returns the options that name it."""
    rows = range(4 * number, 4 * number + 4)
    log = folder / f"{number}.parquet"
    pq.write_table(
        pa.table({"session": [n // 2 for n in rows], "t": rows, "clicked": [n % 2 for n in rows], "item": [5] * 4}), log
    )
    options = ["data=parquet", "data.name=mine", f"data.path={log}", "data.keys.session=session"]
    options += ["data.keys.timestamp=t", "data.labels=[clicked]", "data.split=null", f"data.table={folder / 'table'}"]
    assert main(["etl", *options, "append=true"]) == 0
    return options


def test_each_split_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = add_log(tmp_path, 0)
    capsys.readouterr()
    assert main(["compact", *options]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{tmp_path}/table/train: 1 part, none to merge; 4 samples, 0.0 MiB"]
    assert "part" not in err

    options = add_log(tmp_path, 1)
    capsys.readouterr()
    assert main(["compact", *options]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{tmp_path}/table/train: 2 parts, now 1; 8 samples, 0.0 MiB"]
    assert "parts became" not in err
