"""What one check of a machine has found: good, doubtful or bad, the value, and the remedy."""

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Level(StrEnum):
    """How good a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: the name of the check, such as ``shared memory``.
        level: whether a job can run.
        value: what was found, in words.
        remedy: what to do about it; empty where nothing is to be done.
        host: the name of the host.
    """

    check: str
    level: Level
    value: str
    remedy: str = ""
    host: str = field(default_factory=socket.gethostname)

    @property
    def line(self) -> str:
        """The finding in one line, without its host."""
        return f"{self.check}: {self.value}" + (f"; {self.remedy}" if self.remedy else "")

    def to_json(self) -> dict[str, str]:
        """The finding, ready for JSON."""
        return {
            "host": self.host,
            "check": self.check,
            "level": self.level.value,
            "value": self.value,
            "remedy": self.remedy,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, str]) -> "Finding":
        """Reads what ``to_json`` has made."""
        return cls(value["check"], Level(value["level"]), value["value"], value["remedy"], value["host"])


def ok(check: str, value: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, value)


def warn(check: str, value: str, remedy: str) -> Finding:
    """A job runs, but more slowly or with less room than people may expect."""
    return Finding(check, Level.WARN, value, remedy)


def fail(check: str, value: str, remedy: str) -> Finding:
    """A job would fail."""
    return Finding(check, Level.FAIL, value, remedy)


def failures(findings: Iterable[Finding]) -> list[Finding]:
    """The findings with which a job would fail."""
    return [finding for finding in findings if finding.level is Level.FAIL]
