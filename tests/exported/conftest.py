"""Exports that the tests of this room share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recd_dist.job.config import load
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.train.exporting import export_run
from recd_dist.train.training import train

Export = Callable[..., Path]


@pytest.fixture(scope="session")
def known() -> dict[tuple[object, ...], Path]:
    """The runs and exports that there are, for all modules; the process group is that of one module."""
    return {}


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


@pytest.fixture(scope="module")
def trained(
    tiny: list[str], alone: Ranks, known: dict[tuple[object, ...], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Trains a model of some overrides for a few steps, once for each of them; gives the directory of the run."""

    def run(*overrides: str) -> Path:
        if overrides not in known:
            run_dir = tmp_path_factory.mktemp("run") / "run"
            own = [f"run_dir={run_dir}", "batch_size=256", "max_steps=8", "evaluate.split=null", *overrides]
            train(load("train", [*tiny, *own]), alone)
            known[overrides] = run_dir
        return known[overrides]

    return run


@pytest.fixture(scope="module")
def exported(
    trained: Callable[..., Path],
    alone: Ranks,
    known: dict[tuple[object, ...], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Export:
    """Exports such a run, once for each way; gives the directory of the export."""

    def export(*overrides: str, rows: str = "fp32") -> Path:
        key = (overrides, rows)
        if key not in known:
            out = tmp_path_factory.mktemp("export") / "export"
            config = load("export", [f"run_dir={trained(*overrides)}", f"out={out}", f"rows={rows}"])
            export_run(config, alone)
            known[key] = out
        return known[key]

    return export
