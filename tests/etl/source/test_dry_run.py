"""``recd etl --dry-run``: the user's texts stand beside their hashes, and what is announced is shown."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from recd_dist.etl.source.dry_run import dry_run
from recd_dist.etl.source.source import Source


def test_texts_stand_beside_their_hashes(tmp_path):
    rows = {"s": ["alice"] * 40, "y": [0, 1] * 20, "item": ["red"] * 40, "h": [["a", "b"]] * 40, "twin": [0, 1] * 20}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    named = {"name": "shop", "path": str(tmp_path / "a.parquet"), "keys": {"session": "s"}, "labels": ["y"]}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(dry_run(Source.from_dict(named)))
    shown = console.export_text()
    assert "red = 2615789927692210082" in shown
    assert "[a b](2) = [" in shown
    assert "alice = " in shown
    assert "note        column 'twin' equals the label 'y'" in shown
