"""What a command line with several values asks for: the runs, and their directories."""

import pytest

from recd_dist.errors import ConfigError
from recd_dist.job.combinations import plan_sweep, split_values


def names(*overrides: str) -> list[str]:
    return [combination.name for combination in plan_sweep(overrides).combinations]


def test_every_value_with_every_other() -> None:
    sweep = plan_sweep(["data=tiny", "optim.dense.lr=0.01,0.02", "+seed=1,2"])
    assert sweep.fixed == ("data=tiny",)
    assert [(c.name, c.overrides) for c in sweep.combinations] == [
        ("lr=0.01_seed=1", ("optim.dense.lr=0.01", "+seed=1")),
        ("lr=0.01_seed=2", ("optim.dense.lr=0.01", "+seed=2")),
        ("lr=0.02_seed=1", ("optim.dense.lr=0.02", "+seed=1")),
        ("lr=0.02_seed=2", ("optim.dense.lr=0.02", "+seed=2")),
    ]
    assert sweep.combinations[1].shown == "lr=0.01 seed=2"


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("seed=1,2", ["1", "2"]),
        ("seed=1", ["1"]),
        ("model=dlrm, sequence", ["dlrm", "sequence"]),
        ("seed=range(1,4)", ["1", "2", "3"]),
        ("seed=range(3)", ["0", "1", "2"]),
        ("lr=range(0.1,0.5,0.2)", ["0.1", "0.3"]),
        ("seed=range(3,1,-1)", ["3", "2"]),
        ("batch_size=choice(256, 512)", ["256", "512"]),
        ("model.over=[64,32]", ["[64,32]"]),
        ("model.over=[64,32],[128]", ["[64,32]", "[128]"]),
        ("plan.tables={item: {type: RW, ranks: [0,1]}},{}", ["{item: {type: RW, ranks: [0,1]}}", "{}"]),
        ('data.path="a,b"', ['"a,b"']),
        ('data.path="a,b",c', ['"a,b"', "c"]),
        ("data.path=logs (1).parquet", ["logs (1).parquet"]),
    ],
)
def test_values(typed: str, values: list[str]) -> None:
    assert split_values(typed) == values


def test_names_of_directories() -> None:
    assert names("model.over=[64,32],[128]") == ["over=64~32", "over=128"]
    assert names("optim.dense.lr=1,2", "optim.tables.lr=3,4")[0] == "dense.lr=1_tables.lr=3"
    first, second = names("data.path=a/b,a?b")
    assert first.startswith("path=a~b-")
    assert first != second
    (long, _) = names(f"data.path={'x' * 300},y")
    assert len(long) < 120


def test_a_sample_of_the_combinations() -> None:
    whole = names("seed=range(0,10)", "batch_size=1,2,3")
    drawn = [c.name for c in plan_sweep(["seed=range(0,10)", "batch_size=1,2,3"], sample=5).combinations]
    assert len(set(drawn)) == 5
    assert set(drawn) < set(whole)
    assert drawn == [c.name for c in plan_sweep(["seed=range(0,10)", "batch_size=1,2,3"], sample=5).combinations]
    assert drawn != [c.name for c in plan_sweep(["seed=range(0,10)", "batch_size=1,2,3"], 5, 1).combinations]
    assert names("seed=1,2") == [c.name for c in plan_sweep(["seed=1,2"], sample=9).combinations]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=tiny"], "no option has several values, which stand between commas, as in `recd sweep data=tiny"),
        (["seed=1,1"], "seed=1,1: 1 stands there twice"),
        (["seed=1,2", "seed=3"], "seed: stands there twice; give all its values at once"),
        (["seed=1,,2"], "seed=1,,2: an element is empty"),
        (["model.over=[64,32"], "brackets are not in pairs; put a value with commas in quotes"),
        (["seed=range(1,x)"], "a range is written range(start, stop) or range(start, stop, step)"),
        (["seed=range(1,1)"], "that range has 0 values"),
        (["seed=range(0,9,0)"], "a range is written range(start, stop)"),
        (["lr=interval(0,1)"], "interval(...) is not there; write the values with commas, or as range(1, 4)"),
        (["seed=range(1,1001)", "batch_size=range(1,1001)"], "1,000,000 runs: at most 10,000 at a time; --sample"),
    ],
)
def test_what_cannot_be(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(overrides)
    assert message in str(caught.value)
