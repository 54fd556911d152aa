"""TensorBoard reads the curves back, and its server listens on loopback only."""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.metrics.served import fetch_when_ready, free_port

from recd_dist.metrics import curves as curves_module
from recd_dist.metrics.board_server import server_command
from recd_dist.metrics.curves import BOARD_DIRECTORY, CurveWriter, drop_points


def events(run_dir: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run_dir / BOARD_DIRECTORY))
    accumulator.Reload()
    return accumulator


def curves(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    read = events(run_dir)
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_tags_and_points(tmp_path: Path) -> None:
    with CurveWriter(tmp_path) as run:
        run.add_points(10, "quality", {"loss": 0.5, "auc": float("nan")})
        run.add_points(10, "quality", {"loss": 0.25}, line="eval")
        run.add_points(10, "speed", {"samples_per_s": 1000.0})
        run.add_points_by_line(10, "traffic", "bytes", {"sent": 2.0, "expanded": 8.0})
    assert curves(tmp_path) == {
        "quality/loss": [(10, 0.5)],
        "quality/loss/eval": [(10, 0.25)],
        "speed/samples_per_s": [(10, 1000.0)],
        "traffic/bytes/sent": [(10, 2.0)],
        "traffic/bytes/expanded": [(10, 8.0)],
    }


def three_attempts(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Writes the curves of a run that died after step 120 and after step 130; returns those that are true.

    Its checkpoints were of steps 110 and 120.
    """
    with CurveWriter(run_dir) as run:
        for step in (100, 110, 120):
            run.add_points(step, "quality", {"loss": 1.0})
            run.add_points(step, "quality", {"loss": 3.0}, line="eval")
    for start, loss in ((110, 2.0), (120, 4.0)):
        time.sleep(1)  # files of one second are read in the order of their numbers as text, 10 before 9
        with CurveWriter(run_dir, start_step=start) as run:
            for step in (start + 5, start + 20):
                run.add_points(step, "quality", {"loss": loss})
    return {
        "quality/loss": [(100, 1.0), (110, 1.0), (115, 2.0), (125, 4.0), (140, 4.0)],
        "quality/loss/eval": [(100, 3.0), (110, 3.0)],
    }


def test_resume_drops_what_the_dead_attempt_wrote_beyond_its_checkpoint(tmp_path: Path) -> None:
    assert three_attempts(tmp_path) == curves(tmp_path)


@pytest.mark.parametrize("fast", ["false", "true"])
def test_both_servers_of_tensorboard_drop_it_too(tmp_path: Path, fast: str) -> None:
    """The Python server, which `recd board` starts, and the Rust one, which knows no marks."""
    if fast == "true":
        pytest.importorskip("tensorboard_data_server")
    wanted = three_attempts(tmp_path)
    port = free_port()
    command = [*server_command(tmp_path, port), f"--load_fast={fast}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        shown, deadline = {}, time.monotonic() + 30
        while shown != {"board": wanted} and time.monotonic() < deadline:  # it may still be reading
            runs = json.loads(fetch_when_ready(f"http://127.0.0.1:{port}/data/plugin/scalars/tags"))
            shown = {run: {tag: scalars(port, run, tag) for tag in tags} for run, tags in runs.items()}
        server.terminate()
    assert shown == {"board": wanted}


def scalars(port: int, run: str, tag: str) -> list[tuple[int, float]]:
    url = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?{urllib.parse.urlencode({'run': run, 'tag': tag})}"
    return [(step, value) for _, step, value in json.loads(fetch_when_ready(url))]


def test_a_server_that_runs_forgets_what_was_dropped(tmp_path: Path) -> None:
    """It has read the points already: the mark tells it."""
    with CurveWriter(tmp_path) as run:
        for step in (100, 120):
            run.add_points(step, "quality", {"loss": 1.0})
    read = events(tmp_path)
    assert [e.step for e in read.Scalars("quality/loss")] == [100, 120]
    with CurveWriter(tmp_path, start_step=110) as run:
        run.add_points(130, "quality", {"loss": 2.0})
    read.Reload()
    assert [e.step for e in read.Scalars("quality/loss")] == [100, 130]


def test_curves_that_are_torn_or_on_a_full_disk_do_not_keep_a_run_from_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with CurveWriter(tmp_path) as run:
        for step in (100, 120, 140):
            run.add_points(step, "quality", {"loss": 1.0})
    (file,) = (tmp_path / BOARD_DIRECTORY).glob("*tfevents*")
    torn = file.read_bytes()[:-5]
    file.write_bytes(torn)
    with monkeypatch.context() as patch:
        patch.setattr(curves_module, "write_whole", full_disk)
        drop_points(file, 110)
    assert file.read_bytes() == torn
    assert "points beyond step 110 stay there" in caplog.text
    drop_points(file, 110)
    assert curves(tmp_path) == {"quality/loss": [(100, 1.0)]}


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_stray_file_on_the_board_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / BOARD_DIRECTORY).mkdir()
    (tmp_path / BOARD_DIRECTORY / "notes.txt").write_text("mine")
    for start in (0, 10):
        with CurveWriter(tmp_path, start_step=start) as run:
            run.add_points(start + 1, "quality", {"loss": 1.0})
    assert curves(tmp_path) == {"quality/loss": [(1, 1.0), (11, 1.0)]}
    assert (tmp_path / BOARD_DIRECTORY / "notes.txt").read_text() == "mine"


def test_a_training_is_one_run_of_tensorboard(tmp_path: Path) -> None:
    """TensorBoard selects runs by itself only where there are few of them."""
    for name in ("a", "b"):
        for start in (0, 10):
            with CurveWriter(tmp_path / name, start_step=start) as run:
                run.add_points_by_line(start + 1, "dedup", "factor", {f"group{i}": 2.0 for i in range(12)})
                run.add_points(start + 1, "quality", {"auc": 0.7}, line="eval")
                run.add_run(start + 1, {"lr": 0.1}, {"auc": 0.7})
    runs = {path.parent for path in tmp_path.rglob("*tfevents*")}
    assert runs == {tmp_path / "a/board", tmp_path / "b/board"}


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with CurveWriter(tmp_path, is_writer=False) as run:
        run.add_points(1, "quality", {"loss": 1.0})
        run.add_text("config", "a: 1")
        run.add_run(1, {"lr": 0.1}, {"auc": 0.7})
        run.flush()
    assert list(tmp_path.iterdir()) == []


def test_dashboard_text_and_hparams(tmp_path: Path) -> None:
    with CurveWriter(tmp_path) as run:
        run.add_text("config", "model:\n  name: dlrm")
        run.add_run(7, {"optim.lr": 0.1, "layers": [1, 2], "resume": None}, {"auc": 0.7})
    read = events(tmp_path)
    assert read.Tags()["tensors"] == ["custom_scalars__config__", "config/text_summary"]
    (text,) = read.Tensors("config/text_summary")
    assert text.tensor_proto.string_val[0] == b"    model:\n      name: dlrm"
    assert curves(tmp_path) == {"result/auc": [(7, pytest.approx(0.7))]}
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(read.summary_metadata)
