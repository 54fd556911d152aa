"""The lines and the bar that show training."""

import io
import math

from recd_dist.screen.training_progress import TrainingProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_in_a_pipe() -> None:
    now = [0.0]
    screen = io.StringIO()
    with TrainingProgress(468, stream=screen, every_s=5.0, clock=lambda: now[0]) as progress:
        for step in range(1, 469):
            now[0] += 0.125
            if progress.is_due(step):
                numbers = {"loss": 0.6931, "auc": math.nan} if step == 1 else {"loss": 0.43121, "ne": 0.914}
                if step > 100:
                    numbers |= {"auc": 0.7421, "samples_per_s": 82114.4, "reader_wait_share": 0.031}
                progress.show(step, numbers)
    lines = screen.getvalue().splitlines()
    assert lines[0] == "step 1/468  loss 0.6931"
    assert lines[1] == "step 41/468  loss 0.4312  ne 0.91  eta 0:53"
    tail = "loss 0.4312  auc 0.7421  ne 0.91  82,114 samples/s  reader wait 3%"
    assert lines[3] == f"step 121/468  {tail}  eta 0:43"
    assert lines[-1] == f"step 468/468  {tail}  eta 0:00"
    assert len(lines) == 13


def test_resumed_run_starts_where_it_was() -> None:
    now = [0.0]
    screen = io.StringIO()
    with TrainingProgress(200, start_step=100, stream=screen, clock=lambda: now[0]) as progress:
        now[0] += 4.0
        assert progress.is_due(104)
        progress.show(104, {"loss": 0.5})
    assert screen.getvalue() == "step 104/200  loss 0.5000  eta 1:36\n"


def test_bar_on_a_terminal() -> None:
    screen = Terminal()
    with TrainingProgress(4, stream=screen) as progress:
        progress.show(4, {"loss": 0.25})
    assert "step 4/4" in screen.getvalue()
    assert "loss 0.2500" in screen.getvalue()
