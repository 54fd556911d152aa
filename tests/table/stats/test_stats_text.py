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
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[:3] == [
        "hand/train: 6 samples, 3 sessions",
        "samples per session mean 2.00, median 2, max 3",
        "samples per request mean 1.50, median 1.5, max 2",
    ]
    assert any(line.startswith("history 1 3 0.667 2.00 2.00 2.00 2.00 1.50 ") for line in lines)
    assert "history 3,413 1,707 21.3KiB 10.7KiB 512KiB 256KiB 50%" in lines
    assert any(line.startswith("candidate (table item) id 1.0 1 0.000 6 6 - ") for line in lines)
