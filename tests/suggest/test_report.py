"""A report that needs nothing from elsewhere."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from tests.suggest.planted import plant_table, source

from recd_dist.suggest.proposals import suggest
from recd_dist.suggest.report import to_html

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


def test_report_is_one_file_with_every_plot_and_escaped_names(tmp_path: Path) -> None:
    plant_table(tmp_path / "t.parquet", {"history": (0.8, 2), "profile": (0.95, 2)}, num_samples=2000)
    suggestion = replace(suggest(source(tmp_path / "t.parquet"), progress=False), name="<b>&mine", verdict="1 < 2")
    document = to_html(suggestion, "recd stats raw --suggest data.path=clicks.parquet")
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
