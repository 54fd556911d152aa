"""What a client is told in place of scores: a status, a code for programs, and a message for people."""

from dataclasses import dataclass
from typing import Any

from recd_dist.redaction.credentials import redact

BAD_JSON, TOO_LARGE, BAD_REQUEST = "bad_json", "too_large", "bad_request"
QUEUE_FULL, DEADLINE, NOT_READY = "queue_full", "deadline", "not_ready"
USER_UNKNOWN, USER_OTHER_VERSION = "user_unknown", "user_other_version"
SCORING_FAILED, RELOAD_FAILED, RELOADING = "scoring_failed", "reload_failed", "reloading"
UNAUTHORIZED, FORBIDDEN, UNSUPPORTED = "unauthorized", "forbidden", "unsupported"
NOT_FOUND, NOT_ALLOWED = "not_found", "not_allowed"

STATUSES = {
    BAD_JSON: 400,
    UNAUTHORIZED: 401,
    FORBIDDEN: 403,
    NOT_FOUND: 404,
    USER_UNKNOWN: 404,
    NOT_ALLOWED: 405,
    USER_OTHER_VERSION: 409,
    RELOADING: 409,
    TOO_LARGE: 413,
    UNSUPPORTED: 415,
    BAD_REQUEST: 422,
    RELOAD_FAILED: 422,
    QUEUE_FULL: 429,
    SCORING_FAILED: 500,
    DEADLINE: 503,
    NOT_READY: 503,
}
"""HTTP status of each code."""

HUNG_UP = 499
"""Status in the metrics of a request whose client did not wait for the answer; nobody gets it."""


@dataclass(eq=False)
class RefusedError(Exception):
    """A request gets no scores.

    Attributes:
        code: one of ``STATUSES``.
        message: one line: the thing, what was found, the remedy.
        feature: the feature at fault, where it is one.
        retry_after_s: when to ask again, in whole seconds.
    """

    code: str
    message: str
    feature: str | None = None
    retry_after_s: int | None = None

    def __str__(self) -> str:
        return self.message

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUSES[self.code]

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer that belong to it."""
        if self.retry_after_s is not None:
            return {"Retry-After": str(self.retry_after_s)}
        return {"WWW-Authenticate": "Bearer"} if self.code == UNAUTHORIZED else {}

    def to_json(self) -> dict[str, Any]:
        """The body of the answer."""
        said = {"code": self.code, "message": redact(self.message)}
        return {"error": said | ({"feature": self.feature} if self.feature is not None else {})}
