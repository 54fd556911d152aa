"""What ``recd stats`` prints."""

from pathlib import Path

from rich.console import Console

from recd_dist.table.stats.stats_text import render
from recd_dist.table.stats.table_stats import measure_table


def test_text_fits_in_120_columns(table: Path) -> None:
    stats = measure_table(table)
    console = Console(width=120, record=True, file=(table / "out.txt").open("w"))
    console.print(render(stats))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    assert "hand/train: 6 samples, 3 sessions" in text
    assert "mean 2.00, median 2, max 3" in text
