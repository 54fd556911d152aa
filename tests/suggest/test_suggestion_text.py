"""A suggestion as text."""

import io
from pathlib import Path

from tests.suggest.planted import plant_table, source

from recd_dist.screen.console import console
from recd_dist.suggest.proposals import suggest
from recd_dist.suggest.suggestion_text import render


def test_text_fits_in_120_columns_and_nothing_is_cut_off(tmp_path: Path) -> None:
    plant_table(tmp_path / "t.parquet", {"history": (0.8, 2), "profile": (0.97, 3), "places": (0.9, 1)})
    stream = io.StringIO()
    console(stream).print(render(suggest(source(tmp_path / "t.parquet"), progress=False)))
    text = stream.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 120
    assert "worth it: " in text
