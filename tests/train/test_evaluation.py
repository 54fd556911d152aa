"""Evaluation of a run: the same numbers as at its end, whatever computes them; what cannot be evaluated is named."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from recd_dist.cli import main
from recd_dist.errors import ConfigError
from recd_dist.files.json_text import json_text
from recd_dist.job.config import load
from recd_dist.job.options import EvaluateConfig, EvaluatedData
from recd_dist.job.preflight import check
from recd_dist.metrics.quality import measure_quality
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import Feature, Kind, Schema
from recd_dist.tensors.batch import Batch
from recd_dist.train import build
from recd_dist.train.evaluation import evaluate_run, quality_of, report
from recd_dist.train.trained_run import require_same_features
from recd_dist.train.training import train

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]
QUALITY = ("auc", "auc_per_request", "ne", "loss", "calibration", "num_samples", "oracle_auc", "oracle_ne")


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


@pytest.fixture(scope="module")
def trained(alone: Ranks, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one rank, in this process."""
    run_dir = tmp_path_factory.mktemp("evaluated") / "run"
    train(load("train", [*tiny, f"run_dir={run_dir}", "batch_size=128", "max_steps=15"]), alone)
    return run_dir


def quality(alone: Ranks, run_dir: Path, **options: object) -> dict[str, float]:
    result = evaluate_run(EvaluateConfig(run_dir=str(run_dir), device="cpu", **options), alone)
    return {name: result[name] for name in QUALITY if name in result}


def test_the_numbers_are_those_of_the_end_of_training(alone: Ranks, trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())

    assert quality(alone, trained) == pytest.approx({name: summary[name] for name in QUALITY})


def test_evaluation_leaves_generator_config_and_files_as_they_were(alone: Ranks, trained: Path) -> None:
    config = EvaluateConfig(run_dir=str(trained), device="cpu", batch_size=31)
    before = torch.get_rng_state(), repr(config), (trained / "config.yaml").read_bytes()
    evaluate_run(config, alone)

    assert torch.equal(torch.get_rng_state(), before[0])
    assert (repr(config), (trained / "config.yaml").read_bytes()) == before[1:]


class _Coin(torch.nn.Module):
    """Gives every sample the same logit."""

    def forward(self, batch: Batch) -> tuple[torch.Tensor, build.Output]:
        logits = torch.zeros(batch.batch_size, 1)
        return logits.sum(), build.Output(logits.sum(), logits, batch, logits.sum(0))


@pytest.mark.parametrize("is_training", [True, False])
def test_the_mode_of_a_model_stays(alone: Ranks, tiny: list[str], tmp_path: Path, is_training: bool) -> None:
    job = check(load("train", [*tiny, f"run_dir={tmp_path / 'run'}"]), world_size=1)
    model = _Coin().train(is_training)
    with closing(build.build_loader(job, alone, job.transforms.fit(job.table))) as batches:
        quality_of(model, batches, build.build_losses(job), alone.device)

    assert model.training is is_training


def test_the_batch_size_does_not_matter(alone: Ranks, trained: Path) -> None:
    assert quality(alone, trained, batch_size=31) == pytest.approx(quality(alone, trained), abs=1e-6)


def test_a_run_on_unique_rows_is_evaluated_expanded(alone: Ranks, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run/config.yaml"
    assert "\ndedup: true\n" in path.read_text()
    path.write_text(path.read_text().replace("\ndedup: true\n", "\ndedup: false\n"))

    assert quality(alone, tmp_path / "run") == pytest.approx(quality(alone, trained), abs=1e-5)


def test_a_run_with_an_expanded_group(alone: Ranks, tiny: list[str], tmp_path: Path) -> None:
    """The table keeps the group that the model has in ``sample``."""
    overrides = [*tiny, f"run_dir={tmp_path / 'run'}", "batch_size=128", "max_steps=5", "plan.expand=[history]"]
    summary = train(load("train", overrides), alone)

    assert quality(alone, tmp_path / "run")["auc"] == pytest.approx(summary["auc"])


def test_another_split(alone: Ranks, trained: Path) -> None:
    found = quality(alone, trained, split="train")

    assert found["num_samples"] > quality(alone, trained)["num_samples"]


def test_the_report_has_recall_before_ndcg_and_short_lists_first() -> None:
    numbers = dict.fromkeys(("ndcg@5", "ndcg@10", "recall@10", "recall@5"), 0.5)
    table = report({"run_dir": "runs/a", "step": 1, "table": "tables/a/test", **numbers})
    assert list(table.columns[0].cells) == ["recall@5", "recall@10", "ndcg@5", "ndcg@10"]


def test_the_report_names_run_split_and_oracle(alone: Ranks, trained: Path) -> None:
    result = evaluate_run(EvaluateConfig(run_dir=str(trained), device="cpu"), alone)
    table = report(result)

    assert str(table.title) == f"{trained}, step 15, on {result['table']}"
    chosen = report({**result, "label": "bought", "partitions": ["2026-11-26"]}).title
    assert str(chosen).endswith("/test, data.label=bought, data.partitions=[2026-11-26]")
    assert [column.header for column in table.columns] == ["", "model", "oracle"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tst"}, r"split=tst: the table .* has no such split; did you mean 'test'\?"),
        ({"data": EvaluatedData(table="/no/such")}, "data.table=/no/such: no clustered table there; make it with"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"num_workers": -1}, "num_workers=-1: must be at least 0"),
    ],
)
def test_what_cannot_be_evaluated(alone: Ranks, trained: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quality(alone, trained, **options)


def test_a_split_of_one_class_has_no_ne_and_no_auc() -> None:
    """JSON has null for what is undefined, people see a dash."""
    result = {"run_dir": "r", "step": 1, "table": "t/test", **measure_quality([0.1, 0.2], [0, 0]).to_json()}

    assert json.loads(json_text(result), parse_constant=pytest.fail)["ne"] is None
    assert list(report(result).columns[1].cells) == ["-", "-", "-", "-", "-", "-", "0.7713", "0.0000", "2"]


def test_a_run_without_a_checkpoint(alone: Ranks, trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "config.yaml", tmp_path)

    with pytest.raises(ConfigError, match="no checkpoint in it; train first"):
        quality(alone, tmp_path)


def test_a_table_of_other_features(alone: Ranks, trained: Path, tmp_path: Path, tiny: list[str]) -> None:
    places = [f"data.path={tmp_path / 'raw'}", f"data.table={tmp_path / 'table'}"]
    made = [*places, "data.drop=[position]", "data.split=null"]
    assert main(["etl", *tiny, "data.synthetic.num_samples=3000", "data.synthetic.num_users=200", *made]) == 0

    with pytest.raises(
        ConfigError, match=r"trained on feature 'position' \(id, group 'sample'\), .* none of that name"
    ):
        quality(alone, trained, split="train", data=EvaluatedData(table=str(tmp_path / "table")))


def test_a_run_without_a_record_of_samples(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seen", f"run_dir={trained}"]) == 2
    assert "no records of trained samples" in capsys.readouterr().err


def test_the_summary_is_shown_again(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", f"run_dir={trained}"]) == 0
    assert "in 15 steps on 1 rank" in capsys.readouterr().out


def test_a_table_without_the_weights_that_were_trained(tmp_path: Path) -> None:
    def table(weights: str | None) -> ClusteredTable:
        schema = Schema((Feature("history", Kind.ids, "user", "item", weights=weights),))
        manifest = Manifest("t", "train", schema, 10, 5, 5, {"user": 5}, features={}, ids={}, parts=())
        return ClusteredTable(tmp_path, manifest)

    def schema(weights: str | None) -> Schema:
        return table(weights).manifest.schema

    with pytest.raises(ConfigError, match=r"trained on feature 'history' \(ids, group 'user', weights 'heat'\)"):
        require_same_features(schema("heat"), table(None))
    require_same_features(schema(None), table(None))
    require_same_features(schema("heat"), table("heat"))
    require_same_features(schema(None), table("heat"))  # trained without them
