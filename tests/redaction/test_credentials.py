"""Which texts hold a credential, and what people see in its place."""

import logging
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.errors import ConfigError
from recd_dist.redaction.credentials import find_credential, redact, screen_handler

SECRET = "hunter2/+x9"


@pytest.mark.parametrize(
    ("text", "shown", "what"),
    [
        ("s3://AKIA:pa55@bucket/x", "s3://***@bucket/x", "a user and password in an address"),
        ("postgresql://me:p@ss@db:5432/x", "postgresql://***@db:5432/x", "a user and password in an address"),
        ("https://ghp_123@host/x", "https://***@host/x", "a user and password in an address"),
        ("read_csv('ftp://u:p@h/x.csv')", "read_csv('ftp://***@h/x.csv')", "a user and password in an address"),
        (
            "https://b.s3.x/y.parquet?X-Amz-Credential=AK%2F1&X-Amz-Date=1&X-Amz-Signature=0c1f",
            "https://b.s3.x/y.parquet?X-Amz-Credential=***&X-Amz-Date=1&X-Amz-Signature=***",
            "a signature or token in an address",
        ),
        (
            "https://a.blob/x?sv=2024&sig=a%2Bb%3D#1",
            "https://a.blob/x?sv=2024&sig=***#1",
            "a signature or token in an address",
        ),
        ("s3://b/x?s3_secret_access_key=q", "s3://b/x?s3_secret_access_key=***", "a signature or token in an address"),
        ("'host=db password=p'", "'host=db password=***'", "a password"),
        ("AccountName=x;AccountKey=abc==;y", "AccountName=x;AccountKey=***;y", "a password"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----!", "***!", "a private key"),
    ],
)
def test_credentials_are_found_and_hidden(text: str, shown: str, what: str) -> None:
    assert (redact(text), find_credential(text)) == (shown, what)
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a:b@c/x.parquet",
        "hdfs://namenode:8020/logs",
        "sftp://me@host/x",
        "http://minio.example:9000/x?versionId=3",
        "select a.secret, b.token from x a join y b on a.secret = b.secret where token = 'x'",
        "password_length",
        "keys.session=visit",
        "see https://example.com/?page=2 and me@example.com",
    ],
)
def test_plain_texts_hold_none(text: str) -> None:
    assert find_credential(text) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "{'key': 'x', 'secret': 'abc', \"client_secret\": \"d\"}",
            "{'key': 'x', 'secret': '***', \"client_secret\": \"***\"}",
        ),
        ("Authorization: Bearer eyJ.a.b refused", "Authorization: Bearer *** refused"),
        ("password: p; user: u", "password: ***; user: u"),
        ("password: hunter user: bob", "password: *** user: bob"),
        ("password: hunter\nuser: bob", "password: ***\nuser: bob"),
        ("api_key: Zx81qq refused", "api_key: *** refused"),
        ("password: QwErTy refused", "password: *** refused"),
        ("password: sunshine", "password: ***"),
        ("password:  sunshine", "password:  ***"),
        ("password:\tsunshine\n", "password:\t***\n"),
        ("'password':'sunshine'", "'password':'***'"),
        ("password: sunshine, user: me", "password: ***, user: me"),
        ("password='sunshine in may'", "password='*** in may'"),
        ("password = sunshine refused", "password = *** refused"),
        ('{"password": sunshine}', '{"password": ***}'),
        ("DB_PASSWORD:sunshine", "DB_PASSWORD:***"),
        ("'secret': \"sunshine in may\"", "'secret': \"*** in may\""),
        ("/etc/secret:sunshine", "/etc/secret:***"),
    ],
)
def test_what_libraries_say_is_hidden_too(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "/etc/passwd: Permission denied",
        "/etc/passwd: denied",
        "passwd: Authentication token manipulation error",
        "passwd: can't be read",
        "column passwd: expected 3 values, found 2",
        "feature 'passwd': unknown; did you mean 'password'?",
        "feature 'secret': its transforms make dense numbers",
        'column "api_key": nothing. Leave it out',
        "data.keys.secret: no such column",
        "password: required",
        "token file, password: None",
    ],
)
def test_words_of_messages_stay(text: str) -> None:
    assert redact(text) == text


def test_values_of_secret_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "unrelated")
    monkeypatch.setenv("DB_PASSWORD", "true")
    monkeypatch.setenv("GOOGLE_API_KEY", "/etc/keys/google.json")
    text = f"unrelated, true, /etc/keys/google.json, {SECRET}"
    assert redact(text) == "unrelated, true, /etc/keys/google.json, ***"
    assert find_credential(text) == "the value of the environment variable AWS_SECRET_ACCESS_KEY"


@given(st.text())
def test_any_text_can_be_looked_at(text: str) -> None:
    assert redact(redact(text)) == redact(text)


def test_errors_and_logs_show_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert str(ConfigError("s3://a:b@c: no such bucket")) == "s3://***@c: no such bucket"
    record = logging.LogRecord("x", logging.INFO, "", 1, "reading %s", ("s3://a:b@c",), None)
    assert screen_handler().format(record) == "recd: reading s3://***@c"


def test_a_traceback_shows_none() -> None:
    code = (
        "import sys; from recd_dist.redaction.credentials import show_traceback; sys.excepthook = show_traceback\n"
        "raise OSError('s3://a:b' + '@c: refused')"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 1
    assert shown.stderr.splitlines()[-1] == "OSError: s3://***@c: refused"
