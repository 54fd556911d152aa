"""A delta gives the scores of a whole export, from the rows that are other than before."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.exported.test_exported_model import sample_request

from recd_dist.errors import ConfigError
from recd_dist.exported.exported_model import ExportedModel
from recd_dist.job.config import load
from recd_dist.ranks.process_group import Ranks
from recd_dist.train.exporting import export_run
from recd_dist.train.training import train

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture(scope="module")
def days(tiny: list[str], trained: Callable[..., Path], alone: Ranks, tmp_path_factory: Any) -> list[Path]:
    """Runs, each of which goes on from the one before for one step of few samples; the last has a larger table."""
    runs = [trained("model=dlrm")]
    for day, more in enumerate([(), ("data.tables.item.num_embeddings=1100",)]):
        run_dir = tmp_path_factory.mktemp("day") / f"day{day}"
        own = [f"run_dir={run_dir}", f"run_from={runs[-1]}", "batch_size=16", "max_steps=1", "evaluate.split=null"]
        train(load("train", [*tiny, "model=dlrm", *own, *more]), alone)
        runs.append(run_dir)
    return runs


@pytest.mark.parametrize("rows", ["fp32", "fp16", "int8"])
def test_a_chain_of_deltas_scores_as_whole_exports(rows: str, days: list[Path], alone: Ranks, tmp_path: Path) -> None:
    base: list[str] = []
    for number, run in enumerate(days):
        out = tmp_path / f"delta{number}"
        result = export_run(load("export", [f"run_dir={run}", f"out={out}", f"rows={rows}", *base]), alone)
        whole = tmp_path / f"whole{number}"
        export_run(load("export", [f"run_dir={run}", f"out={whole}", f"rows={rows}"]), alone)
        given = sample_request(whole)["request"]
        one, other = (model.score([model.read(**given)])[0] for model in map(ExportedModel.load, (out, whole)))
        np.testing.assert_array_equal(one, other)
        if base:
            assert 0 < result["changed"]["item"] < (400 if number == 1 else 600)
            assert result["changed"]["item"] >= (1 if number == 1 else 100)  # those that it has grown by
        base = [f"base={out}"]
    moved = tmp_path / "moved"
    moved.mkdir()
    for number in range(len(days)):
        shutil.move(tmp_path / f"delta{number}", moved / f"delta{number}")
    model = ExportedModel.load(moved / "delta2")
    np.testing.assert_array_equal(model.score([model.read(**given)])[0], other)


def test_an_export_without_changes_has_no_rows(days: list[Path], alone: Ranks, tmp_path: Path) -> None:
    config = load("export", [f"run_dir={days[0]}", f"out={tmp_path / 'one'}"])
    export_run(config, alone)
    again = replace(config, out=str(tmp_path / "two"), base=str(tmp_path / "one"))
    assert set(export_run(again, alone)["changed"].values()) == {0}


def test_a_base_that_is_gone_or_another_is_refused(days: list[Path], alone: Ranks, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    export_run(load("export", [f"run_dir={days[0]}", f"out={one}"]), alone)
    export_run(load("export", [f"run_dir={days[1]}", f"out={two}", f"base={one}"]), alone)
    with pytest.raises(ConfigError, match=r"base=.*fp32; write rows=fp32"):
        export_run(load("export", [f"run_dir={days[1]}", f"out={tmp_path / 'x'}", f"base={one}", "rows=int8"]), alone)
    assert not (tmp_path / "x").exists()
    export_run(load("export", [f"run_dir={days[1]}", f"out={one}", "overwrite=true"]), alone)
    with pytest.raises(ConfigError, match=r"a delta of .*one at version"):
        ExportedModel.load(two)
    shutil.rmtree(one)
    with pytest.raises(ConfigError, match=r"a delta of .*one, which is not there"):
        ExportedModel.load(two)


def test_a_delta_may_drop_a_table_and_the_next_one_bring_it_back(
    days: list[Path], trained: Callable[..., Path], alone: Ranks, tmp_path: Path
) -> None:
    runs, base = [days[0], trained("model=dlrm", "data.drop=[region,device,position]"), days[0]], list[str]()
    for number, run in enumerate(runs):
        result = export_run(load("export", [f"run_dir={run}", f"out={tmp_path / str(number)}", *base]), alone)
        base = [f"base={tmp_path / str(number)}"]
    assert result["changed"]["region"] == 0
    given = sample_request(tmp_path / "0")["request"]
    one, other = (
        model.score([model.read(**given)])[0] for model in map(ExportedModel.load, (tmp_path / "0", tmp_path / "2"))
    )
    np.testing.assert_array_equal(one, other)


def test_a_delta_does_not_replace_what_it_builds_upon(days: list[Path], alone: Ranks, tmp_path: Path) -> None:
    one, two, link = tmp_path / "one", tmp_path / "two", tmp_path / "link"
    export_run(load("export", [f"run_dir={days[0]}", f"out={one}"]), alone)
    export_run(load("export", [f"run_dir={days[1]}", f"out={two}", f"base={one}"]), alone)
    link.symlink_to(one)
    for base, out in ((two, one), (one, link), (link, one)):
        with pytest.raises(ConfigError, match=r"cannot take the place of its base"):
            export_run(load("export", [f"run_dir={days[2]}", f"out={out}", f"base={base}", "overwrite=true"]), alone)
    assert ExportedModel.load(two).description.base is not None


def test_a_delta_finds_its_base_through_links(days: list[Path], alone: Ranks, tmp_path: Path) -> None:
    one, real = tmp_path / "one", tmp_path / "far" / "away"
    real.mkdir(parents=True)
    (tmp_path / "near").symlink_to(real)
    (tmp_path / "base").symlink_to(one)
    export_run(load("export", [f"run_dir={days[0]}", f"out={one}"]), alone)
    export_run(
        load("export", [f"run_dir={days[1]}", f"out={tmp_path / 'near/two'}", f"base={tmp_path / 'base'}"]), alone
    )
    (tmp_path / "current").symlink_to(real / "two")
    (tmp_path / "base").unlink()
    for path in ("near/two", "far/away/two", "current"):
        assert ExportedModel.load(tmp_path / path).description.base is not None
