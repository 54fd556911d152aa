"""``recd``: what a user types and reads. Bad input ends in one line and exit code 2, and leaves nothing behind."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.cli import COMMANDS, main

pytestmark = pytest.mark.usefixtures("own_logging")

NUM = 60


def flat(path: Path, **columns: pa.Array) -> Path:
    """A flat table as a user may have it: 6 visits of 10 samples; columns given replace those of the same name."""
    rng = np.random.default_rng(0)
    table = {
        "visit": pa.array(np.repeat(np.arange(6), 10)),
        "time": pa.array(np.arange(NUM)),
        "item": pa.array(rng.integers(0, 50, NUM)),
        "price": pa.array(rng.random(NUM, np.float32)),
        "history": pa.array([[visit, 1] for visit in range(6) for _ in range(10)]),
        "clicked": pa.array(rng.integers(0, 2, NUM)),
    }
    pq.write_table(pa.table(table | columns), path)
    return path


def own(tmp_path: Path, *overrides: str) -> list[str]:
    """A command line for that table; no line of YAML."""
    names = ["data=parquet", "data.keys.session=visit", "data.keys.timestamp=time", "data.labels=[clicked]"]
    return [*names, f"data.path={tmp_path / 'flat.parquet'}", f"data.table={tmp_path / 'table'}", *overrides]


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line that a command says before it exits with 2, less its prefix."""
    capsys.readouterr()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "reading" not in line]
    assert out == ""
    assert len(lines) == 1, err
    assert lines[0].startswith("recd: error: ")
    return lines[0].removeprefix("recd: error: ")


def values(column: list, at: int, value: object) -> pa.Array:
    column[at] = value
    return pa.array(column)


SESSIONS = [i // 10 for i in range(NUM)]
BAD_COLUMNS = {
    "a NaN label": ({"clicked": values([0.0] * NUM, 7, float("nan"))}, "label 'clicked' is nan in row 7"),
    "a null label": ({"clicked": values([0.0] * NUM, 7, None)}, "label 'clicked' is null in row 7"),
    "a null session": ({"visit": values([*SESSIONS], 3, None)}, "row 3 (and perhaps more) has no session id"),
    "an empty session": (
        {"visit": values([f"s{s}" for s in SESSIONS], 3, "")},
        "row 3 (and perhaps more) has no session id (null or empty); filter such rows in the SQL",
    ),
    "a label of text": ({"clicked": pa.array(["yes"] * NUM)}, "column 'clicked' is VARCHAR; a label is a number"),
    "a struct": ({"item": pa.array([{"a": 1}] * NUM)}, "column 'item': a STRUCT(a BIGINT) is no feature"),
    "a list of floats": ({"history": pa.array([[0.5]] * NUM)}, "column 'history': a list of DOUBLE is no list of ids"),
}  # fmt: skip


@pytest.mark.parametrize("columns", BAD_COLUMNS)
def test_bad_values_in_raw_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str], columns: str) -> None:
    changed, message = BAD_COLUMNS[columns]
    flat(tmp_path / "flat.parquet", **changed)

    assert message in fails(capsys, ["etl", *own(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["flat.parquet"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.keys.session=visti", "keys.session: no column 'visti' in the samples; did you mean 'visit'?"),
        ("data.keys.timestamp=tim", "keys.timestamp: no column 'tim' in the samples; did you mean 'time'?"),
        ("data.labels=[cliked]", "labels: no column 'cliked' in the samples; did you mean 'clicked'?"),
        ("data.groups.user=[histroy]", "groups.user.features: no column 'histroy' in the samples; did you mean "
         "'history'?"),
        ("data.groups.user.feature=[history]", "unknown option 'data.groups.user.feature'; did you mean "
         "'data.groups.user.features'?"),
        ("data.features.pric.table=x", "features.pric: no such column; did you mean 'price'?"),
        ("data.features.history.kind=dense", "column 'history': a BIGINT[] cannot be kind 'dense'"),
        ("data.features.price.kind=dens", "features.price.kind: no kind 'dens'; did you mean 'dense'?"),
        ("data.features.price.tabel=x", "unknown option 'data.features.price.tabel'; did you mean "
         "'data.features.price.table'?"),
        ("data.drop=[pric]", "drop: no column 'pric'; did you mean 'price'?"),
        ("data.split='pricee > 3'", "data.split, line 1, column 1: no column 'pricee'; did you mean 'price'"),
        ("data.split=2", "split must be an SQL predicate or a share between 0 and 1, found 2"),
        ("data.source=sq", "data.source=sq: unknown; did you mean 'sql'?"),
        ("data.samples='select * from nowhere'", "Table with name nowhere does not exist"),
        ("data.path=???", "path is missing; give the raw file, directory or glob"),
        ("compression=zst", "compression 'zst': no such codec; did you mean 'zstd'?"),
        ("row_group_samples=0", "row_group_samples=0: must be at least 1"),
        ("memory_limit=10XX", "memory_limit=10XX: no size; write it as 1GB"),
        ("+unknown=1", "unknown option 'unknown'; every option: recd etl --options"),
    ],
)  # fmt: skip
def test_a_description_that_does_not_fit_the_logs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    flat(tmp_path / "flat.parquet")
    assert main(["etl", *own(tmp_path, override)]) == 2
    out, err = capsys.readouterr()

    assert message in err
    assert (out, err.count("recd: error:"), "Traceback" in err) == ("", 1, False)
    assert [path.name for path in tmp_path.iterdir()] == ["flat.parquet"]


def test_a_wrong_path_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat(tmp_path / "flat.parquet")
    path = tmp_path / "flatt.parquet"

    said = fails(capsys, ["etl", *own(tmp_path, f"data.path={path}")])
    assert said == f"path {path}: not found; did you mean 'flat.parquet'?"


@pytest.mark.parametrize("num_bytes", [0, 5, 1000])
def test_a_truncated_parquet_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], num_bytes: int) -> None:
    path = flat(tmp_path / "flat.parquet")
    path.write_bytes(path.read_bytes()[:num_bytes])

    said = fails(capsys, ["etl", *own(tmp_path)])
    assert said.startswith(f"path {path}: ")
    assert said.endswith("the file is cut off or no Parquet: fetch it again")
    assert [path.name for path in tmp_path.iterdir()] == ["flat.parquet"]


def test_a_table_below_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = flat(tmp_path / "flat.parquet")

    said = fails(capsys, ["etl", *own(tmp_path, f"data.table={path / 'table'}")])
    assert said == f"{path}: cannot be written (Not a directory); choose another directory"


def test_from_flat_parquet_to_stats_and_plan_without_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat(tmp_path / "flat.parquet")
    grouped = own(tmp_path, "data.groups.user=[history]", "data.split=0.2")

    assert main(["etl", *grouped]) == 0
    assert "train: 50 samples of 5 sessions" in capsys.readouterr().err
    assert main(["stats", *grouped, "--json", str(tmp_path / "stats.json")]) == 0
    assert json.loads((tmp_path / "stats.json").read_text())["train"]["num_sessions"] == 5
    assert main(["plan", *grouped, "plan.world_size=2", "--json", str(tmp_path / "plan.json")]) == 0
    tables = {row["table"]: row for row in json.loads((tmp_path / "plan.json").read_text())["tables"]}
    assert tables.keys() == {"history", "item"}
    assert tables["history"]["groups"] == "user"


def test_a_table_is_not_replaced_by_accident(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat(tmp_path / "flat.parquet")
    assert main(["etl", *own(tmp_path)]) == 0

    assert "a table is already there; overwrite=true replaces it" in fails(capsys, ["etl", *own(tmp_path)])
    assert main(["etl", *own(tmp_path, "overwrite=true")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train", "--nprocs", "2"], "unknown option '--nprocs'; did you mean '--nproc'?"),
        (["train", "--json", "x"], "unknown option '--json'; there are: --config-dir, --help, --max-restarts, --nproc, "
         "--options"),
        (["train", "--nproc", "two"], "argument --nproc: invalid int value: 'two'; see `recd train --help`"),
        (["train", "--nproc", "0"], "--nproc 0: must be at least 1"),
        (["train", "--config-dir", "/no/such"], "--config-dir /no/such: no such directory"),
        (["stats", "data=tiny", "data.table=/no/such"], "data.table=/no/such: no clustered table there; make it "
         "with `recd etl data=tiny data.table=/no/such`"),
        (["plan", "data.table=/no/such"], "data.table=/no/such: no clustered table at '/no/such/train'; make it with "
         "`recd etl data=tiny` (the same data overrides), or correct data.table"),
        (["etl"], "recd etl: say which data, as in `recd etl data=tiny`; more: recd etl --help"),
        (["train"], "recd train: say which data, as in `recd train data=tiny --nproc 2`; more: recd train --help"),
        (["sql", "--split", "test"], "recd sql: say which data, as in `recd sql data=mine`; more: recd sql --help"),
        (["evaluate"], "recd evaluate: say which run, as in `recd evaluate runs/tiny-dlrm`; more: recd evaluate "
         "--help"),
        (["evaluate", "/no/such"], "/no/such/config.yaml: not there; is this the directory of a run?"),
        (["evaluate", "/no/lr=0.1", "split=train"], "/no/lr=0.1/config.yaml: not there; is this the directory of a "
         "run?"),
        (["summary", "a/b", "c"], "a/b c: one run at a time; name its directory alone"),
        (["seen", "/no/such"], "/no/such/config.yaml: not there; is this the directory of a run?"),
        (["board", "run_dir=/no/such"], "/no/such: no TensorBoard files here; give a run's directory, or the one of "
         "all runs"),
        (["board", "split=test"], "'split=test': takes a run's directory alone, as runs/tiny-dlrm"),
        (["plan", "data=tiny", "--nproc", "0"], "--nproc 0: must be at least 1"),
        (["plan", "data=tiny", "--nproc", "4", "plan.world_size=2"], "--nproc 4: plan.world_size=2; give one of the "
         "two"),
        (["plan", "data=tiny", "world_size=2"], "unknown option 'world_size'; did you mean 'plan.world_size'?"),
        (["etl", "-m", "data=tiny"], "-m: is for `recd train` alone, where it makes a sweep; see `recd sweep --help`"),
        (["train", "-m", "data=tiny"], "no option has several values, which stand between commas, as in `recd sweep "
         "data=tiny seed=1,2,3`"),
        (["etl", "data=tiny", "seed=1,2"], "seed=1,2: one command takes one value; `recd sweep` is for training, here "
         "a loop of the shell serves: for seed in 1 2; do recd etl data=tiny seed=$seed; done"),
        (["evaluate", "run_dir=/no/such"], "/no/such/config.yaml: not there; is this the directory of a run?"),
        (["seen", "run_dir=/no/such"], "/no/such/config.yaml: not there; is this the directory of a run?"),
        (["summary", "run_dir=/no/such"], "/no/such/summary.json: not there; the run has not ended, or this is no "
         "run's directory"),
        (["board", "/no/such"], "/no/such: no TensorBoard files here; give a run's directory, or the one of all runs"),
    ],
)  # fmt: skip
def test_commands_that_cannot_run(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert fails(capsys, arguments) == message


def test_a_damaged_summary_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "summary.json").write_text("{")

    assert f"{tmp_path / 'summary.json'}: damaged (" in fails(capsys, ["summary", f"run_dir={tmp_path}"])


def test_help_of_every_command_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("etl", "stats", "plan", "train", "evaluate", "summary", "board", "seen"):
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert f"examples:\n  recd {name} " in capsys.readouterr().out


def test_without_a_command_the_help_says_where_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "first steps:\n  recd etl data=tiny\n" in capsys.readouterr().out


def test_options_prints_the_config_that_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "batch_size=77", "--options"]) == 0
    assert "\nbatch_size: 77\n" in capsys.readouterr().out


def test_a_result_that_cannot_be_written(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", *tiny, "--json", str(tmp_path / "no/such.json")]) == 2
    assert (
        capsys.readouterr().err
        == f"recd: error: --json {tmp_path}/no/such.json: cannot be written (No such file or directory)\n"
    )


def test_train_says_what_is_wrong_once_and_starts_no_rank(tiny: list[str], tmp_path: Path) -> None:
    overrides = [*tiny, f"run_dir={tmp_path / 'run'}", "data.features.price.transforms=[lg]"]
    ended = subprocess.run(
        [sys.executable, "-m", "recd_dist.cli", "train", *overrides, "--nproc", "2"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "recd: error: feature 'price': unknown transform 'lg'; did you mean 'log'?\n"
    assert not (tmp_path / "run").exists()


def test_cuda_builds_without_a_driver(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What torch says when fbgemm-gpu's library does not load, and nothing else of that kind."""

    def load(name: str) -> None:
        cause = OSError(f"{name}.so.1: cannot open shared object file: No such file or directory")
        raise OSError("Could not load this library: fbgemm_gpu_py.so") from cause

    stats = COMMANDS["stats"]
    monkeypatch.setitem(COMMANDS, "stats", replace(stats, run=lambda options: load("libnvidia-ml")))
    assert main(["stats", "data=tiny"]) == 2
    assert "CUDA builds of fbgemm-gpu want an NVIDIA driver" in capsys.readouterr().err
    monkeypatch.setitem(COMMANDS, "stats", replace(stats, run=lambda options: load("libother")))
    with pytest.raises(OSError, match="Could not load"):
        main(["stats", "data=tiny"])
