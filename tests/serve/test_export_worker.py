"""A service of a real export: scores are those of the export, over HTTP and over Flight, and bad values are refused."""

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import flight
from tests.serve.fake_service import FakeService, service

from recd_dist.serve import service_run
from recd_dist.serve.client import ScoringClient

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture(scope="module")
def export(exported: Any) -> Path:
    return Path(exported("model=transformer"))


@pytest.fixture(scope="module")
def real(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeService]:
    folder = tmp_path_factory.mktemp("real")
    arguments = ("--flight", "127.0.0.1:0", "watch_s=null", "spare=false", "threads=1")
    with service(folder, *arguments, model=export, command=service_run.WORKER) as running:
        yield running


@pytest.fixture
def sample(export: Path) -> dict[str, Any]:
    """The export's own request with its scores."""
    told: dict[str, Any] = json.loads((export / "sample_request.json").read_text())
    return told


def test_scores_are_those_of_the_export(real: FakeService, sample: dict[str, Any]) -> None:
    with ScoringClient(real.url) as client:
        found = client.score(sample["request"]["user"], sample["request"]["candidates"])

    np.testing.assert_allclose(found["label"], sample["scores"]["label"], atol=1e-6)
    assert real.get("/v1/model").json()["sample"] == sample["request"]


def test_a_flat_batch_of_flight_has_the_same(real: FakeService, sample: dict[str, Any]) -> None:
    user, candidates = sample["request"]["user"], sample["request"]["candidates"]
    num = len(sample["scores"]["label"])
    flat = pa.RecordBatch.from_pydict({**{name: [value] * num for name, value in user.items()}, **candidates})
    with flight.FlightClient(real.flight) as client:
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(b"score"))
        with writer:
            writer.begin(flat.schema)
            writer.write_batch(flat)
            writer.done_writing()
            found = reader.read_chunk().data

    np.testing.assert_allclose(found["label"], sample["scores"]["label"], atol=1e-6)


@pytest.mark.parametrize(
    ("part", "feature", "value"),
    [
        ("user", "regoin", 3),
        ("user", "region", [1, 2]),
        ("user", "region", "somewhere"),
        ("user", "history_item", 7),
        ("candidates", "candidate_item", [10**9]),
        ("candidates", "price", ["cheap"]),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    real: FakeService, sample: dict[str, Any], part: str, feature: str, value: Any
) -> None:
    request = copy.deepcopy(sample["request"])
    num = len(sample["scores"]["label"])
    request[part][feature] = value * num if part == "candidates" else value

    answer = real.post("/v1/score", request)

    assert (answer.status_code, answer.json()["error"]["feature"]) == (422, feature)
    assert real.post("/v1/score", sample["request"]).status_code == 200


def test_metrics_tell_what_was_computed_once(real: FakeService, sample: dict[str, Any]) -> None:
    real.post("/v1/score", sample["request"])

    num = len(sample["scores"]["label"])
    assert f'recd_dedup_factor{{group="history"}} {num}.0' in real.get("/metrics").text


def test_what_answers_clients_loads_no_torch() -> None:
    code = "import sys, recd_dist.serve.service_run, recd_dist.serve.flight_scoring; assert 'torch' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
