"""Exporting: what is refused before anything is written, and what stays when it fails."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recd_dist.errors import ConfigError, DataError
from recd_dist.exported.exported_model import ExportedModel
from recd_dist.job.config import load
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.train import exporting
from recd_dist.train.exporting import check_export, export_run
from recd_dist.train.training import train

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


def trained(tiny: list[str], alone: Ranks, run_dir: Path, *overrides: str) -> Path:
    own = [f"run_dir={run_dir}", "batch_size=256", "max_steps=6", "evaluate.split=null"]
    train(load("train", [*tiny, *own, *overrides]), alone)
    return run_dir


@pytest.fixture(scope="module")
def run(tiny: list[str], alone: Ranks, tmp_path_factory: Any) -> Path:
    return trained(tiny, alone, tmp_path_factory.mktemp("run") / "run")


def test_what_cannot_be_written_is_refused_first(run: Path, tmp_path: Path) -> None:
    for override, message in (
        ("rows=int4", "rows=int4: unknown.*int8"),
        ("out=s3://bucket/x", "exports are local"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_export(load("export", [f"run_dir={run}", override]))
    (tmp_path / "mine").write_text("")
    with pytest.raises(ConfigError, match="holds something that is no export"):
        check_export(load("export", [f"run_dir={run}", f"out={tmp_path}", "overwrite=true"]))


def test_an_export_is_kept_unless_it_is_to_be_replaced(run: Path, alone: Ranks, tmp_path: Path) -> None:
    out = tmp_path / "export"
    export_run(load("export", [f"run_dir={run}", f"out={out}"]), alone)
    with pytest.raises(ConfigError, match="overwrite=true replaces it"):
        export_run(load("export", [f"run_dir={run}", f"out={out}"]), alone)
    result = export_run(load("export", [f"run_dir={run}", f"out={out}", "overwrite=true", "rows=int8"]), alone)
    assert ExportedModel.load(out).description.precision == "int8"
    assert result["largest_difference"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_scores_that_are_not_the_run_s_leave_nothing(
    run: Path, alone: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(exporting.TOLERANCES, "fp32", 1e-12)
    with pytest.raises(DataError, match="nothing was written"):
        export_run(load("export", [f"run_dir={run}", f"out={tmp_path / 'export'}"]), alone)
    assert list(tmp_path.iterdir()) == []


RUNS = {
    "hashed table": ["data.tables.item.hashed=true", "data.tables.item.num_embeddings=300"],
    "mapped table": ["data.tables.item={mapped: true, num_embeddings: 600}"],
    "mapped table whose ids wait": ["data.tables.item={mapped: true, num_embeddings: 600, admit_after: 3}"],
    "expanded group": ["plan.expand=[history]"],
    "nothing deduplicated": ["dedup=off"],
    "sums": ["model.pooling=sum"],
    "average": ["optim.ema=0.9"],
    "bf16": ["precision=bf16"],
    "batch norm": ["model.batch_norm=true"],
    "other features": ["data.drop=[position, region]"],
    "transforms": [
        "data.features.price.transforms=[{clamp: [-1, 1]}, standardize]",
        "data.features.history_item.transforms=[{last_x: 5}]",
        "data.features.both={transforms: [{cross: {of: [region, candidate_category], n: 50}}]}",
    ],
    "fused histories": ["model=transformer", "model.fuse=true"],
    "no features of candidates": ["data.drop=[candidate_item,candidate_category,position,price,freshness,score]"],
    "columns of no use": ["model=transformer", "model.histories=[history_item]"],
}


@pytest.mark.parametrize("name", RUNS)
def test_every_kind_of_run_is_exported_exactly(name: str, tiny: list[str], alone: Ranks, tmp_path: Path) -> None:
    run_dir = trained(tiny, alone, tmp_path / "run", *RUNS[name])
    result = export_run(load("export", [f"run_dir={run_dir}", f"out={tmp_path / 'export'}"]), alone)
    assert result["checked_samples"] > 100
    assert result["largest_difference"] < 2e-5
    assert ("no_program" in result) == (name == "fused histories")
    if "no_program" not in result:
        one, other = (ExportedModel.load(tmp_path / "export", engine) for engine in ("layers", "program"))
        request = next(iter(exporting.sample_requests(load_split(run_dir, alone), one.description.stored, 8)))
        given = one.read(request.user, request.candidates)
        np.testing.assert_allclose(other.score([given])[0], one.score([given])[0], rtol=1e-4, atol=1e-5)


def load_split(run_dir: Path, alone: Ranks) -> Any:
    return exporting.open_run(load("export", [f"run_dir={run_dir}"]), alone).job.table
