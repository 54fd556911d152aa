"""What a server refuses, and what a trainer refuses: one message that names the remedy."""

import subprocess
from dataclasses import replace

import pytest
from tests.reader.conftest import SCHEMA, TABLES, batches, ids_of, samples_of, write_table
from tests.reader.tier.conftest import remote

from recd_dist.errors import ConfigError
from recd_dist.reader.order import Shuffle
from recd_dist.reader.tier import messages
from recd_dist.reader.tier.messages import read_message, write_message, write_opening
from recd_dist.reader.tier.served_tables import ServedTables
from recd_dist.reader.tier.server_access import TOKEN_VARIABLE, ServerAccess, TrainerAccess
from recd_dist.reader.tier.server_address import Address
from recd_dist.reader.tier.server_connection import ServerConnection
from recd_dist.reader.transform import Transforms
from recd_dist.reader.worker import ReaderOptions
from recd_dist.table.clustered import ClusteredTable

SECRET = "a-token-of-more-than-twenty-letters"


@pytest.fixture
def token(tmp_path):
    file = tmp_path / "token"
    file.write_text(SECRET)
    file.chmod(0o600)
    return file


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of localhost, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    line = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem -addext"
    try:
        subprocess.run([*line.split(), names], cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    (folder / "key.pem").chmod(0o600)
    return folder / "cert.pem", folder / "key.pem"


def test_only_who_shows_the_token_gets_batches(serve, small, token, tmp_path, monkeypatch):
    service = serve(small.path, ServerAccess(token))
    assert len(ids_of(batches(small, servers=remote(service, token_file=token)))) == len(small.samples)
    with pytest.raises(ConfigError, match=r"refuses no token; give the server's own: reader\.token_file=FILE"):
        batches(small, servers=remote(service))
    monkeypatch.setenv(TOKEN_VARIABLE, "another-token-of-many-letters")
    with pytest.raises(ConfigError, match=f"refuses the token in {TOKEN_VARIABLE}"):
        batches(small, servers=remote(service))
    monkeypatch.setenv(TOKEN_VARIABLE, SECRET)
    assert len(ids_of(batches(small, servers=remote(service)))) == len(small.samples)
    other = tmp_path / "other"
    other.write_text("x" * 30)
    other.chmod(0o600)
    with pytest.raises(ConfigError, match=f"refuses the token in {other}"):
        batches(small, servers=remote(service, token_file=other))


def test_tls_is_checked_on_both_sides(serve, small, token, certificate, tmp_path):
    cert, key = certificate
    service = serve(small.path, ServerAccess(token, cert, key))
    assert service.address.tls
    found = batches(small, servers=remote(service, token_file=token, tls_ca=cert))
    assert len(ids_of(found)) == len(small.samples)
    with pytest.raises(ConfigError, match=r"not trusted by the system's certificates .*reader\.tls_ca=FILE"):
        batches(small, servers=remote(service, token_file=token))
    plain = replace(service.address, tls=False)
    with pytest.raises(ConfigError, match=r"speaks TLS; write grpc\+tls://127\.0\.0\.1"):
        batches(small, servers=remote(plain, token_file=token))
    without = serve(small.path)
    with pytest.raises(ConfigError, match=r"speaks no TLS; write grpc://127\.0\.0\.1"):
        batches(small, servers=remote(replace(without.address, tls=True), tls_ca=cert))


def test_beyond_loopback_a_server_wants_a_token(token, certificate, monkeypatch):
    beyond = Address("0.0.0.0", 0)
    with pytest.raises(ConfigError, match=r"anyone who reaches that address could read the tables; add --token-file"):
        ServerAccess().check(beyond)
    assert "can be read on the way" in ServerAccess(token).check(beyond)
    assert ServerAccess(token, *certificate).check(beyond) is None
    assert ServerAccess().check(Address("localhost", 0)) is None
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    with pytest.raises(ConfigError, match=f"{TOKEN_VARIABLE}: 5 characters"):
        ServerAccess().check(beyond)
    with pytest.raises(ConfigError, match="belongs to a certificate"):
        ServerAccess(token, None, certificate[1]).check(beyond)


def test_another_version_is_refused(serve, small, monkeypatch):
    service = serve(small.path)
    monkeypatch.setattr(messages, "PROTOCOL", 0)
    opening = write_opening(options_of(small), "a trainer", "none")
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"the trainer .*\(protocol 0\).*install it on both sides"):
        ask(service, "open", opening)


def test_another_table_is_refused(serve, small, tmp_path):
    manifest = write_table(tmp_path / "other", samples_of(20, seed=1))
    service = serve(tmp_path)
    with pytest.raises(ConfigError, match=r"table small/train has fingerprint .*other samples, or an older state"):
        batches(small, servers=remote(service))
    replace(manifest, name="unlike").save(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"the server has no table small/train, it has unlike/train; start it with"):
        batches(small, servers=remote(service))


def test_a_server_reads_no_vocabulary_but_below_its_folders(small, tmp_path):
    tables = ServedTables([small.path], [tmp_path / "words"])
    for file in (f"{small.path}/words.txt", f"{tmp_path}/words/colours.txt"):
        tables.require_file(file)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "link").symlink_to("/etc")
    for file in ("/etc/hostname", f"{small.path}/../x", f"{tmp_path}/words/link/hostname", "~/x"):
        with pytest.raises(ConfigError, match=r"the server reads below .* alone; start it with .* --vocabularies DIR"):
            tables.require_file(file)


def test_a_vocabulary_elsewhere_is_refused_before_it_is_read(serve, small):
    opening = write_opening(options_of(small), "a trainer", "none")
    for argument in ("/etc/hostname", {"file": "/etc/hostname"}):
        opening["transforms"] = {"candidate": [{"vocabulary": argument}]}
        with pytest.raises(ConfigError, match="vocabulary /etc/hostname: the server reads below"):
            ask(serve(small.path), "open", opening)


def test_a_table_that_comes_later_is_found(serve, small, tmp_path):
    write_table(tmp_path / "a", samples_of(20, seed=1))
    service = serve(tmp_path)
    (tmp_path / "b").symlink_to(small.path)
    assert len(ids_of(batches(small, servers=remote(service)))) == len(small.samples)


def test_a_server_needs_a_table_and_a_free_port(serve, small, tmp_path):
    with pytest.raises(ConfigError, match=r"no table here or below"):
        serve(tmp_path)
    service = serve(small.path)
    with pytest.raises(ConfigError, match=f"127.0.0.1:{service.port}: cannot be listened at"):
        serve(small.path, port=service.port)


def test_paths_in_an_opening_are_not_read(serve, small):
    """A trainer names a table by its fingerprint; what else it sends is refused or has no effect."""
    service = serve(small.path)
    opening = write_opening(options_of(small), "a trainer", "none")
    opening["table"]["path"] = "/etc"
    assert set(ask(service, "open", opening)) == {"session", "near"}
    opening["options"]["table"] = "/etc"
    with pytest.raises(ConfigError, match="could not answer"):
        ask(service, "open", opening)


@pytest.mark.parametrize(
    "task", [None, [0, [], 0], [0, [[0, 10**9]], 0], [0, [[5, 5]], 0], [-1, [[0, 5]], 0], [0, [["a", 5]], 0], "x"]
)
def test_tasks_that_cannot_be_are_refused(serve, small, task):
    service = serve(small.path)
    session = ask(service, "open", write_opening(options_of(small), "a trainer", "none"))["session"]
    found = []
    question = {"session": session, "tasks": [task], "following": [], "blocks": [None]}
    for asked in (question, question | {"tasks": [[0, [[0, 5]], 0]], "following": [task], "blocks": [None, None]}):
        with pytest.raises((TypeError, ValueError)):
            service._understand(asked, found)
    assert found == []


@pytest.mark.parametrize(
    "wrong", [{"tasks": []}, {"blocks": []}, {"tasks": [[0, [[0, 5]], 0]] * 65, "blocks": [None] * 65}]
)
def test_questions_that_cannot_be_are_refused(serve, small, wrong):
    service = serve(small.path)
    session = ask(service, "open", write_opening(options_of(small), "a trainer", "none"))["session"]
    question = {"session": session, "tasks": [[0, [[0, 5]], 0]], "following": [], "blocks": [None]}
    with pytest.raises(ValueError, match="tasks"):
        service._understand(question | wrong, [])


def test_messages_have_bounds():
    assert read_message(write_message({"a": [1, None]})) == {"a": [1, None]}
    with pytest.raises(ValueError, match="more than"):
        read_message(b" " * (messages.MAX_MESSAGE_BYTES + 1))
    with pytest.raises(ValueError, match="no JSON object"):
        read_message(b"[1]")
    with pytest.raises(ValueError, match="can't decode"):
        read_message(b"\x80\x04")  # as a pickle begins


def options_of(table):
    return ReaderOptions(ClusteredTable.load(table.path), SCHEMA, TABLES, Transforms({}), Shuffle(0, window_size=3))


def ask(service, action, message):
    return ServerConnection(service.address, TrainerAccess(), 10.0)._ask(action, write_message(message))
