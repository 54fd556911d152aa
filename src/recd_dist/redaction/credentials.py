"""Credentials in text: found where a config would keep them, and hidden wherever text is shown.

::

    s3://KEY:SECRET@bucket/x                     ->  s3://***@bucket/x
    https://host/x?X-Amz-Signature=0c1f          ->  https://host/x?X-Amz-Signature=***
    postgres_scan('host=db password=hunter2')    ->  postgres_scan('host=db password=***')
    what $AWS_SECRET_ACCESS_KEY holds            ->  ***

What a text means is not known here, so that these rules are about forms. They are the second line: the first is that a
config may hold no credential at all (``job/config.py``).
"""

import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType

HIDDEN = "***"
"""What stands in the place of a credential."""

_SECRET_NAME = re.compile(
    r"(^|_)(SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_?KEY|ACCOUNT_?KEY|PRIVATE_?KEY|SAS)(_|$)",
    re.IGNORECASE,
)
"""Environment variables whose value is a credential by their name."""

_MIN_VALUE_LENGTH = 8
"""Characters; shorter values of such variables, such as ``true``, stand in texts by chance."""

_WORD = (
    r"(?:[a-z0-9]+_)*?(?:password|passwd|passphrase|secret|secret_?key|secret_?access_?key|access_?token|session_?token|"
    r"api_?key|account_?key|sas_?token|private_?key)"
)
_PARAMETER = (
    r"x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig|token|auth|key|api-?key|pwd|awsaccesskeyid"
)
_USER = re.compile(
    r"(\b(?:https?://(?=[^\s/?#'\"]*@)|[a-z][a-z0-9+.-]*://(?=[^\s/?#'\"@:]*:[^\s/?#'\"]*@)))[^\s/?#'\"]+(@)", re.I
)
_QUERY = re.compile(rf"([?&](?:{_PARAMETER}|{_WORD})=)[^\s&#'\",;)]*[^\s&#'\",;):.]", re.I)
_GIVEN = re.compile(rf"(\b{_WORD}=['\"]?)(?!{re.escape(HIDDEN)})[^\s'\",;)}}&]+", re.I)
_PLAIN = r"[A-Za-z][a-z]*(?:['-][a-z]+)*"
_SENTENCE = (
    rf"[ \t]+(?:{_PLAIN}[ \t]+(?![\w.-]+\s*[:=])\S|"
    r"(?i:none|null|true|false|required|missing|unknown|invalid|empty|wrong|expired)(?=[\s.,;)}]|$))"
)
"""What follows a colon in a message: a plain word and more that is no further ``name:``, or a word that is no value."""
_SHOWN = re.compile(
    rf"(\b(?i:{_WORD})(?:['\"]?\s*=\s*|:(?=\S))['\"]?|"
    rf"(?<!/)\b(?i:{_WORD})(?:(?!['\"]\s*:[ \t]+{_PLAIN}(?:[\s.;]|$))['\"])?\s*:(?!{_SENTENCE})\s*['\"]?)"
    rf"(?!{re.escape(HIDDEN)})[^\s'\",;)}}&]+"
)
_HEADER = re.compile(r"(\bauthorization['\"]?\s*[=:]\s*['\"]?(?:(?:basic|bearer)\s+)?)[^\s'\",;]+", re.I)
_KEY = re.compile(r"()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S)


def find_credential(text: str) -> str | None:
    """Says which credential a value of a config holds.

    Args:
        text: the value.

    Returns:
        What it is, without itself, such as ``a password in an address``; None where none is found.
    """
    for name, value in _secret_variables():
        if value in text:
            return f"the value of the environment variable {name}"
    if _USER.search(text):
        return "a user and password in an address"
    if _QUERY.search(text):
        return "a signature or token in an address"
    if _KEY.search(text):
        return "a private key"
    return "a password" if _GIVEN.search(text) else None


def redact(text: str) -> str:
    """Hides credentials in a text that people or files get: an error, a line of a log.

    Args:
        text: any text.
    """
    for _, value in _secret_variables():
        text = text.replace(value, HIDDEN)
    text = _USER.sub(rf"\1{HIDDEN}\2", text)
    for form in (_QUERY, _SHOWN, _HEADER, _KEY):
        text = form.sub(rf"\1{HIDDEN}", text)
    return text


class RedactingFormatter(logging.Formatter):
    """Lines of a log, with their tracebacks, without credentials."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return redact(super().format(record))


def screen_handler() -> logging.Handler:
    """Shows log messages on stderr as lines of this program."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter("recd: %(message)s"))
    return handler


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Shows an error that nobody caught; it takes the place of ``sys.excepthook``."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def _secret_variables() -> Iterator[tuple[str, str]]:
    """Names and values of environment variables that hold credentials; a path to a file of them is none."""
    for name, value in os.environ.items():
        if len(value) >= _MIN_VALUE_LENGTH and not value.startswith("/") and _SECRET_NAME.search(name):
            yield name, value
