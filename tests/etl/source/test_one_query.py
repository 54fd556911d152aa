"""A shared data config reads; it does not write, whatever stands in its SQL."""

from pathlib import Path

import pytest

from recd_dist.errors import UserError
from recd_dist.etl.source.inspection import inspect
from recd_dist.etl.source.source import Source
from recd_dist.synthetic.logs import score_splits


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("data.samples", {"samples": "select 1 as y; copy (select 1) to 'stolen'; select 1 as y"}),
        ("data.samples", {"path": "http://x; copy (select 1) to $$stolen$$", "samples": "select 1 as y from {path}"}),
        ("data.groups.g.sql", {"groups": {"g": {"sql": "select 1 as k; copy (select 1) to 'stolen'", "key": "k"}}}),
        ("split", {"split": "true) from (select 1); copy (select 1) to 'stolen'; select (true"}),
        ("data.samples", {"samples": "with a as (copy (select 1) to 'stolen') select 1 as y"}),
    ],
)
def test_nothing_is_written(option: str, given: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"name": "shop", "path": ".", "samples": "select 1 as y", "labels": ["y"], "groups": {}} | given
    with pytest.raises(UserError, match=rf"{option}.*(found a second statement: copy|COPY statement)"):
        inspect(Source.from_dict(config))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_beside_synthetic_logs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.split: must be one query .* second statement: copy"):
        score_splits(tmp_path, "true), false); copy (select 1) to 'stolen'; select coalesce((true")
