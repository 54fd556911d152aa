"""A service asked over HTTP: scores, what is wrong with a request, health, metrics, and the page of its interface."""

import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.serve.fake_service import FakeService, request, service
from tests.serve.fake_worker import FAILS, SAMPLE

GOOD = request(5, 6)
LIMITS = ("limits.candidates=50", "limits.values=100", "limits.body_mib=0.02", "watch_s=null", "user_cache_mib=0.01")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeService]:
    with service(tmp_path_factory.mktemp("service"), *LIMITS) as running:
        yield running
        assert running.end() == 0


def test_a_request_is_scored(fake: FakeService) -> None:
    answer = fake.post("/v1/score", GOOD)

    assert answer.status_code == 200
    assert answer.json() == {
        "scores": {"click": [17.0, 18.0], "buy": [-17.0, -18.0]},
        "model": {"name": "fake", "step": 1, "version": "v1"},
    }


def without(name: str) -> dict[str, Any]:
    return {**GOOD, "candidates": {n: v for n, v in GOOD["candidates"].items() if n != name}}


def candidates(**columns: Any) -> dict[str, Any]:
    return {**GOOD, "candidates": {**GOOD["candidates"], **columns}}


def user(**features: Any) -> dict[str, Any]:
    return {**GOOD, "user": {**GOOD["user"], **features}}


BAD = {
    "unknown feature": (candidates(colour=[1, 2]), 422, "bad_request", "colour"),
    "missing feature": (without("price"), 422, "bad_request", "price"),
    "a list for a scalar": (candidates(item=[[5], [6]]), 422, "bad_request", "item"),
    "one value for all": (candidates(item=5), 422, "bad_request", "item"),
    "too few values": (candidates(price=[1.0]), 422, "bad_request", "price"),
    "several kinds": (candidates(item=[5, "six"]), 422, "bad_request", "item"),
    "an object": (user(region={"id": 3}), 422, "bad_request", "region"),
    "beyond 64 bits": (candidates(item=[2**63, 1]), 422, "bad_request", "item"),
    "a long list": (user(history=list(range(101))), 422, "bad_request", "history"),
    "no candidates": (candidates(item=[], price=[]), 422, "bad_request", None),
    "no feature of candidates": ({**GOOD, "candidates": {}}, 422, "bad_request", "item"),
    "too many candidates": (request(*range(51)), 422, "bad_request", None),
    "a misspelt field": ({**GOOD, "candidate": {}}, 422, "bad_request", None),
    "a list of candidates": ({**GOOD, "candidates": [1]}, 422, "bad_request", None),
    "no user": ({"candidates": GOOD["candidates"]}, 422, "bad_request", None),
    "a number as key": ({**GOOD, "user_key": 3}, 422, "bad_request", None),
    "not an object": ([1], 422, "bad_request", None),
    "a large body": (user(region="x" * 30000), 413, "too_large", None),
    "an unknown key": ({"user_key": "nobody", "candidates": GOOD["candidates"]}, 404, "user_unknown", None),
    "what cannot be scored": (request(FAILS), 500, "scoring_failed", None),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_and_the_service_goes_on(fake: FakeService, case: str) -> None:
    value, status, code, feature = BAD[case]

    answer = fake.post("/v1/score", value)

    said = answer.json()["error"]
    assert (answer.status_code, said["code"], said.get("feature")) == (status, code, feature), said
    assert "\n" not in said["message"]
    assert said["message"]
    assert fake.score(5).status_code == 200


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "no JSON"), ('{"candidates": {"item": [NaN]}}', "send null"), ("\xff", "no JSON"), ("", "no JSON")],
)
def test_what_is_no_json(fake: FakeService, text: str, said: str) -> None:
    answer = fake.post("/v1/score", content=text.encode("latin-1"))

    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_a_body_without_a_length_is_cut_off(fake: FakeService) -> None:
    answer = fake.post("/v1/score", content=(b"x" * 1000 for _ in range(1000)))

    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_a_client_that_sends_all_of_a_body_that_is_too_long_sees_the_answer(fake: FakeService) -> None:
    host, _, port = fake.url.removeprefix("http://").partition(":")
    head = f"POST /v1/score HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {9 << 20}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + b" " * (9 << 20))
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 413 ")


def test_a_client_that_hangs_up_is_counted_and_harms_nobody(fake: FakeService) -> None:
    before = fake.metric("recd_candidates_total")
    fake.hang_up(json.dumps(GOOD).encode(), 9999)

    assert fake.score(5).status_code == 200
    assert fake.metric("recd_candidates_total") == before + 1


def test_a_user_row_is_kept_by_key_and_version(fake: FakeService) -> None:
    key: dict[str, Any] = {"user_key": "u1", "user_version": 3}
    alone = {**key, "candidates": GOOD["candidates"]}

    assert fake.post("/v1/score", {**GOOD, **key}).status_code == 200
    assert fake.post("/v1/score", alone).json()["scores"]["click"] == [17.0, 18.0]
    other = fake.post("/v1/score", {**alone, "user_version": 4})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "user_other_version")
    assert fake.metric("recd_user_rows_total") >= 2
    assert fake.post("/v1/reload").status_code == 200  # another model may have other features
    assert fake.post("/v1/score", alone).status_code == 404


def test_addresses_methods_and_bodies_that_there_are_not(fake: FakeService) -> None:
    body = json.dumps(GOOD).encode()
    with fake.client() as client:
        for answer, status, code in (
            (client.get("/v1/nothing"), 404, "not_found"),
            (client.post("/v1/score/", json=GOOD), 404, "not_found"),
            (client.get("/v1/score"), 405, "not_allowed"),
            (
                client.post("/v1/score", content=gzip.compress(body), headers={"Content-Encoding": "gzip"}),
                415,
                "unsupported",
            ),
            (client.post("/v1/reload", json={"model": "\0"}), 422, "bad_request"),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert client.head("/health/ready").status_code == client.head("/health/live").status_code == 200
    with socket.create_connection(("127.0.0.1", int(fake.url.rpartition(":")[2]))) as old:  # without Host
        old.sendall(b"POST /v1/score HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert b" 200 " in old.recv(100)


def test_a_deadline_of_the_client_is_a_number_of_milliseconds(fake: FakeService) -> None:
    assert fake.score(5, headers={"X-Timeout-Ms": "5000"}).status_code == 200
    assert fake.score(5, headers={"X-Timeout-Ms": "soon"}).status_code == 422


def test_health_and_model(fake: FakeService) -> None:
    assert fake.get("/health/live").json() == {"live": True}
    assert fake.get("/health/ready").json()["model"]["step"] == 1
    told = fake.get("/v1/model").json()
    assert told["sample"] == SAMPLE == fake.get("/v1/sample").json()
    assert [feature["name"] for feature in told["candidate"]] == ["item", "price"]
    assert fake.post("/v1/score", told["sample"]).status_code == 200


def test_the_interface_is_described_with_the_features_of_the_model(fake: FakeService) -> None:
    described = fake.get("/openapi.json").json()
    schema = described["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    columns = schema["properties"]["candidates"]["properties"]

    assert columns["item"] == {"type": "array", "items": {"type": "integer", "format": "int64"}}
    assert columns["price"] == {"type": "array", "items": {"type": "number", "format": "float"}}
    assert schema["properties"]["user"]["properties"]["history"]["type"] == "array"
    assert schema["example"] == SAMPLE
    paths = {"/v1/score", "/v1/sample", "/v1/model", "/v1/reload", "/health/live", "/health/ready", "/metrics"}
    assert set(described["paths"]) == paths


def test_the_page_needs_no_network(fake: FakeService) -> None:
    page = fake.get("/docs").text

    assert "http://" not in page
    assert "https://" not in page
    assert fake.get("/swagger/swagger-ui-bundle.js").status_code == 200


def test_metrics_tell_of_batches_dedup_and_unknown_ids(fake: FakeService) -> None:
    before = fake.metric("recd_unknown_ids_total")
    fake.score(5, 2000, 3000)

    assert fake.metric("recd_unknown_ids_total") == before + 2
    assert fake.metric("recd_dedup_factor") == 3.0
    assert fake.metric("recd_model_step") == 1.0
    assert fake.metric("recd_workers_ready") == 1.0
    text = fake.get("/metrics").text
    for stage in ("total", "queue", "compute"):
        assert f'recd_request_seconds_bucket{{le="0.1",stage="{stage}"}}' in text
    assert 'recd_requests_total{protocol="http",status="422"}' in text
    assert "_created" not in text


def test_on_loopback_a_page_from_elsewhere_may_not_ask(fake: FakeService) -> None:
    for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}):
        assert fake.score(5, headers=headers).status_code == 403
        assert fake.post("/v1/reload", headers=headers).status_code == 403
    own = fake.url.removeprefix("http://")
    assert fake.score(5, headers={"origin": fake.url, "host": own}).status_code == 200
