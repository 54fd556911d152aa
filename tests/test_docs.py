"""The pages say what there is: every option, every scalar, every module, and every link leads somewhere."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from recd_dist.cli import COMMANDS
from recd_dist.etl.raw.duckdb_sql import TEXT_ID
from recd_dist.job.config import EtlConfig
from recd_dist.job.options import ExportConfig, PredictConfig, TrainConfig
from recd_dist.job.serve_options import ServeConfig
from recd_dist.metrics.curves import _LAYOUT
from recd_dist.reader.transform_registry import REGISTRY

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
README = (ROOT / "README.md").read_text()
CODE = re.compile(r"`([^`\n]+)`")


def options(config: object, prefix: str = "") -> Iterator[str]:
    """Dotted names of a config's options."""
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from options(value, f"{prefix}{field.name}.")
        elif prefix or field.name != "model":  # whose names are those of the models
            yield prefix + field.name


def first_cells(page: Path) -> set[str]:
    """What stands as code in the first column of a page's tables."""
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    return {name for row in rows for name in CODE.findall(row.split(" | ")[0])}


CONFIGS = {
    "train": TrainConfig(),
    "etl": EtlConfig(),
    "predict": PredictConfig(),
    "export": ExportConfig(),
    "serve": ServeConfig(),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_configuration_names_every_option(config: object) -> None:
    assert {name for name in options(config) if name not in first_cells(DOCS / "configuration.md")} == set()


def test_configuration_names_no_option_that_is_not_there() -> None:
    known = {name for config in CONFIGS.values() for name in options(config)}
    named = {name for name in first_cells(DOCS / "configuration.md") if re.fullmatch(r"[a-z_.]+", name)}
    assert {name for name in named if name not in known and name.partition(".")[0] != "model"} == set()


def test_configuration_names_every_argument_of_the_models() -> None:
    arguments = {
        f"model.{name}"
        for path in ROOT.glob("configs/model/*.yaml")
        for name in re.findall(r"^(\w+):", path.read_text(), re.MULTILINE)
    }
    named = {name for name in first_cells(DOCS / "configuration.md") if re.fullmatch(r"model\.\w+", name)}
    assert named == arguments


def test_the_page_of_transforms_names_every_one() -> None:
    text = (DOCS / "transforms.md").read_text()
    assert [name for name in REGISTRY if f"`{name}`" not in text] == []


def test_data_page_hashes_text_as_the_etl_does() -> None:
    from hashlib import md5

    import duckdb

    line = next(line for line in (DOCS / "data.md").read_text().splitlines() if "int.from_bytes" in line)
    python = re.search(r"`(int\.from_bytes.*?)`", line)[1]  # type: ignore[index]
    found = duckdb.sql("select " + TEXT_ID.format("'Åse'")).fetchall()
    assert found == [(eval(python, {"md5": md5, "text": "Åse"}),)]


def test_operations_explain_every_chart_of_the_dashboard() -> None:
    text = (DOCS / "operations.md").read_text()
    tags = {tag.rstrip("$") for charts in _LAYOUT.values() for tags in charts.values() for tag in tags}
    named = set(CODE.findall(text))
    assert {tag for tag in tags if not any(re.fullmatch(tag, name) for name in named)} == set()


def test_readme_lists_every_command() -> None:
    assert [name for name in COMMANDS if f"`recd {name}`" not in README] == []


def test_readme_has_a_line_for_every_module() -> None:
    tree = README.rpartition("## Tree")[2].splitlines()
    names = [line.split()[0] for line in tree if line.startswith("  ")]
    modules = [path for path in (ROOT / "src/recd_dist").rglob("*.py") if path.stem != "__init__"]
    assert sorted(path.name for path in modules if path.name not in names) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in t]
    assert [t for t in targets if not (page.parent / t.partition("#")[0]).exists()] == []
