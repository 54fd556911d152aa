"""Files with a token or a key: who may read them, and what they may hold."""

import os
from pathlib import Path

import pytest

from recd_dist.errors import ConfigError
from recd_dist.metrics.board_secrets import read_token

TOKEN = "a-token-of-thirty-characters-!"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


def test_a_token_that_is_not_there_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(ConfigError, match=r"--token-file .*: No such file"):
        read_token(file)
    made = read_token(file, make=True)
    assert (len(made), read_token(file, make=True), file.stat().st_mode & 0o777) == (43, made, 0o600)


@pytest.mark.parametrize("text", [TOKEN, f"{TOKEN}\n", f"  {TOKEN}\r\n", f"\n{TOKEN}\n\n"])
def test_white_space_around_a_token_is_none_of_it(file: Path, text: str) -> None:
    file.write_bytes(text.encode())
    assert read_token(file) == TOKEN


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty; to make one: openssl rand -hex 32"),
        (b" \n\n", "it is empty"),
        (b"short\n", "5 characters, a token has at least 20; to make one: openssl rand"),
        (f"{TOKEN}\n{TOKEN}\n".encode(), "2 lines, a token is one line"),
        (f"token: {TOKEN}\nuser: me\n# mine".encode(), "3 lines, a token is one line"),
        ("\ufeffa-token-of-thirty-characters-!".encode(), "letters, digits and signs of ASCII"),
        ("t\u00f6ken-of-twenty-characters".encode(), "letters, digits and signs of ASCII"),
        (TOKEN.encode() + b"\0" + TOKEN.encode(), "letters, digits and signs of ASCII"),
        (b"\xff" * 40, "no text"),
    ],
)
def test_what_is_no_token_is_told(file: Path, data: bytes, message: str) -> None:
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=message) as refused:
        read_token(file, make=True)
    assert TOKEN not in str(refused.value)
    assert file.read_bytes() == data


@pytest.mark.parametrize(
    ("mode", "owner", "user", "message"),
    [
        (0o600, "mine", 1000, ""),
        (0o400, "mine", 1000, ""),
        (0o640, "mine", 1000, "its group can read it; chmod 600 /"),
        (0o640, "mine", 0, ""),
        (0o440, "root's", 1000, ""),  # a Secret of Kubernetes, by fsGroup
        (
            0o644,
            "root's",
            1000,
            "everyone on this machine .*, or for a Secret of Kubernetes fsGroup and defaultMode: 0400",
        ),
        (0o460, "root's", 1000, "its group can change it"),
        (0o604, "mine", 0, "everyone on this machine can read or change it"),
        (0o602, "mine", 1000, "everyone on this machine can read or change it"),
    ],
)
def test_who_may_read_a_token(
    file: Path, monkeypatch: pytest.MonkeyPatch, mode: int, owner: str, user: int, message: str
) -> None:
    file.chmod(mode)
    status = file.stat()
    seen = os.stat_result((*status[:4], user if owner == "mine" else 0, *status[5:]))
    monkeypatch.setattr(Path, "stat", lambda self, **_: seen)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    if message:
        with pytest.raises(ConfigError, match=f"--token-file .*: {message}"):
            read_token(file)
    else:
        assert read_token(file) == TOKEN


def test_links_are_followed_as_kubernetes_makes_them(tmp_path: Path) -> None:
    """``token`` -> ``..data/token``, ``..data`` -> ``..2026_11_29``; the mode is that of the file at their end."""
    (tmp_path / "..2026_11_29").mkdir()
    (tmp_path / "..2026_11_29" / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "..data").symlink_to("..2026_11_29")
    (tmp_path / "token").symlink_to("..data/token")
    (tmp_path / "token").chmod(0o400)
    assert read_token(tmp_path / "token", make=True) == TOKEN
    (tmp_path / "token").chmod(0o444)
    with pytest.raises(ConfigError, match="everyone on this machine"):
        read_token(tmp_path / "token", make=True)


def test_a_pipe_and_a_directory_are_no_token_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ConfigError, match="no plain file; a pipe cannot be read twice"):
            read_token(path)
