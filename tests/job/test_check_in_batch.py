"""What two towers and negatives of the batch cannot be trained on is one line before a rank starts."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.cli import main
from recd_dist.errors import ConfigError, DataError
from recd_dist.job.config import load
from recd_dist.job.preflight import check


def described(root: Path, **columns: list) -> list[str]:
    """The overrides of a log of 40 samples in 10 sessions, with some columns in other ways."""
    rows = {
        "session": [n // 4 for n in range(40)],
        "t": list(range(40)),
        "bought": [float(n % 3 == 0) for n in range(40)],
        "user": [n // 8 for n in range(40)],
        "item": [n * 7 % 11 for n in range(40)],
        "history": [[n // 4, n // 4 + 1] for n in range(40)],
    }
    pq.write_table(pa.table({**rows, **columns}), root / "raw.parquet")
    overrides = [
        "data=parquet",
        f"data.path={root / 'raw.parquet'}",
        f"data.table={root / 'table'}",
        "data.keys={session: session, timestamp: t}",
        "data.labels=[bought]",
        "data.split=null",
        "data.groups={past: [history, user]}",
        "data.features={history: {table: item}, user: {kind: id}, item: {kind: id, table: item}}",
    ]
    assert main(["etl", *overrides]) == 0
    return [*overrides, "model=two_tower", "batch_size=16", f"run_dir={root / 'run'}"]


def test_a_log_of_positives_alone_is_trained_by_in_batch(tmp_path: Path) -> None:
    overrides = described(tmp_path, bought=[1.0] * 40)
    assert [(task.name, task.loss) for task in check(load("train", overrides)).tasks] == [("bought", "in_batch")]
    with pytest.raises(DataError, match="label 'bought' is 1 in every sample"):
        check(load("train", [*overrides, "model=dlrm"]))


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"bought": [0.0] * 40}, DataError, "label 'bought' is 0 in every sample, so there is nothing to learn"),
        ({"session": [1] * 40}, DataError, r"one session holds all samples.*tasks.bought.user=\.\.\."),
        ({"item": [3] * 40, "history": [[3]] * 40}, DataError, r"'item' is the same in every sample.*model.item="),
    ],
)
def test_data_without_negatives(tmp_path: Path, columns: dict, error: type, message: str) -> None:
    overrides = described(tmp_path, **columns)
    with pytest.raises(error, match=message):
        check(load("train", overrides))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return described(tmp_path_factory.mktemp("log"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model=dlrm", "tasks.bought.loss=in_batch"], "model 'dlrm' has no towers.*use model=two_tower"),
        (["tasks.bought.loss=binary"], "no probability; write tasks.bought.loss=in_batch"),
        (["tasks.bought.loss=regression"], "tasks.bought.loss=in_batch"),
        (["tasks.bought={loss: in_batch, candidates: none}"], "tasks.bought.candidates=none: unknown.*positives"),
        (["tasks.bought={loss: in_batch, negatives: ranks}"], r"unknown; did you mean 'rank'\?"),
        (["tasks.bought={loss: in_batch, user: usr}"], r"tasks.bought.user=usr: no single id.*'user'"),
        (
            ["tasks.bought={loss: in_batch, user: user}", "data.tables.user.mapped=true"],
            "data.tables.user.mapped=true: tasks.bought.user=user tells users by it",
        ),
        (["model=dlrm", "tasks.bought.user=user"], "is an option of tasks.bought.loss=in_batch"),
        (["batch_size=4"], "4 samples are compared at a time, and a session has 4.0.*at least batch_size=33"),
        (["model.query=[]"], "model two_tower needs a query"),
        (["model.query_tower=[0]"], r"model.query_tower=\[0\]: must be a list of widths"),
        (["model.temperature=0"], "model.temperature=0.0: scores are divided by it"),
        (["model.vector=0"], "model.vector=0: must be a whole number"),
        (["evaluate.top=[0]"], r"evaluate.top=\[0\]: must be lengths of lists"),
        (["evaluate.best=recall@7", "evaluate.top=[5]"], r"evaluate.best=recall@7: unknown.*recall@5"),
        (["evaluate.best=auc"], "has the loss in_batch, of which recall@10, recall@50"),
    ],
)
def test_options_that_do_not_fit(log: list[str], options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(load("train", [*log, *(["evaluate.every=5"] if "evaluate.best=auc" in options else []), *options]))


def test_a_batch_of_all_ranks_holds_several_sessions(log: list[str]) -> None:
    assert check(load("train", [*log, "batch_size=4"]), world_size=2).tasks
    with pytest.raises(ConfigError, match="4 samples are compared"):
        check(load("train", [*log, "batch_size=4", "tasks.bought={loss: in_batch, negatives: rank}"]), world_size=2)
    assert check(load("train", [*log, "batch_size=4", "tasks.bought={loss: in_batch, user: user}"])).tasks
