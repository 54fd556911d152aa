"""Who may ask: a token, TLS, and no page of a browser that is from elsewhere."""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pyarrow import flight
from tests.serve.fake_service import FakeService, request, service

from recd_dist.cli import main
from recd_dist.serve.access_guard import is_loopback_name

TOKEN = "a-token-of-thirty-characters-x"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeService]:
    """A service that listens beyond loopback, with a token and TLS."""
    folder = tmp_path_factory.mktemp("guarded")
    cert, key = folder / "serve.crt", folder / "serve.key"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(cert),
        *subject,
    ]
    subprocess.run(words, check=True, capture_output=True)
    key.chmod(0o600)
    arguments = ["--listen", "0.0.0.0:0", "--flight", "0.0.0.0:0", "--cert", str(cert), "--key", str(key)]
    with service(folder, *arguments, "watch_s=null", env={"RECD_SERVE_TOKEN": TOKEN}) as running:
        yield running


def client(guarded: FakeService, token: str | None) -> httpx.Client:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    port = guarded.url.rpartition(":")[2]
    verify = ssl.create_default_context(cafile=guarded.model.parent / "serve.crt")
    return httpx.Client(base_url=f"https://localhost:{port}", headers=headers, verify=verify, timeout=30)


@pytest.mark.parametrize("token", [None, "x", "wrong", TOKEN[:-1], f"{TOKEN}x"])
def test_without_the_token_there_is_no_answer(guarded: FakeService, token: str | None) -> None:
    with client(guarded, token) as asking:
        for path in ("/v1/model", "/metrics", "/openapi.json"):
            answer = asking.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/v1/score", "/v1/reload"):
            assert asking.post(path, json=request(5)).status_code == 401
        assert asking.get("/health/live").status_code == 200
        assert asking.get("/docs").status_code == 200


def test_with_the_token_there_is(guarded: FakeService) -> None:
    with client(guarded, TOKEN) as asking:
        assert asking.post("/v1/score", json=request(5)).json()["scores"]["click"] == [17.0]
        assert asking.get("/openapi.json").json()["security"] == [{"token": []}]
    assert TOKEN not in guarded.log.read_text()


def test_flight_wants_the_same_token(guarded: FakeService) -> None:
    root = (guarded.model.parent / "serve.crt").read_bytes()
    where = f"grpc+tls://localhost:{guarded.flight.rpartition(':')[2]}"
    with flight.FlightClient(where, tls_root_certs=root) as asking:
        with pytest.raises(flight.FlightUnauthenticatedError, match="token"):
            list(asking.do_action("model"))
        options = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {TOKEN}".encode())])
        assert list(asking.do_action("model", options))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--listen", "0.0.0.0:0"], "anyone who reaches that address could ask the model; add --token-file"),
        (["--flight", "0.0.0.0:0"], "could ask the model"),
        (["--listen", "nowhere"], "is no address"),
        (["--key", "serve.key"], "belongs to a certificate"),
        (["workers=0"], "workers=0: must be more than 0"),
        (["limits.queue=-1"], "limits.queue=-1: must be more than 0"),
        (["batch.size=3"], "unknown option 'batch.size'"),
    ],
)
def test_what_is_refused_before_a_model_is_loaded(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "model=nowhere", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [("localhost", True), ("127.0.0.1:80", True), ("[::1]:80", True), ("LocalHost:1", True), ("", False),
     ("127.0.0.1.evil.example", False), ("10.0.0.1", False), ("localhost.evil.example:80", False)],
)  # fmt: skip
def test_names_of_loopback(host: str, is_ours: bool) -> None:
    assert is_loopback_name(host) == is_ours


def test_a_port_that_is_taken_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "model=nowhere", "--listen", f"127.0.0.1:{port}"]) == 2
    assert "choose another port, or 0 for any" in capsys.readouterr().err


def test_a_model_that_is_none_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", f"model={tmp_path}", "--listen", "127.0.0.1:0", "spare=false"]) == 2
    assert "no exported model" in capsys.readouterr().err
