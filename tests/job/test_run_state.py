"""The state of a run, as its directory tells: it runs, or how it ended; also after kill -9."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recd_dist.errors import DataError
from recd_dist.job.run_records import differing_options, find_runs, read_run, short_labels
from recd_dist.job.run_state import State, note_failure, read_state, record_state
from recd_dist.ranks.failures import summarize
from recd_dist.ranks.stop import Stopped

RUN = """
import sys, time
from pathlib import Path
from recd_dist.job.run_state import record_state
with record_state(Path(sys.argv[1])):
    print("runs", flush=True)
    time.sleep(60)
"""


def test_a_run_that_ends(tmp_path: Path) -> None:
    assert read_state(tmp_path / "run")[0] is State.NEW
    with record_state(tmp_path / "run"):
        assert read_state(tmp_path / "run")[0] is State.RUNNING
    assert read_state(tmp_path / "run") == (State.ENDED, "")
    with record_state(tmp_path / "other", is_writer=False):
        pass
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (DataError("part-0.parquet: NaN"), (State.FAILED, "part-0.parquet: NaN")),
        (KeyError("k"), (State.FAILED, "KeyError: 'k'")),
        (
            RuntimeError("[gloo] Connection closed by peer"),
            (State.FAILED, "another rank ended; the output of the job says why"),
        ),
        (Stopped("stopped by SIGTERM after step 7"), (State.STOPPED, "stopped by SIGTERM after step 7")),
        (KeyboardInterrupt(), (State.STOPPED, "KeyboardInterrupt")),
    ],
)
def test_a_run_that_does_not(tmp_path: Path, error: BaseException, state: tuple[State, str]) -> None:
    with pytest.raises(type(error)), record_state(tmp_path, summarize=summarize):
        raise error
    assert read_state(tmp_path) == state


def test_a_launcher_knows_better_than_the_first_rank(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), record_state(tmp_path):
        raise RuntimeError("gloo")
    note_failure(tmp_path, "part-0.parquet: NaN")
    assert read_state(tmp_path) == (State.FAILED, "part-0.parquet: NaN")


def test_a_run_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert read_state(tmp_path)[0] is State.RUNNING
        process.send_signal(signal.SIGKILL)
    assert read_state(tmp_path)[0] is State.KILLED


def test_a_place_that_cannot_be_written_is_left_to_the_checks_of_the_run() -> None:
    with record_state(Path("/proc/none")):
        pass


def test_runs_below_a_directory(tmp_path: Path) -> None:
    for name in ("b/c", "a", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "a/checkpoints/step-00000007").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    assert list(find_runs(tmp_path)) == [tmp_path / "a", tmp_path / "b/c"]
    assert list(find_runs(tmp_path / "a")) == [tmp_path / "a"]
    assert read_run(tmp_path / "a").number("steps") == 7


def test_options_that_differ(tmp_path: Path) -> None:
    records = []
    for number, text in enumerate(
        ("seed: 1\noptim: {dense: {lr: 1}}\nrun_dir: a\n", "seed: 1\noptim: {dense: {lr: 2}}\nrun_dir: b\n", "[")
    ):
        path = tmp_path / str(number)
        path.mkdir()
        (path / "config.yaml").write_text(text)
        records.append(read_run(path))
    assert differing_options(records) == ["optim.dense.lr"]
    assert records[2].state is State.DAMAGED
    assert "config.yaml is damaged" in records[2].message
    assert short_labels(["optim.dense.lr", "optim.tables.lr", "seed"]) == {
        "optim.dense.lr": "dense.lr", "optim.tables.lr": "tables.lr", "seed": "seed",
    }  # fmt: skip
