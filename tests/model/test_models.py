"""Models are built by name, with their options checked."""

import pytest
import torch
from tests.model.batches import random_batch, schema_of

from recd_dist.errors import ConfigError
from recd_dist.model.dlrm import DLRM
from recd_dist.model.models import MODELS, build_named_model, sequence_features
from recd_dist.model.transformer import Transformer

SCHEMA = schema_of(user="h:ids:item", sample="c:id:item")


def test_by_name() -> None:
    assert isinstance(build_named_model("dlrm", SCHEMA, 4, over=[8]), DLRM)
    assert isinstance(build_named_model("sequence", SCHEMA, 4, heads=1), Transformer)


def test_sequence_features() -> None:
    assert sequence_features("dlrm", SCHEMA) == ()
    assert sequence_features("sequence", SCHEMA) == ("h",)


@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"custom"}))
def test_every_model_gives_a_logit_for_each_task(name: str, num_tasks: int) -> None:
    names = sequence_features(name, SCHEMA)
    embedded, dense, _ = random_batch(SCHEMA, {"user": torch.tensor([0, 0, 1])}, 3, 4, names)
    model = build_named_model(name, SCHEMA, 4, num_tasks=num_tasks).double()
    assert model(embedded, dense).shape == (3, num_tasks)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dlmr", {}, r"model.name is 'dlmr'; did you mean 'dlrm'\?"),
        ("dlrm", {"dropuot": 0.1}, r"model.dropuot: model 'dlrm' has no such option; did you mean 'dropout'\?"),
        ("dlrm", {"heads": 2}, r"model.heads: model 'dlrm' has no such option; there are: batch_norm, bottom, dr"),
    ],
)
def test_mistakes(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_named_model(name, SCHEMA, 4, **options)


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"custom"}))
def test_every_parameter_is_a_function_of_the_seed(name: str) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_named_model(name, SCHEMA, 4).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
