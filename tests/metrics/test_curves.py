"""TensorBoard reads the curves back, and its server listens on loopback only."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recd_dist.errors import ConfigError
from recd_dist.metrics.curves import BOARD_DIRECTORY, CurveWriter, server_command


def events(run_dir: Path, line: str) -> EventAccumulator:
    accumulator = EventAccumulator(str(run_dir / BOARD_DIRECTORY / line))
    accumulator.Reload()
    return accumulator


def curves(run_dir: Path, line: str = "train") -> dict[str, list[tuple[int, float]]]:
    read = events(run_dir, line)
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_tags_and_points(tmp_path: Path) -> None:
    with CurveWriter(tmp_path) as run:
        run.add_points(10, "quality", {"loss": 0.5, "auc": float("nan")})
        run.add_points(10, "quality", {"loss": 0.25}, line="eval")
        run.add_points(10, "speed", {"samples_per_s": 1000.0})
        run.add_points_by_line(10, "traffic", "bytes", {"sent": 2.0, "expanded": 8.0})
    assert curves(tmp_path) == {"quality/loss": [(10, 0.5)], "speed/samples_per_s": [(10, 1000.0)]}
    assert curves(tmp_path, "eval") == {"quality/loss": [(10, 0.25)]}
    assert curves(tmp_path, "sent") == {"traffic/bytes": [(10, 2.0)]}
    assert curves(tmp_path, "expanded") == {"traffic/bytes": [(10, 8.0)]}


def test_resume_drops_what_the_dead_attempt_wrote_beyond_its_checkpoint(tmp_path: Path) -> None:
    with CurveWriter(tmp_path) as run:
        for step in (100, 110, 120):
            run.add_points(step, "quality", {"loss": 1.0})
            run.add_points(step, "quality", {"loss": 3.0}, line="eval")
    with CurveWriter(tmp_path, start_step=110) as run:
        run.add_points(115, "quality", {"loss": 2.0})
    assert curves(tmp_path) == {"quality/loss": [(100, 1.0), (110, 1.0), (115, 2.0)]}
    assert curves(tmp_path, "eval") == {"quality/loss": [(100, 3.0), (110, 3.0)]}


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with CurveWriter(tmp_path, is_writer=False) as run:
        run.add_points(1, "quality", {"loss": 1.0})
        run.add_text("config", "a: 1")
        run.add_run({"lr": 0.1}, {"auc": 0.7})
    assert list(tmp_path.iterdir()) == []


def test_dashboard_text_and_hparams(tmp_path: Path) -> None:
    with CurveWriter(tmp_path) as run:
        run.add_text("config", "model:\n  name: dlrm")
        run.add_run({"optim.lr": 0.1, "layers": [1, 2], "resume": None}, {"auc": 0.7})
    read = events(tmp_path, "train")
    assert read.Tags()["tensors"] == ["custom_scalars__config__", "config/text_summary"]
    (text,) = read.Tensors("config/text_summary")
    assert text.tensor_proto.string_val[0] == b"    model:\n      name: dlrm"
    assert curves(tmp_path) == {"result/auc": [(0, pytest.approx(0.7))]}


def test_serves_on_loopback_only(tmp_path: Path) -> None:
    with CurveWriter(tmp_path):
        pass
    command = server_command(tmp_path, port=6007)
    assert command[-4:] == ["--host", "127.0.0.1", "--port", "6007"]
    for host in ("0.0.0.0", "::", "10.0.0.1", "trainer.example"):
        with pytest.raises(ConfigError, match=r"no authentication.*ssh -L 6006:127\.0\.0\.1:6006"):
            server_command(tmp_path, host=host)
    for host in ("localhost", "::1"):
        assert host in server_command(tmp_path, host=host)


def test_the_served_dashboard_is_ready_and_ends_with_its_process(tmp_path: Path) -> None:
    with CurveWriter(tmp_path) as run:
        run.add_points(1, "quality", {"loss": 0.5})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        f"from pathlib import Path; from recd_dist.metrics import curves; curves.serve(Path({str(tmp_path)!r}), {port})"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as server:
        layout = json.loads(fetch_when_ready(f"http://127.0.0.1:{port}/data/plugin/custom_scalars/layout"))
        server.terminate()
        server.wait(timeout=20)
    assert [c["title"] for c in layout["category"]] == ["quality", "speed", "what deduplication saves", "memory"]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)


def fetch_when_ready(url: str, deadline_s: float = 60.0) -> bytes:
    """The answer of a server that is starting; asks again while the answer is empty."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if len(body := answer.read()) > 2:
                    return body
        except OSError:
            pass
        time.sleep(0.2)
    pytest.fail(f"{url} did not answer in {deadline_s} s")


def test_nothing_to_serve(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no TensorBoard files here"):
        server_command(tmp_path)
