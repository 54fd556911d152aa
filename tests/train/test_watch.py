"""What a run shows of itself: curves, the summary as text, and a loss that is no number."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recd_dist.errors import UserError
from recd_dist.job.config import load
from recd_dist.job.preflight import check
from recd_dist.metrics.traffic import TrafficCounter
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.reader.stages import STAGES
from recd_dist.train import build
from recd_dist.train.epochs import RepeatedTable
from recd_dist.train.evaluation import report
from recd_dist.train.summary_text import render
from recd_dist.train.training import shard_model, watch_of
from recd_dist.train.watch import Watch

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]


SUMMARY = {
    "samples": 12345, "steps": 10, "world_size": 2, "samples_per_s": 9876.5, "split": "test", "auc": 0.81234,
    "auc_per_request": float("nan"), "ne": 0.9, "loss": 0.4, "calibration": 1.01, "oracle_auc": 0.83,
    "dedup_factor": {"history": 5.25}, "sent_bytes_per_step": 1000.0, "expanded_bytes_per_step": 2500.0,
    "table_bytes": 3 * 2**20, "table_bytes_planned": 2**21, "checkpoint": "run/checkpoints/step-10",
    "tensorboard": "run/board",
}  # fmt: skip


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    with process_group("cpu") as alone:
        yield alone


def watched(tiny: list[str], tmp_path: Path, ranks: Ranks) -> tuple[Watch, list]:
    """A watch over a job that does not train, and its batches with a loss of 0.5 and logits of 0."""
    job = check(load("train", [*tiny, f"run_dir={tmp_path / 'run'}", "batch_size=500", "record_samples=true"]))
    model, _, placed = shard_model(job, ranks)
    loader = build.build_loader(job, ranks, job.transforms.fit(job.table))
    watch = watch_of(job, ranks, model, placed, RepeatedTable(job, loader), 0)
    batches = list(watch.reader(iter(loader)))
    half = torch.tensor(0.5)
    return watch, [build.Output(half, torch.zeros(batch.batch_size, 1), batch, half[None]) for batch in batches]


def test_a_step_counts_samples_rows_and_bytes(tiny: list[str], tmp_path: Path, ranks: Ranks) -> None:
    watch, outputs = watched(tiny, tmp_path, ranks)
    with TrafficCounter() as traffic, watch:
        for step, output in enumerate(outputs, start=1):
            watch.step(0, step, output)
        watch.point(len(outputs), traffic)
        summary = watch.summary(len(outputs))

    batch = outputs[0].batch
    rows = sum(output.batch.sparse.num_rows("history") for output in outputs)
    samples = sum(output.batch.batch_size for output in outputs)
    assert summary["dedup_factor"]["history"] == samples / rows
    assert summary["steps_this_attempt"] == len(outputs)
    assert summary["sent_bytes"] == summary["expanded_bytes"] == 0  # one rank sends nothing
    assert list((tmp_path / "run/board").rglob("events*"))
    assert batch.sample_ids.tolist() == seen_first(tmp_path / "run", batch.batch_size)


def test_the_board_shows_what_reading_took(tiny: list[str], tmp_path: Path, ranks: Ranks) -> None:
    (tmp_path / "few.txt").write_text("1\n2\n")
    few = f"data.features.candidate_item.transforms=[{{vocabulary: {tmp_path / 'few.txt'}}}]"
    watch, outputs = watched([*tiny, few], tmp_path, ranks)
    with TrafficCounter() as traffic, watch:
        for step, output in enumerate(outputs, start=1):
            watch.step(0, step, output)
        watch.point(len(outputs), traffic)
        summary = watch.summary(len(outputs))
    (file,) = (tmp_path / "run/board").glob("*tfevents*")
    board = EventAccumulator(str(file))
    board.Reload()
    last = {tag: board.Scalars(tag)[-1].value for tag in board.Tags()["scalars"] if tag.startswith("reader/")}
    assert {f"reader/stage_ms/{stage}" for stage in STAGES} <= set(last)
    assert min(last[f"reader/{name}"] for name in ("stage_ms/decode", "stage_ms/collate", "samples_per_busy_s")) > 0
    assert last["reader/skipped/candidate_item"] > 0
    assert "reader/skipped/device" not in last
    assert summary["reader_s"]["decode"] > 0


def seen_first(run_dir: Path, num: int) -> list[int]:
    """Ids of the first record of a run's only rank: a header of five words, then the ids."""
    (path,) = run_dir.glob("seen/attempt-*/rank-00000.bin")
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.int64)[5 : 5 + num].tolist()


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(tiny: list[str], tmp_path: Path, ranks: Ranks, loss: float) -> None:
    watch, outputs = watched(tiny, tmp_path, ranks)
    with TrafficCounter() as traffic, watch:
        watch.step(0, 1, outputs[0]._replace(loss=torch.tensor(loss)))
        with pytest.raises(UserError, match=rf"the loss is {loss} at step 1; lower optim\.dense\.lr"):
            watch.point(1, traffic)


def test_a_loss_of_nan_on_another_rank_ends_this_one_too(
    tiny: list[str], tmp_path: Path, ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums over the ranks carry it, so that no rank waits in a collective for one that has ended."""
    nan = float("nan")
    monkeypatch.setattr(
        "recd_dist.train.counting.reduce_over_ranks", lambda mine, *_: {**mine, "loss": mine["loss"] + nan}
    )
    watch, outputs = watched(tiny, tmp_path, ranks)
    with TrafficCounter() as traffic, watch:
        watch.step(0, 1, outputs[0])
        with pytest.raises(UserError, match="the loss is nan at step 1"):
            watch.point(1, traffic)


def test_a_loss_above_that_of_an_untrained_model_is_said_once(
    tiny: list[str], tmp_path: Path, ranks: Ranks, caplog: pytest.LogCaptureFixture
) -> None:
    watch, outputs = watched(tiny, tmp_path, ranks)
    with TrafficCounter() as traffic, watch, caplog.at_level("WARNING", "recd_dist"):
        for step, loss in enumerate([6.0, 5.0, 9.0, 0.5], start=1):  # the first step has learnt nothing yet
            watch.step(0, step, outputs[step - 1]._replace(loss=torch.tensor(loss)))
            watch.point(step, traffic)
        rise = watch.summary(4)["loss_rise"]

    said = [record.message for record in caplog.records if record.name.startswith("recd_dist")]
    assert [text.partition(",")[0] for text in said] == ["the loss is 5.93 at step 2"]
    assert (rise["step"], 6 < rise["loss"] < 9) == (3, True)
    assert f"loss is {rise['loss']:.2f} at step 3" in shown(render({**SUMMARY, "loss_rise": rise}))
    assert "diverges" not in shown(render(SUMMARY))


def test_a_model_that_is_worse_than_the_base_rate_is_told_so() -> None:
    assert "1.0300 > 1: worse than the base rate" in shown(render({**SUMMARY, "ne": 1.03}))
    assert "base rate" not in shown(render(SUMMARY))
    result = {"run_dir": "r", "step": 1, "table": "t", "ne": 1.03}
    assert "NE > 1: worse than the base rate" in shown(report(result))


def shown(value: object) -> str:
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(value)
    return captured.get()


def test_the_summary_as_text() -> None:
    text = shown(render(SUMMARY))

    for part in ("12,345 in 10 steps on 2 ranks", "9,876 samples/s", "0.8123 (best possible 0.8300)", "history 5.25",
                 "1.0 kB sent, 2.5 kB expanded: 2.50x fewer", "3.00 MiB with optimizer state, 2.00 MiB planned",
                 "recd board run"):  # fmt: skip
        assert part in text
    assert "per request" not in text
