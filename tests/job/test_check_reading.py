"""What is wrong with the order of samples and with where batches end is one error before a rank starts."""

from pathlib import Path

import pytest

from recd_dist.cli import main
from recd_dist.errors import ConfigError
from recd_dist.job import preflight
from recd_dist.job.config import load


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reader.batches=works"], r"reader.batches=works: unknown.*did you mean 'work'"),
        (["reader.work.id=0.1"], r"reader.work.id=0.1: is for reader.batches=work only; add that, or null"),
        (["reader.batches=work", "reader.work.id=-1"], r"reader.work.id=-1.0: must be a number, at least 0"),
        (["reader.batches=work", "reader.work.sample=1"], r"only samples cost something"),
        (
            ["reader.batches=work", "reader.work.look=1"],
            r"reader.work.look: model 'dlrm' pools its lists.*use reader.work.id",
        ),
        (
            ["reader.batches=work", "data.drop=[history_item,history_category]"],
            r"reader.batches=work: .* has no lists.*use reader.batches=samples",
        ),
        (["reader.order=times"], r"reader.order=times: unknown; did you mean 'time'"),
        (["reader.order=partitions"], r"has no days or hours; make it with `recd etl ... data.partition=day`, or take"),
        (["reader.order=time", "reader.shuffle=false"], r"reader.shuffle=false: the older name of reader.order"),
        (["reader.batch_ids=0"], r"reader.batch_ids=0: must be at least 1, or null"),
        (
            ["reader.batch_ids=9", "reader.batches=work"],
            r"reader.batch_ids=9: .*take reader.batches=samples, or reader.b",
        ),
        (["reader.whole=session"], r"reader.whole=session: unknown; did you mean 'sessions'"),
        (["reader.whole=sessions", "reader.order=time"], r"reader.whole=sessions: in order of time .* lie apart"),
        (
            ["reader.whole=users"],
            r"does not store users, its sessions are samples of one session_id .keys.session.; make it with "
            r"data.keys.user=COLUMN data.sessions.by=user, or take reader.whole=sessions",
        ),
    ],
)
def test_what_is_wrong(tiny: list[str], tmp_path: Path, overrides: list[str], message: str) -> None:
    config = load("train", [*tiny, f"run_dir={tmp_path}", *overrides])
    with pytest.raises(ConfigError, match=message):
        preflight.check(config)


def test_what_is_right(tiny: list[str], tmp_path: Path) -> None:
    right = (["reader.order=time", "reader.batch_ids=900"], ["reader.order=table", "reader.whole=sessions"])
    for overrides in (*right, ["reader.shuffle=false", "reader.whole=sessions", "reader.batch_ids=900"]):
        preflight.check(load("train", [*tiny, f"run_dir={tmp_path}", *overrides]))


def test_sessions_that_are_users_are_whole_users(tmp_path: Path) -> None:
    sizes = ["data.synthetic.num_samples=500", "data.synthetic.num_users=40"]
    overrides = ["data=tiny", f"data.path={tmp_path / 'raw'}", f"data.table={tmp_path / 'table'}"]
    users = ["+data.keys.user=session_id", "data.sessions.by=user"]
    assert main(["etl", *overrides, *sizes, *users]) == 0
    preflight.check(load("train", [*overrides, f"run_dir={tmp_path / 'run'}", "reader.whole=users"]))
