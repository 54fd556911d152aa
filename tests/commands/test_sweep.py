"""``recd sweep`` and ``recd runs``, with runs that take no time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from recd_dist.cli import main
from recd_dist.commands import sweep_jobs
from recd_dist.commands.sweep_jobs import LocalJobs

RUN = """
import json, os, sys, time
from pathlib import Path
from recd_dist.job.run_state import record_state
given = dict(word.split("=", 1) for word in sys.argv[1:])
path, lr, seed = Path(given["run_dir"]), float(given["optim.dense.lr"]), int(given["seed"])
with open(path.parent / "begun", "a") as begun:
    begun.write(path.name + "\\n")
(path / "config.yaml").write_text(f"seed: {seed}\\noptim: {{dense: {{lr: {lr}}}}}\\nrun_dir: {path}\\n")
if (path.parent / "breaks").exists() and seed == 2:
    print("recd: error: part-0.parquet: column clicked: NaN")
    sys.exit(2)
with record_state(path):
    while (path.parent / "waits").exists():
        time.sleep(0.05)
    numbers = {"steps": 10, "ne": lr + seed / 100, "auc": 1 - lr, "loss": lr, "samples_per_s": 5000.0}
    (path / "summary.json").write_text(json.dumps(numbers | {"dedup_factor": {"history": 5.0}}))
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a sweep whose runs are small programs."""

    def line(self: LocalJobs, run_dir: Path, overrides: Sequence[str]) -> list[str]:
        return [sys.executable, "-c", RUN, *overrides, f"run_dir={run_dir}"]

    monkeypatch.setattr(LocalJobs, "line", line)
    return tmp_path / "lr"


def arguments(root: Path, *more: str) -> list[str]:
    return ["sweep", "data=tiny", "optim.dense.lr=0.1,0.2", "seed=1,2", f"run_dir={root}", *more]


def begun(root: Path) -> list[str]:
    return (root / "begun").read_text().split()


@pytest.mark.parametrize("num_jobs", ["1", "3"])
def test_a_sweep_of_four(made: Path, capsys: pytest.CaptureFixture[str], num_jobs: str) -> None:
    out = made.parent / "out.json"
    assert main(arguments(made, "--jobs", num_jobs, "--json", str(out))) == 0
    shown = capsys.readouterr()
    rows = [line.split() for line in shown.out.splitlines() if line.startswith("0.")]
    assert [(row[0], row[1], row[2]) for row in rows] == [("0.1", "2/2", "0.1150"), ("0.2", "2/2", "0.2150")]
    assert "0.1150 ± 0.0071" in shown.out
    assert "mean ± standard deviation over the seeds" in shown.out
    assert "best ne of one run: 0.1100, lr=0.1 seed=1" in shown.err
    assert "[4/4]" in shown.err
    found = json.loads(out.read_text())
    assert (found[0]["values"], found[0]["numbers"]["ne"]) == ({"lr": "0.1", "seed": "1"}, 0.11)
    assert sorted(begun(made)) == ["lr=0.1_seed=1", "lr=0.1_seed=2", "lr=0.2_seed=1", "lr=0.2_seed=2"]

    assert main(arguments(made, "--sort", "auc")) == 0  # again: nothing is left to do
    assert len(begun(made)) == 4
    assert "4 of them done or running already" in capsys.readouterr().err
    assert main([*arguments(made)[:-2], "seed=1,2,3", f"run_dir={made}"]) == 0  # a third seed
    assert begun(made)[4:] == ["lr=0.1_seed=3", "lr=0.2_seed=3"]


def test_a_run_that_fails_ends_no_other(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.mkdir()
    (made / "breaks").touch()
    assert main(arguments(made)) == 1
    shown = capsys.readouterr()
    assert shown.err.count("failed: part-0.parquet: column clicked: NaN   (") == 2
    assert "1/2" in shown.out
    (made / "breaks").unlink()
    assert main(arguments(made)) == 0  # the broken ones go on
    assert begun(made)[4:] == ["lr=0.1_seed=2", "lr=0.2_seed=2"]


def test_a_sweep_that_is_stopped(made: Path) -> None:
    made.mkdir()
    (made / "waits").touch()
    program = (
        "import sys\nfrom pathlib import Path\nfrom recd_dist.cli import main\n"
        "from recd_dist.commands.sweep_jobs import LocalJobs\n"
        f"LocalJobs.line = lambda self, d, o: [sys.executable, '-c', {RUN!r}, *o, f'run_dir={{d}}']\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    line = [sys.executable, "-c", program, *arguments(made)]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        while not (made / "lr=0.1_seed=1" / "state.json").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopping: the runs write their checkpoints; the same command goes on" in said
    assert begun(made) == ["lr=0.1_seed=1"]


def test_what_cannot_be(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(made)) == 0
    capsys.readouterr()
    for more, message in (
        (["batch_size=64"], f"{made} holds a sweep with fewer options, now batch_size=64; take another run_dir=..."),
        (["--sort", "nee"], "--sort nee: unknown; did you mean 'ne'?"),
        (["--jobs", "0"], "--jobs 0: must be at least 1"),
        (["--component", "-j 2x2"], "--component and --scheduler-args: are for --scheduler; name one, such as slurm"),
        (["run_dir=s3://bucket/lr"], "run_dir=s3://bucket/lr: the directory of a run is local"),
        (["run_dir="], "run_dir=: names no directory"),
        (["model.dimm=1,2"], "unknown option 'model.dimm'; did you mean 'model.dim'?"),
    ):
        assert main(arguments(made, *more)) == 2
        assert message in capsys.readouterr().err


def test_commands_of_a_scheduler(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = ["--scheduler", "slurm", "--component", "-j 2x8 --gpu 8", "--scheduler-args", "partition=gpu,time=2:00:00"]
    assert main(arguments(made, *slurm, "--dry-run")) == 0
    first = capsys.readouterr().out.splitlines()[0]
    run_dir = made / "lr=0.1_seed=1"
    assert "torchx.cli.main run -s slurm -cfg partition=gpu,time=2:00:00 " in first
    assert first.endswith(
        f"launch/train.py:train -j 2x8 --gpu 8 --run {run_dir} -- data=tiny optim.dense.lr=0.1 seed=1 run_dir={run_dir}"
    )
    assert not made.exists()

    program = made.parent / "torchx"  # submits, and says that all jobs wait
    program.write_text('#!/bin/sh\ncase "$*" in *status*) echo \'{"state": "PENDING"}\';; *) echo slurm://t/1;; esac\n')
    program.chmod(0o755)
    monkeypatch.setattr(sweep_jobs.sys, "executable", str(program))
    assert main(arguments(made, *slurm)) == 0
    assert "[4/4] lr=0.2 seed=2: submitted as slurm://t/1" in capsys.readouterr().err
    assert json.loads((run_dir / "submitted.json").read_text()) == {"handle": "slurm://t/1"}
    assert main(arguments(made, *slurm)) == 0
    shown = capsys.readouterr()
    assert "lr=0.1 seed=1: waits already, as slurm://t/1" in shown.err
    assert shown.out.count(" waiting") == 2
    assert main(arguments(made, *slurm, "--cancel")) == 0
    assert "4 jobs cancelled" in capsys.readouterr().err

    program.write_text("#!/bin/sh\necho 'squeue: error: Unable to contact slurm controller' >&2; exit 1\n")
    assert main(arguments(made, *slurm)) == 2  # to submit them a second time would be the worst
    assert "slurm://t/1: its scheduler does not answer (squeue: error: Unable" in capsys.readouterr().err
    program.write_text(
        "#!/bin/sh\ncase \"$*\" in *status*) echo 'AppDef `1` does not exist or has been removed' >&2; exit 1;; "
        "*) echo slurm://t/2;; esac\n"
    )
    assert main(arguments(made, *slurm)) == 0  # forgotten: they are submitted again
    assert json.loads((run_dir / "submitted.json").read_text()) == {"handle": "slurm://t/2"}
    program.write_text('#!/bin/sh\necho \'{"state": "FAILED"}\'\n')
    assert main(arguments(made, *slurm, "--wait")) == 1
    assert "lr=0.1 seed=1: failed: its job has ended (failed) before the run began" in capsys.readouterr().err


def test_a_scheduler_that_refuses_the_jobs(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = made.parent / "torchx"
    program.write_text(
        "#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpus' >&2\n"
        "echo 'Traceback (most recent call last):' >&2\necho 'CalledProcessError: exit status 1' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sweep_jobs.sys, "executable", str(program))
    assert main(arguments(made, "--scheduler", "slurm")) == 1
    said = capsys.readouterr()
    why = "torchx ended with 1: sbatch: error: invalid partition specified: gpus"
    assert f"[4/4] lr=0.2 seed=2: failed: {why}" in said.err
    assert "failed" in said.out
    assert "not begun" not in said.out
    assert main(arguments(made, "--scheduler", "slurm")) == 1  # tried again
    assert "[4/4] lr=0.2 seed=2: failed" in capsys.readouterr().err


def test_train_with_hydras_flag_is_a_sweep(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = arguments(made)[1:]
    assert main(["train", "-m", *words]) == 0
    assert main(["train", *words, "--multirun"]) == 0
    assert "best ne of one run" in capsys.readouterr().err


def test_tensorboard_shows_the_options_that_differ(made: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    for _ in range(2):
        assert main(arguments(made, "dedup=on,off", "--dry-run")) == 0
        assert main(arguments(made)) == 0
    board = EventAccumulator(str(made / "board")).Reload()
    (content,) = board.PluginTagToContent(metadata.PLUGIN_NAME).values()
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    assert [column.name for column in experiment.hparam_infos] == ["optim.dense.lr", "seed"]
    assert "result/ne" in [metric.name.tag for metric in experiment.metric_infos]
    assert len(os.listdir(made / "board")) == 1


def runs(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["runs", *words]) == 0
    return capsys.readouterr().out


def test_runs_side_by_side(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(made)) == 0
    (made / "old").mkdir()
    (made / "old/config.yaml").write_text(yaml.safe_dump({"seed": 7}))
    (made / "torn").mkdir()
    (made / "torn/config.yaml").write_text("seed: 1\n")
    (made / "torn/summary.json").write_text("{")
    capsys.readouterr()

    shown = runs(capsys, str(made), "--sort", "ne", "--reverse")
    lines = shown.splitlines()
    assert lines[0] == "6 runs"
    assert lines[1].split()[:6] == ["run", "seed", "lr", "state", "age", "steps"]
    assert lines[3].split()[:4] == ["lr=0.2_seed=2", "2", "0.2", "ended"]
    assert lines[3].split()[-5:] == ["5,000", "0.2000", "0.2200", "0.8000", "5.0"]
    assert "summary.json is damaged" in " ".join(shown.split())
    assert "damaged" in next(line for line in lines if line.startswith("torn"))
    assert "stopped" in next(line for line in lines if line.startswith("old"))

    assert runs(capsys, str(made), "--filter", "state=ended", "--filter", "ne<0.2").startswith("2 runs")
    assert runs(capsys, str(made), "--filter", "lr=0.1", "--filter", "seed!=1").startswith("1 run\n")
    diff = runs(capsys, "--diff", str(made / "lr=0.1_seed=1"), str(made / "lr=0.2_seed=1"))
    assert diff.startswith("1 options differ")
    assert "optim.dense.lr" in diff
    out = made.parent / "runs.json"
    runs(capsys, str(made), "--json", str(out))
    assert {run["state"] for run in json.loads(out.read_text())} == {"ended", "stopped", "damaged"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["/no/such"], "/no/such: no such directory"),
        (["{made}", "--filter", "ne"], "--filter ne: write name=value, name!=value, ne<0.8, steps>=100"),
        (["{made}", "--filter", "ne<0"], "2 runs, none of which fits ne<0"),
        (["{made}", "--filter", "ne<<1"], "--filter ne<<1: write name=value, name!=value, ne<0.8, steps>=100"),
        (["{made}", "--filter", "sead=1"], "--filter sead: no run has it; did you mean 'seed'?"),
        (["{made}", "--sort", "aucc"], "--sort aucc: no run has it; did you mean 'auc'?"),
        (["--diff", "{made}", "/no/such"], "{made}: not there, or no run's directory"),
    ],
)
def test_runs_that_cannot_be_shown(
    made: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    for name in ("a", "b"):
        (made / name).mkdir(parents=True)
        (made / name / "config.yaml").write_text("seed: 1\n")
    assert main(["runs", *(word.format(made=made) for word in words)]) == 2
    assert message.format(made=made) in capsys.readouterr().err


def test_many_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(300):
        (tmp_path / f"run-{number:03}").mkdir()
        (tmp_path / f"run-{number:03}/config.yaml").write_text(f"seed: {number}\n")
    assert runs(capsys, str(tmp_path)).startswith("300 runs")


def test_runs_are_sorted_and_filtered_by_the_numbers_of_a_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, auc in (("first", 0.6), ("second", 0.7)):
        (tmp_path / name).mkdir()
        tasks = {"clicked": {"auc": 0.5, "num_samples": 1200}, "liked": {"auc": auc}}
        (tmp_path / name / "summary.json").write_text(json.dumps({"steps": 3, "auc": 0.5, "tasks": tasks}))
    shown = runs(capsys, str(tmp_path), "--sort", "liked.auc", "--reverse")
    assert shown.index("second") < shown.index("first")
    assert runs(capsys, str(tmp_path), "--filter", "liked.auc>0.65").startswith("1 run\n")
    diff = " ".join(runs(capsys, "--diff", str(tmp_path / "first"), str(tmp_path / "second")).split())
    assert "clicked.num_samples 1,200 1,200" in diff
    assert "liked.auc 0.6000 0.7000" in diff


def test_runs_that_look_for_items_show_how_many_they_find(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, share in (("first", 0.2), ("second", 0.3)):
        (tmp_path / name).mkdir()
        numbers = {"steps": 3, "recall@10": share, "recall@100": 0.9}
        (tmp_path / name / "summary.json").write_text(json.dumps(numbers))
    shown = runs(capsys, str(tmp_path), "--sort", "recall@10", "--reverse")
    assert "recall@10" in shown
    assert "recall@100" not in shown
    assert shown.index("second") < shown.index("first")
    assert runs(capsys, str(tmp_path), "--filter", "recall@10>0.25").startswith("1 run\n")
    assert "recall@100" in runs(capsys, "--diff", str(tmp_path / "first"), str(tmp_path / "second"))
