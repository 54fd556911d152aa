"""Which label is trained, and which days are read: the config chooses, the run remembers."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.train.two_labels import NUM_SAMPLES, add_day, described

from recd_dist.errors import ConfigError, DataError
from recd_dist.job.config import load
from recd_dist.job.options import EvaluateConfig, EvaluatedData, EvaluatedReader
from recd_dist.job.preflight import check
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.train.evaluation import evaluate_run
from recd_dist.train.training import train

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


@pytest.fixture(scope="module")
def root(alone: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one day and the second label of its table, to which a day of other items was added afterwards."""
    root = tmp_path_factory.mktemp("days")
    add_day(root, "2026-11-25")
    options = [f"run_dir={root / 'run'}", "data.label=loved_it", "batch_size=64", "max_steps=8", "model.dim=8"]
    train(load("train", [*described(root), *options, "evaluate.split=train"]), alone)
    add_day(root, "2026-11-26", first_item=100)
    return root


def evaluated(alone: Ranks, root: Path, *partitions: str, label: str | None = None, on_bad_id: str = "drop") -> dict:
    data = EvaluatedData(partitions=list(partitions) or None, label=label)
    reader = EvaluatedReader(on_bad_id=on_bad_id)
    return evaluate_run(EvaluateConfig(str(root / "run"), data=data, split="train", device="cpu", reader=reader), alone)


def test_the_run_keeps_the_label_and_measures_it(root: Path) -> None:
    assert yaml.safe_load((root / "run/config.yaml").read_text())["data"]["label"] == "loved_it"
    assert json.loads((root / "run/summary.json").read_text())["base_rate"] == pytest.approx(1 / 8)


def test_the_day_that_was_trained_is_evaluated_as_then(alone: Ranks, root: Path) -> None:
    """Though the table has grown since, and its items would now make a larger embedding table."""
    summary = json.loads((root / "run/summary.json").read_text())
    found = evaluated(alone, root, "2026-11-25", on_bad_id="error")

    assert found["num_samples"] == NUM_SAMPLES
    assert {n: found[n] for n in ("auc", "loss", "ne")} == pytest.approx({n: summary[n] for n in ("auc", "loss", "ne")})


def test_the_next_day_and_both(alone: Ranks, root: Path) -> None:
    assert evaluated(alone, root, "2026-11-26")["num_samples"] == NUM_SAMPLES
    assert evaluated(alone, root)["num_samples"] == 2 * NUM_SAMPLES


def test_items_that_the_run_has_no_row_for_are_named(alone: Ranks, root: Path) -> None:
    with pytest.raises(DataError, match=r"holds id 1\d\d, table '\w+' has rows 0\.\.49.*reader\.on_bad_id=drop"):
        evaluated(alone, root, "2026-11-26", on_bad_id="error")


def test_another_label_is_evaluated(alone: Ranks, root: Path) -> None:
    assert evaluated(alone, root, "2026-11-25", label="clicked")["base_rate"] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partitions": ["2026-11-27"]}, "data.partitions: .* has no partition '2026-11-27'; did you mean"),
        ({"label": "loved"}, r"data\.label=loved: the table .*train has no such label; did you mean 'loved_it'\?"),
    ],
)
def test_what_is_not_there(alone: Ranks, root: Path, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate_run(
            EvaluateConfig(str(root / "run"), data=EvaluatedData(**options), split="train", device="cpu"), alone
        )


@pytest.mark.parametrize(
    ("options", "label"), [([], "clicked"), (["data.label=loved_it"], "loved_it"), (["data.label=clicked"], "clicked")]
)
def test_the_first_label_is_trained_unless_another_is_named(
    root: Path, tmp_path: Path, options: list[str], label: str
) -> None:
    job = check(load("train", [*described(root), f"run_dir={tmp_path}", *options]))

    assert job.schema.labels[0] == label


def test_a_label_that_the_table_lacks(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.label=price: the table has no such label; there"):
        check(load("train", [*described(root), f"run_dir={tmp_path}", "data.label=price"]))


def test_a_run_of_one_label_does_not_go_on_with_another(root: Path) -> None:
    options = [*described(root), f"run_dir={root / 'run'}", "model.dim=8", "max_steps=20"]
    with pytest.raises(
        ConfigError, match=r"holds a run with data\.label=loved_it, now clicked; data\.label=loved_it goes on with it"
    ):
        check(load("train", options))
