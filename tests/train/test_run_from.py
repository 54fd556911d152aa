"""A run that begins with the weights of another one: rows are kept, new ones are drawn, all else is new."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recd_dist.checkpoint.state import flatten, initialize_state
from recd_dist.embedding.tables import portable_name, table_weights
from recd_dist.errors import ConfigError, DataError
from recd_dist.job.config import load
from recd_dist.job.preflight import check
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.train.run import resume
from recd_dist.train.training import shard_model, train

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]
GROWN = "data.tables.item.num_embeddings=1100"


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


@pytest.fixture(scope="module")
def first(tiny: list[str], alone: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    run_dir = tmp_path_factory.mktemp("first") / "run"
    train(load("train", [*tiny, f"run_dir={run_dir}", "batch_size=128", "evaluate.every=10"]), alone)
    return run_dir


def begun(alone: Ranks, overrides: list[str]) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """What a run begins with: the extra values, the tables and the optimizer states."""
    job = check(load("train", overrides))
    model, optimizer, _ = shard_model(job, alone)
    initialize_state(optimizer)
    extra = resume(job, alone, model, optimizer)
    tables = {name: weight.local_shards()[0].tensor.detach().clone() for name, weight in table_weights(model).items()}
    states = flatten({}, optimizer.state_dict(), portable_name)
    return (
        extra,
        tables,
        {n: s.local_shards()[0].tensor if hasattr(s, "local_shards") else s for n, s in states.items()},
    )


def test_rows_are_kept_and_new_ones_drawn(tiny: list[str], alone: Ranks, first: Path, tmp_path: Path) -> None:
    _, trained, sums = begun(alone, [*tiny, f"run_dir={first}", "epochs=2", "batch_size=128"])
    own = [*tiny, f"run_dir={tmp_path / 'run'}", GROWN]
    _, fresh, _ = begun(alone, own)
    extra, tables, states = begun(alone, [*own, f"run_from={first}"])

    assert extra == {}  # the position is new
    assert len(tables["item"]) == 1100
    assert torch.equal(tables["item"][:1000], trained["item"])
    assert torch.equal(tables["item"][1000:], fresh["item"][1000:])
    assert torch.equal(tables["region"], trained["region"])
    (name,) = (n for n in states if "tables.item.weight" in n)
    assert torch.equal(states[name][:1000], sums[name])
    assert not states[name][1000:].any()


def test_optimizer_states_begin_anew_where_they_shall(
    tiny: list[str], alone: Ranks, first: Path, tmp_path: Path
) -> None:
    own = [*tiny, f"run_dir={tmp_path / 'run'}", f"run_from={first}"]
    _, kept, sums = begun(alone, own)
    _, tables, states = begun(alone, [*own, "run_from_optimizer=fresh"])
    assert all(torch.equal(tables[name], kept[name]) for name in kept)
    assert states.keys() == sums.keys()
    assert all(sum_.any() for sum_ in sums.values())
    assert not any(state.any() for state in states.values())
    train(load("train", [*own, "run_from_optimizer=fresh", "optim.tables.name=adagrad", "max_steps=1"]), alone)


def test_groups_stay_as_they_were_whatever_the_new_days_would_choose(
    tiny: list[str], alone: Ranks, tmp_path: Path
) -> None:
    train(load("train", [*tiny, f"run_dir={tmp_path / 'first'}", "max_steps=1", "plan.expand=[profile]"]), alone)
    job = check(load("train", [*tiny, f"run_dir={tmp_path / 'next'}", f"run_from={tmp_path / 'first'}"]))
    assert {choice.group: choice.expanded for choice in job.groups} == {"history": False, "profile": True}
    assert job.schema.dedup_groups == ("history",)
    assert job.config.plan.expand is None


def test_it_goes_on_learning_and_outlives_the_first_run(
    tiny: list[str], alone: Ranks, first: Path, tmp_path: Path
) -> None:
    shutil.copytree(first, tmp_path / "first")
    own = [*tiny, f"run_dir={tmp_path / 'run'}", "batch_size=128", GROWN, f"run_from={tmp_path / 'first/best'}"]
    begins = train(load("train", [*own, "max_steps=1"]), alone)
    fresh = train(load("train", [*tiny, f"run_dir={tmp_path / 'fresh'}", "batch_size=128", "max_steps=1"]), alone)
    shutil.rmtree(tmp_path / "first")
    ends = train(load("train", own), alone)

    assert begins["ne"] < fresh["ne"] - 0.1
    assert (begins["steps"], begins["samples"]) == (fresh["steps"], fresh["samples"])
    assert ends["steps_this_attempt"] == ends["steps"] - 1  # it resumed from its own checkpoint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["run_from={first}/nowhere"], r"run_from=.*/nowhere: no checkpoint there; name the directory of a run"),
        (["run_from={first}", "run_dir={first}", "epochs=2"], r"that is the run_dir itself, which resumes without it"),
        (["run_from={first}", "model.dim=8"], r"that run has model\.dim=16, this one 8; write model\.dim=16, or train"),
        (["run_from={first}", "model=sequence"], r"that run has model\.heads=None, this one 2"),
        (["run_from={first}", "data.tables.item.num_embeddings=900"], r"item.num_embeddings=900: "),
        (["run_from={first}", "data.tables.item.hashed=true"], r"ids of table 'item' are row numbers there"),
    ],
)
def test_another_model_is_refused_before_a_rank_starts(
    tiny: list[str], first: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(load("train", [*tiny, f"run_dir={tmp_path / 'run'}", *(o.format(first=first) for o in options)]))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("data.drop=[position]", r"another schema: feature 'position' is only in the checkpoint; .*without run_from"),
        ("optim.tables.name=adagrad", r"another optimizer: .*item.momentum1 was \[1000\], is \[1000, 16\]"),
    ],
)
def test_another_schema_or_optimizer_is_refused_by_name(
    tiny: list[str], alone: Ranks, first: Path, tmp_path: Path, option: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        train(load("train", [*tiny, f"run_dir={tmp_path / 'run'}", f"run_from={first}", option]), alone)
    assert not (tmp_path / "run/checkpoints").exists()
