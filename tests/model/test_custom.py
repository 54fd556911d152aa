"""A module of the user's own: what it gets follows from the names of its parameters, and what is wrong is one line."""

from pathlib import Path

import pytest
import torch
from tests.model.batches import assert_on_equals_off, heavy_tailed_inverse, random_batch, schema_of

from recd_dist.errors import ConfigError
from recd_dist.job import preflight
from recd_dist.model.models import build_named_model, sequence_features
from recd_dist.ranks.trusted_code import TRUSTED

SCHEMA = schema_of(user="u1:id u2:ids h:ids ud:dense", page="p1:id", sample="c:id d:dense")
MODULE = '''
import torch
from torch import nn

class Tower(nn.Module):
    """Knows nothing of the project."""
    def __init__(self, num_columns, num_dense, num_tasks, hidden=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(num_columns + num_dense, hidden), nn.Tanh(), nn.Linear(hidden, num_tasks))
    def forward(self, vectors, dense):
        return self.layers(torch.cat([vectors, dense], 1))

class OneLogit(nn.Linear):
    def __init__(self, num_columns):
        super().__init__(num_columns, 1)
    def forward(self, vectors):
        return super().forward(vectors).squeeze(1)

class Grouped(nn.Module):
    """Takes features by name, and a history as lists."""
    def __init__(self, dim, num_tasks):
        super().__init__()
        self.user, self.logit = nn.Linear(dim, dim), nn.Linear(2 * dim, num_tasks)
    def forward(self, features, histories):
        padded, mask = histories["h"].pad()
        seen = padded.sum(1)
        user = torch.tanh(self.user(features["u1"]))
        assert len(seen) == histories["h"].num_rows
        return self.logit(torch.cat([user * features["c"], features["p1"]], 1))

class Wide(Tower):
    def __init__(self, num_columns, num_dense):
        super().__init__(num_columns, num_dense, 7)

class Text(nn.Module):
    def forward(self, vectors):
        return "logits"

class Wrong(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
    def forward(self, vectors):
        return self.layer(vectors)

class Unused(Tower):
    def __init__(self, num_columns, num_dense):
        super().__init__(num_columns, num_dense, 1)
        self.spare = nn.Linear(2, 2)

class Fixed(nn.Module):
    def forward(self, vectors):
        return torch.zeros(len(vectors), 1)

class Asks(nn.Module):
    def forward(self, vectors, weights):
        return vectors

class Needs(nn.Module):
    def __init__(self, units):
        super().__init__()

def function():
    pass
'''


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that is trusted, with a name of its own for each test."""
    name = f"mine_{tmp_path.name}".replace("-", "_")
    (tmp_path / name).mkdir()
    (tmp_path / name / "towers.py").write_text(MODULE)
    (tmp_path / name / "broken.py").write_text("import torch\nraise RuntimeError('no luck')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setenv(TRUSTED, f"other, {name}")
    return name


@pytest.mark.parametrize("inputs", ["expanded", "shared"])
def test_a_module_that_knows_nothing_of_groups(package: str, inputs: str) -> None:
    generator = torch.Generator().manual_seed(0)
    inverses = {g: heavy_tailed_inverse(60, generator) for g in SCHEMA.dedup_groups}
    options = {"class": f"{package}.towers.Tower", "inputs": inputs, "options": {"hidden": 5}}
    torch.manual_seed(0)
    model = build_named_model("custom", SCHEMA, 4, num_tasks=2, **options).double()

    assert_on_equals_off(model, SCHEMA, *random_batch(SCHEMA, inverses, 60, 4))
    assert model.module.layers[0].in_features == 5 * 4 + 2
    assert model.module.layers[0].out_features == 5


@pytest.mark.parametrize("inputs", ["expanded", "shared"])
def test_features_by_name_and_histories(package: str, inputs: str) -> None:
    options = {"class": f"{package}.towers.Grouped", "inputs": inputs, "histories": ["h"]}
    model = build_named_model("custom", SCHEMA, 4, num_tasks=3, **options)

    assert sequence_features("custom", SCHEMA, options) == ("h",)
    model.probe(SCHEMA)


def test_one_logit_may_come_without_a_column(package: str) -> None:
    build_named_model("custom", SCHEMA, 4, **{"class": f"{package}.towers.OneLogit"}).probe(SCHEMA)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("towers.Wide", {}, "its output has shape [6, 7], wanted [6, 1]: a row of 1 logits for each of 6 samples"),
        ("towers.Text", {}, "its output has a str, wanted [6, 1]"),
        ("towers.Wrong", {}, "its forward fails with RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("towers.Unused", {}, "its output does not depend on the parameter 'spare.weight'"),
        ("towers.Fixed", {}, "its output does not depend on anything that is trained"),
        ("towers.Asks", {}, "its forward takes 'weights', of which nothing is known; there are: "),
        ("towers.Needs", {}, "its constructor needs 'units'; set model.options.units=..., or call it one of schema"),
        ("towers.Tower", {"options": {"hiden": 3}}, "model.options.hiden: "),
        ("towers.Tower", {"inputs": "shard"}, "model.inputs is 'shard'; did you mean 'shared'?"),
        ("towers.Tower", {"histories": ["c"]}, "model.histories: 'c' is no list of ids"),
        ("towers.function", {}, ".towers has no nn.Module 'function'"),
        ("towers.Twoer", {}, ".towers has no nn.Module 'Twoer'"),
        ("towrs.Tower", {}, "there is no module '"),
        ("broken.Tower", {}, "fails with RuntimeError: no luck (broken.py:2)"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(package: str, name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_named_model("custom", SCHEMA, 4, **{"class": f"{package}.{name}", **options}).probe(SCHEMA)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["os.system", "torch.nn.Linear", "recd_dist.cli.main"])
def test_code_of_packages_that_nobody_trusts_is_not_imported(path: str) -> None:
    package = path.partition(".")[0]
    with pytest.raises(ConfigError, match=rf"start the job with {TRUSTED}={package} in its environment"):
        build_named_model("custom", SCHEMA, 4, **{"class": path})


@pytest.mark.parametrize("path", ["", "Tower", "my-package.Tower", "mine.towers.", "a b.c"])
def test_a_path_that_is_none(path: str) -> None:
    with pytest.raises(ConfigError, match=r"names no class; write model\.class="):
        build_named_model("custom", SCHEMA, 4, **{"class": path})


def test_the_check_before_a_job_tries_the_module(
    package: str, tiny: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = [*tiny, "model=custom", f"run_dir={tmp_path / 'run'}"]

    assert preflight.main([*job, f"model.class={package}.towers.Wide"]) == 2
    told = f"recd: error: model.class={package}.towers.Wide: its output has shape [6, 7], wanted [6, 1]"
    assert capfd.readouterr().err.startswith(told)
    assert preflight.main([*job, f"model.class={package}.towers.Tower", "model.options.hidden=3"]) == 0
    assert capfd.readouterr().err == ""
