"""An export scores requests as the run scores samples, whatever the model, the rows' precision and the batch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recd_dist.exported.exported_model import ExportedModel
from recd_dist.exported.request_schema import RequestError

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]

MODELS = {
    "dlrm": (),
    "dcn_v2": (),
    "deepfm": (),
    "din": (),
    "hstu": (),
    "mmoe": (),
    "ple": (),
    "transformer": (),
    "two_tower": (),
    "wide_deep": (),
}


def sample_request(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "sample_request.json").read_text())


@pytest.mark.parametrize("model", MODELS)
def test_every_model_scores_as_its_run(model: str, exported: Any) -> None:
    directory = exported(f"model={model}")
    facts = json.loads((directory / "export.json").read_text())["metrics"]
    assert facts["checked_samples"] >= 100
    assert facts["largest_difference"] <= facts["tolerance"] == 1e-4

    given, scorer = sample_request(directory), ExportedModel.load(directory)
    (scores,) = scorer.score([scorer.read(**given["request"])])
    wanted = np.array(list(given["scores"].values()), np.float32).T
    np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-6)
    assert scores.std() > 0


@pytest.mark.parametrize("rows", ["fp16", "int8"])
def test_rounded_rows_score_nearly_the_same_in_fewer_bytes(rows: str, exported: Any) -> None:
    whole, rounded = exported("model=transformer"), exported("model=transformer", rows=rows)
    given = sample_request(whole)
    one, other = (
        scorer.score([scorer.read(**given["request"])])[0] for scorer in map(ExportedModel.load, (whole, rounded))
    )
    assert 0 < np.abs(one - other).max() < {"fp16": 1e-3, "int8": 0.02}[rows]
    size, smaller = ((directory / "tables.safetensors").stat().st_size for directory in (whole, rounded))
    assert smaller < {"fp16": 0.55, "int8": 0.35}[rows] * size


def test_requests_score_alike_alone_together_and_expanded(exported: Any) -> None:
    directory = exported("model=transformer")
    given, scorer = sample_request(directory)["request"], ExportedModel.load(directory)
    other = {**given, "user": {**given["user"], "history_item": [1, 2], "history_category": [1, 0]}}
    single = {**given, "candidates": {name: values[:1] for name, values in given["candidates"].items()}}
    empty = {**given, "user": {**given["user"], "history_item": [], "history_category": []}}
    requests = [scorer.read(**r) for r in (given, other, given, single, empty)]
    alone = [scorer.score([r])[0] for r in requests]
    batch = scorer.batch(requests)
    assert batch.sparse.num_rows("history") == 3  # of five requests
    for way in (scorer.score(requests), scorer.score(requests, dedup=False)):
        for wanted, found in zip(alone, way, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 1e-6


def test_it_loads_without_torchrec_and_the_trainer(exported: Any) -> None:
    directory = exported("model=transformer")
    code = (
        "import sys\n"
        "for name in ('torchrec', 'fbgemm_gpu', 'hydra', 'torchx', 'tensorboard'): sys.modules[name] = None\n"
        "import json\n"
        "from recd_dist.exported.exported_model import ExportedModel\n"
        f"model = ExportedModel.load({str(directory)!r})\n"
        f"given = json.load(open({str(directory / 'sample_request.json')!r}))\n"
        "print(model.score([model.read(**given['request'])])[0][:, 0].tolist() == given['scores']['label'])\n"
        "print([name for name in sys.modules if name.startswith(('recd_dist.train', 'recd_dist.job'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split("\n")[:2] == ["True", "[]"], done.stderr


BAD = {
    "unknown feature": ({"user": {"hobby": 1}}, "feature 'hobby': unknown among those of 'user'"),
    "unknown candidate feature": ({"candidates": {"prices": [1]}}, "did you mean 'price'"),
    "missing feature": ({"user": {"region": None}}, "'region'"),
    "list where one is wanted": ({"user": {"region": np.array([3])}}, "'region': each row must be one id, found [[3]]"),
    "column of lists": ({"candidates": {"price": pa.array([[1], [2]])}}, "must be one number, found [[1], [2]]"),
    "one where a list is wanted": ({"user": {"history_item": 3}}, "feature 'history_item': each row must be a list"),
    "text where a number is wanted": (
        {"candidates": {"price": ["a"] * 2}},
        "feature 'price': each row must be one num",
    ),
    "fraction where an id is wanted": ({"user": {"region": 1.5}}, "feature 'region': each row must be one id"),
    "truth where an id is wanted": ({"user": {"region": True}}, "feature 'region': each row must be one id"),
    "id beyond its table": ({"user": {"history_item": [10**6]}}, "feature 'history_item': id 1000000 is none of the"),
    "negative id": ({"candidates": {"candidate_item": [-1, 2]}}, "feature 'candidate_item': id -1 is none of the"),
    "not a number": ({"candidates": {"price": [float("nan"), 1.0]}}, "feature 'price': row 0 is nan"),
    "fewer values than candidates": ({"candidates": {"price": [1.0]}}, "feature 'price': 1 values for 2 candidates"),
    "one value for all": ({"candidates": {"price": 1.0}}, "feature 'price': one value for all"),
    "lists that are not aligned": ({"user": {"history_item": [1, 2, 3]}}, "history_item"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_by_the_name_of_the_feature(name: str, exported: Any) -> None:
    directory = exported(
        "model=transformer", "model.beside={history_item: [history_category]}", "model.histories=[history_item]"
    )
    given, scorer = sample_request(directory)["request"], ExportedModel.load(directory)
    given["candidates"] = {key: values[:2] for key, values in given["candidates"].items()}
    changes, message = BAD[name]
    for part, values in changes.items():
        given[part] = {**given[part], **values}
    with pytest.raises(RequestError) as error:
        scorer.score([scorer.read(**given)])
    assert message in str(error.value)


def test_a_request_needs_all_features_and_a_candidate(exported: Any) -> None:
    directory = exported("model=transformer")
    given, scorer = sample_request(directory)["request"], ExportedModel.load(directory)
    without = {name: value for name, value in given["user"].items() if name != "region"}
    with pytest.raises(RequestError, match="feature 'region': missing in 'user'; give an id"):
        scorer.read(without, given["candidates"])
    with pytest.raises(RequestError, match="give at least one"):
        scorer.read(given["user"], {name: [] for name in given["candidates"]})


def test_missing_numbers_and_ids_in_lists_are_filled_as_by_the_etl(exported: Any) -> None:
    directory = exported("model=dlrm")
    given, scorer = sample_request(directory)["request"], ExportedModel.load(directory)
    size = len(given["candidates"]["price"])
    lacks = {
        "user": {**given["user"], "history_item": [1, None, 2], "history_category": None},
        "candidates": {**given["candidates"], "price": [None] * size},
    }
    filled = {
        "user": {**given["user"], "history_item": [1, 2], "history_category": []},
        "candidates": {**given["candidates"], "price": [0.0] * size},
    }
    one, other = scorer.score([scorer.read(**lacks), scorer.read(**filled)])
    np.testing.assert_array_equal(one, other)
