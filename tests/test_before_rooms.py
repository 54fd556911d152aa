"""A table and a run that an earlier release wrote (tests/fixtures/before_rooms) are read, resumed and added to.

Losses and quality are compared with a tolerance: sums are taken in another order by another release, other libraries
and another processor. Which samples were trained in which step is compared exactly.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests import before_rooms as now

FIXTURE = Path(__file__).parent / "fixtures/before_rooms"
EXPECTED: dict[str, Any] = json.loads((FIXTURE / "expected.json").read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the fixture; its paths are relative to it."""
    shutil.copytree(FIXTURE, tmp_path, dirs_exist_ok=True)
    return tmp_path


def same_writers() -> bool:
    """Whether Parquet files can be compared byte for byte."""
    here = now.arithmetic()
    return all(here[name] == EXPECTED["arithmetic"][name] for name in ("pyarrow", "duckdb"))


def assert_close(found: Mapping[str, float], expected: Mapping[str, float]) -> None:
    assert found == pytest.approx(expected, rel=1e-5)


def assert_files(found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """The files are the same; the statistics may have rows that the release did not know, such as those of labels."""
    assert found.keys() == expected.keys()
    data = [name for name in expected if not name.endswith("statistics.parquet")]
    assert all(found[name] == expected[name] for name in data) or not same_writers()


def of_then(found: Any, before: Any) -> Any:
    """The values of ``found`` under the names that ``before`` has: a later release says more."""
    if isinstance(before, dict) and isinstance(found, dict):
        return {name: of_then(found[name], value) for name, value in before.items() if name in found}
    if isinstance(before, list) and isinstance(found, list) and len(found) == len(before):
        return [of_then(*pair) for pair in zip(found, before, strict=True)]
    return found


def test_the_table_has_the_samples_that_it_had(folder: Path) -> None:
    assert now.samples(folder, "train")[0] == EXPECTED["first_sample"]
    assert now.flat(folder) == EXPECTED["flat"]
    stats = json.loads(json.dumps(now.stats(folder)))
    assert of_then(stats, EXPECTED["stats"]) == EXPECTED["stats"]


def test_the_logs_give_the_table_that_they_gave(folder: Path) -> None:
    manifests = {path: json.loads(path.read_text()) for path in sorted(folder.glob("tables/clicks/*/manifest.json"))}
    now.recd(folder, "etl", *now.TABLE, now.ROW_GROUPS, "overwrite=true", "--verify")

    assert len(manifests) == 2
    assert_files(now.files(folder / "tables/clicks"), EXPECTED["files"])
    for path, before in manifests.items():
        runs = json.loads(path.read_text())["runs"]  # a number drawn for each run of the ETL
        now_there = of_then(json.loads(path.read_text()), before)
        source = now_there["source"]  # queries and options for people: their words may change
        assert now_there == before | {"runs": runs, "source": source} or not same_writers()


def test_a_day_is_added_to_the_table_and_its_small_parts_are_merged(folder: Path) -> None:
    found = now.appended(folder)

    for when in ("appended", "compacted"):
        assert found[when]["flat"] == EXPECTED[when]["flat"]
        assert_files(found[when]["files"], EXPECTED[when]["files"])
    assert EXPECTED["compacted"]["flat"] == EXPECTED["appended"]["flat"] != EXPECTED["flat"]


def test_the_checkpoint_is_evaluated(folder: Path) -> None:
    assert_close(now.evaluation(folder), EXPECTED["stopped"])


@pytest.mark.parametrize("num_ranks", [2, 1])
def test_the_run_goes_on_in_the_middle_of_an_epoch(folder: Path, num_ranks: int) -> None:
    header = json.loads((folder / f"runs/clicks/checkpoints/step-{now.STOPPED_AT:08d}/checkpoint.json").read_text())
    assert (header["world_size"], header["extra"]["reader"]["epoch"]) == (2, 0)

    found, expected = now.resumed(folder, num_ranks), EXPECTED[f"resumed_on_{num_ranks}"]
    assert found["steps"] == expected["steps"]
    assert found["trained"] == expected["trained"]  # which samples, in which step, on which rank
    assert_close(found["losses"], expected["losses"])
    assert list(found["losses"]) == [str(step) for step in range(now.STOPPED_AT + 1, found["steps"] + 1)]
    assert found["tensors"].keys() == expected["tensors"].keys()
    assert_close(found["quality"], expected["quality"])
    if num_ranks == 2:
        assert now.recd(folder, "seen", "run_dir=runs/clicks").splitlines() == EXPECTED["seen"]
