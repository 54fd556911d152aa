"""What the user sees of group discovery: the command, its errors, and a report that needs nothing from elsewhere."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from tests.suggest.planted import planted, source

from recd_dist.cli import main
from recd_dist.suggest.plots import nice_ticks, spread
from recd_dist.suggest.proposals import suggest
from recd_dist.suggest.report import to_html
from recd_dist.table.manifest import Manifest

VOID = {"meta", "br"}


class Outline(HTMLParser):
    """Checks that tags close, and collects attributes and texts."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    planted(tmp_path / "clicks.parquet", {"history": (0.8, 2), "profile": (0.95, 2)}, num_samples=2000)
    return tmp_path / "clicks.parquet"


def run(*arguments: str) -> int:
    return main(["stats", "raw", "--suggest", *arguments])


def test_a_path_alone_is_enough(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data.path=clicks.parquet", "--json", "s.json", "--html", "r.html") == 0
    text = capsys.readouterr().out
    assert "session       visit  (likely: its name, and " in text
    assert "label         clicked  (likely: its name, and only 0 and 1 as values)" in text
    assert "looked at     2,000 of 2,000 samples (all of them)" in text
    found = json.loads(Path("s.json").read_text())
    assert {g["name"]: g["features"] for g in found["groups"]} == {
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


def test_the_same_with_keys_given(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("data.keys.session=visit", "data.keys.timestamp=time", "data.labels=[clicked]")
    assert run("data=parquet", "data.path=clicks.parquet", *given, "--html", "r.html") == 0
    assert "session       visit\n" in capsys.readouterr().out
    assert Path("r.html").read_text().startswith("<!doctype html>")


def test_report_is_one_file_with_every_plot_and_escaped_names(table: Path) -> None:
    found = replace(suggest(source(table), progress=False), name="<b>&mine", verdict="1 < 2")
    document = to_html(found, "recd stats raw --suggest data.path=clicks.parquet")
    page = Outline(document)
    assert page.open == []
    assert page.addresses == []
    assert not page.tags & {"script", "link", "img", "iframe", "b>"}
    assert re.findall(r"https?:|url\(|@import", document) == []
    assert document.count("<svg") == 4
    assert "prefers-color-scheme:dark" in document
    assert "<b>&mine" in "".join(page.texts)
    assert "<b>&mine" not in document
    assert "1 < 2" in page.texts
    assert "recd stats raw --suggest data.path=clicks.parquet" in "".join(page.texts)
    for name in ("history_a", "profile_b", "item", "price"):
        assert page.texts.count(name) >= 3  # d, bytes, table


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


@pytest.mark.parametrize(
    ("most", "ticks"),
    [
        (5, [0, 1, 2, 3, 4, 5]),
        (937, [0, 200, 400, 600, 800, 1000]),
        (0.3, [0, 0.1, 0.2, 0.3]),
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_ticks_are_round(most: float, ticks: list[float]) -> None:
    assert nice_ticks(most) == pytest.approx(ticks)


def test_labels_are_moved_apart_but_not_further_than_needed() -> None:
    assert spread([10, 100, 12], 10, 0, 200) == [6, 100, 16]
    assert spread([199, 198, 197], 10, 0, 200) == [200, 190, 180]
    assert spread([0, 1], 10, 0, 200) == [0, 10]
