"""``recd stats raw --suggest``: what it prints and writes, and its errors."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from tests.suggest.planted import plant_table

from recd_dist.cli import main
from recd_dist.table.manifest import Manifest


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    plant_table(tmp_path / "clicks.parquet", {"history": (0.8, 2), "profile": (0.95, 2)}, num_samples=2000)
    return tmp_path / "clicks.parquet"


def run(*arguments: str) -> int:
    return main(["stats", "raw", "--suggest", *arguments])


def test_a_path_alone_is_enough(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data.path=clicks.parquet", "--json", "s.json", "--html", "r.html") == 0
    text = capsys.readouterr().out
    assert "session       visit  (likely: its name, and " in text
    assert "label         clicked  (likely: its name, and only 0 and 1 as values)" in text
    assert "looked at     2,000 of 2,000 samples (all of them)" in text
    value = json.loads(Path("s.json").read_text())
    assert {g["name"]: g["features"] for g in value["groups"]} == {
        "history": ["history_a", "history_b"],
        "profile": ["profile_a", "profile_b"],
    }
    Path("configs/data").mkdir(parents=True)
    Path("configs/data/mine.yaml").write_text(text[text.index("name: ") :])
    assert main(["etl", "data=mine", "--config-dir", "configs"]) == 0
    made = Manifest.load(Path("tables/clicks/train"))
    assert (made.schema.dedup_groups, made.schema.labels) == (("history", "profile"), ("clicked",))


def test_a_config_keeps_what_only_training_reads(table: Path) -> None:
    features = "data.features={item: {table: things}, price: {transforms: [standardize]}}"
    tables = "data.tables={things: {num_embeddings: 1000, hashed: true}}"
    keys = "data.keys={session: visit, timestamp: time}"
    arguments = ("data=parquet", "data.path=clicks.parquet", "data.labels=[clicked]", keys, features, tables)
    assert run(*arguments, "--json", "s.json") == 0
    described = yaml.safe_load(json.loads(Path("s.json").read_text())["yaml"])
    assert described["features"] == {"item": {"table": "things"}, "price": {"transforms": ["standardize"]}}
    assert described["tables"] == {"things": {"num_embeddings": 1000, "hashed": True}}


def test_given_keys_are_kept_and_a_report_is_written(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("data.keys.session=visit", "data.keys.timestamp=time", "data.labels=[clicked]")
    assert run("data=parquet", "data.path=clicks.parquet", *given, "--html", "r.html") == 0
    assert "session       visit\n" in capsys.readouterr().out
    assert Path("r.html").read_text().startswith("<!doctype html>")


def test_no_label_is_said_and_the_yaml_asks_for_it(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pq.read_table(table).drop_columns(["clicked"]), table)
    assert run("data.path=clicks.parquet") == 0
    text = capsys.readouterr().out
    assert "label         -  (no column of 0 and 1" in text
    assert "labels: [label]   # none was found" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.path=click.parquet"], "path click.parquet: not found; did you mean 'clicks.parquet'?"),
        (["data.path=clicks.parquet", "data.keys.session=visitt"], "did you mean 'visit'?"),
        (["data.path=clicks.parquet", "data.labels=[clickd]"], "did you mean 'clicked'?"),
        ([], "data.path is missing"),
        (["data.path=clicks.parquet", "--html", "no/where.html"], "--html no/where.html: no directory"),
        (["data.path=clicks.parquet", "--sample", "0"], "--sample 0: must be at least 1"),
        (["data.path=clicks.parquet", "--sampel", "9"], "did you mean '--sample'?"),
    ],
)
def test_errors_are_one_line(
    table: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [["raw"], ["--html", "x.html"], ["--sample", "5"]])
def test_raw_alone_says_what_it_needs(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(["stats", *arguments]) == 2
    assert "needs --suggest" in capsys.readouterr().err
