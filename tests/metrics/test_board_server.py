"""Who may see the curves: this machine, or who shows the token."""

import io
import json
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path

import pytest
from tests.metrics.served import fetch_when_ready, free_port

from recd_dist.errors import ConfigError
from recd_dist.metrics.board_guard import Guard
from recd_dist.metrics.board_server import Access, serve, serve_until, server_command
from recd_dist.metrics.curves import CurveWriter

TOKEN = "a-token-of-thirty-characters-!"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    with CurveWriter(tmp_path / "run") as run:
        run.add_points(1, "quality", {"loss": 0.5})
    return tmp_path / "run"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost with its key, as the message of `recd board` makes them."""
    cert, key = (tmp_path_factory.mktemp("tls") / name for name in ("board.crt", "board.key"))
    line = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    try:
        subprocess.run([*line.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return cert, key


def test_beyond_loopback_it_wants_a_token_and_tls(
    run_dir: Path, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    command = server_command(run_dir, port=6007)
    assert command[-4:] == ["--host", "127.0.0.1", "--port", "6007"]
    assert "--token-file" not in command
    for host in ("localhost", "::1"):
        assert host in server_command(run_dir, host=host)
    token = tmp_path / "token"
    for host in ("0.0.0.0", "::", "10.0.0.1", "trainer.example"):
        with pytest.raises(ConfigError, match=r"no authentication.*ssh -L 6006:127\.0\.0\.1:6006.*--token-file FILE"):
            server_command(run_dir, host=host)
        with pytest.raises(ConfigError, match=r"without TLS .*--cert FILE --key FILE .*openssl req .*--no-tls"):
            server_command(run_dir, host=host, access=Access(token))
    assert not token.exists()
    assert "--cert" in server_command(run_dir, host="0.0.0.0", access=Access(token, *certificate))
    assert "--cert" not in server_command(run_dir, host="0.0.0.0", access=Access(token, no_tls=True))
    assert token.stat().st_mode & 0o777 == 0o600


def test_a_certificate_without_its_key_is_told_before_it_serves(
    run_dir: Path, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    for cert, key in ((certificate[0], None), (tmp_path / "none.crt", certificate[1])):
        with pytest.raises(ConfigError, match=r"--cert .*: no certificate with its private key .*openssl req"):
            server_command(run_dir, access=Access(cert=cert, key=key))
    with pytest.raises(ConfigError, match=r"--key .*: belongs to a certificate; add --cert FILE"):
        server_command(run_dir, access=Access(key=certificate[1]))
    open_to_all = tmp_path / "board.key"
    open_to_all.write_bytes(certificate[1].read_bytes())
    open_to_all.chmod(0o644)
    with pytest.raises(ConfigError, match=r"--key .*board\.key: everyone on this machine can read .*; chmod 600 /"):
        server_command(run_dir, access=Access(cert=certificate[0], key=open_to_all))


def test_a_board_that_waits_for_a_run_tells_a_bad_token_at_once(tmp_path: Path) -> None:
    (tmp_path / "token").touch(0o600)
    with pytest.raises(ConfigError, match="it is empty"):
        serve_until(tmp_path / "ended", tmp_path / "run", free_port(), access=Access(tmp_path / "token"))


# --- the guard --------------------------------------------------------------------------------------------------------


def ask(guard: Guard, method: str = "GET", body: bytes = b"", **headers: str) -> tuple[str, dict[str, str]]:
    """The status and the headers of an answer; TensorBoard's own is `200 OK`."""
    seen: list[tuple[str, dict[str, str]]] = []
    environ = {"REQUEST_METHOD": method, "PATH_INFO": "//evil.example/", "wsgi.input": io.BytesIO(body)}
    environ |= {"CONTENT_LENGTH": str(len(body))} | {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    list(guard(environ, lambda status, fields: seen.append((status, dict(fields)))))
    return seen[0]


def board(environ: dict, start) -> list[bytes]:
    start("200 OK", [])
    return [b"curves"]


@pytest.mark.parametrize(
    ("headers", "is_shown"),
    [
        ({}, False),
        ({"authorization": f"Bearer {TOKEN}"}, True),
        ({"authorization": f"bearer  {TOKEN}"}, True),
        ({"authorization": f"Bearer {TOKEN[:-1]}"}, False),
        ({"authorization": f"Basic {TOKEN}"}, False),
        ({"authorization": "Bearer "}, False),
        ({"authorization": "Bearer \xff"}, False),
        ({"cookie": f"recd_board={TOKEN}"}, False),  # the cookie is not the token
        ({"cookie": "recd_board="}, False),
        ({"cookie": "recd_board=\xff; \x00"}, False),
    ],
)
def test_who_shows_the_token_is_let_in(headers: dict[str, str], is_shown: bool) -> None:
    status, fields = ask(Guard(board, TOKEN, True), **headers)
    assert status == ("200 OK" if is_shown else "401 Unauthorized")
    assert is_shown or fields["WWW-Authenticate"] == "Bearer"


def test_the_form_gives_a_cookie_and_leads_nowhere_else() -> None:
    guard = Guard(board, TOKEN, True)
    assert ask(guard, "POST", b"token=wrong")[0] == "401 Unauthorized"
    assert ask(guard, "POST", b"\xff%00", content_length="nonsense")[0] == "401 Unauthorized"
    status, fields = ask(guard, "POST", f"token={urllib.parse.quote(TOKEN)}".encode())
    assert (status, fields["Location"]) == ("303 See Other", "/")
    cookie, *settings = fields["Set-Cookie"].split("; ")
    assert settings == ["HttpOnly", "SameSite=Strict", "Path=/", "Secure"]
    assert TOKEN not in cookie
    assert ask(guard, cookie=cookie)[0] == "200 OK"
    assert ask(Guard(board, TOKEN + "!", True), cookie=cookie)[0] == "401 Unauthorized"


@pytest.mark.parametrize(
    ("name", "is_shown"),
    [
        ("localhost:6006", True),
        ("127.0.0.1", True),
        ("[::1]:6006", True),
        ("[::1]", True),
        ("evil.example:6006", False),
    ],
)
def test_without_a_token_it_answers_to_its_own_name_alone(name: str, is_shown: bool) -> None:
    """Else a page from elsewhere could read it, once its name is made to point to this machine (DNS rebinding)."""
    assert ask(Guard(board, None, False), host=name)[0] == ("200 OK" if is_shown else "403 Forbidden")


# --- the server -------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(run_dir: Path, tmp_path: Path, certificate: tuple[Path, Path]) -> Iterator[tuple[int, ssl.SSLContext]]:
    """The port of a dashboard with token and TLS, and what a client trusts."""
    port = free_port()
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    command = server_command(run_dir, port, "127.0.0.1", Access(tmp_path / "token", *certificate))
    assert TOKEN not in command
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        said = ""
        while "Press CTRL+C" not in said:
            said += (line := server.stderr.readline())
            assert line, said
        assert f"https://127.0.0.1:{port}/" in said
        assert TOKEN not in said
        yield port, ssl.create_default_context(cafile=str(certificate[0]))
        server.terminate()


def test_a_browser_and_a_program_reach_the_curves_with_the_token(guarded: tuple[int, ssl.SSLContext]) -> None:
    port, trusted = guarded
    url = f"https://localhost:{port}/data/plugin/custom_scalars/layout"
    browser = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=trusted), urllib.request.HTTPCookieProcessor(CookieJar())
    )
    with (
        socket.create_connection(("127.0.0.1", port)),  # somebody who never begins to speak
        pytest.raises(urllib.error.HTTPError, match="401"),
    ):
        browser.open(url, timeout=20)
    with pytest.raises(OSError, match=r"closed|reset|bad|empty"):
        urllib.request.urlopen(f"http://localhost:{port}/", timeout=20)
    form = urllib.parse.urlencode({"token": TOKEN}).encode()
    assert b"<title>TensorBoard</title>" in browser.open(f"https://localhost:{port}/", form, timeout=20).read()
    assert browser.open(url, timeout=20).status == 200
    program = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    assert urllib.request.urlopen(program, timeout=20, context=trusted).status == 200


def test_the_served_dashboard_is_ready_and_ends_with_its_process(tmp_path: Path) -> None:
    with CurveWriter(tmp_path) as run:
        run.add_points(1, "quality", {"loss": 0.5})
    port = free_port()
    code = "import sys; from pathlib import Path; from recd_dist.metrics.board_server import serve; "
    code += "serve(Path(sys.argv[1]), int(sys.argv[2]))"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(port)], stderr=subprocess.DEVNULL) as server:
        layout = json.loads(fetch_when_ready(f"http://127.0.0.1:{port}/data/plugin/custom_scalars/layout"))
        server.terminate()
        server.wait(timeout=20)
    titles = [category["title"] for category in layout["category"]]
    first = ["quality", "day by day", "optimizers", "ids that come and go", "speed", "reader"]
    assert titles == [*first, "what deduplication saves", "memory", "alarms"]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_in_use_is_named_with_a_line_to_type(tmp_path: Path, host: str) -> None:
    with CurveWriter(tmp_path / "a run"):
        pass
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"--port {port}: in use, .*; choose another: recd board '/.*/a run' --"):
            serve(tmp_path / "a run", port, host)


def test_nothing_to_serve(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no TensorBoard files here"):
        server_command(tmp_path)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_cannot_be(tmp_path: Path, port: int) -> None:
    with pytest.raises(ConfigError, match=rf"^port {port}: must be from 1 to 65535$"):
        server_command(tmp_path, port)


def test_a_board_beside_a_job_begins_and_ends_with_it(tmp_path: Path) -> None:
    run, ended, port = tmp_path / "run", tmp_path / "ended", free_port()
    code = (
        "from pathlib import Path; from recd_dist.metrics.board_server import serve_until; "
        f"raise SystemExit(serve_until(Path({str(ended)!r}), Path({str(run)!r}), {port}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as board:
        with CurveWriter(run) as curves:
            curves.add_points(1, "quality", {"loss": 0.5})
        assert fetch_when_ready(f"http://127.0.0.1:{port}/data/plugin/custom_scalars/layout")
        ended.touch()
        assert board.wait(timeout=20) == 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
