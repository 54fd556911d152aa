"""Failures of Spark as errors of the ETL, in one line.

Spark itself shows the stacks of three processes.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from recd_dist.errors import ConfigError, DataError, UserError

_OWN_ERROR = re.compile(r"^(?:recd_dist\.errors\.)?(DataError|ConfigError): (.*(?:\n  \S.*)*)", re.MULTILINE)
_DUCKDB_ERROR = re.compile(r"^(?:_?duckdb\.)?\w*Exception: (.*)", re.MULTILINE)
_ANY_ERROR = re.compile(r"^[\w.]*(?:Error|Exception): .+", re.MULTILINE)


@contextmanager
def shorten_errors() -> Iterator[None]:
    """Raises what Spark raises inside as an error of the ETL, without stacks.

    Raises:
        DataError, ConfigError: see ``error_from``.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise error_from(str(error)) from error


def error_from(text: str) -> UserError:
    """The error of the ETL that a failure of Spark comes from.

    Args:
        text: Spark's message, with the stacks of the worker and of the JVM.

    Returns:
        The ETL's own error where a worker raised one; else a DataError with the line that says what happened.
    """
    if match := _OWN_ERROR.search(text):
        kind = ConfigError if match[1] == "ConfigError" else DataError
        return kind(match[2].strip())
    if match := _DUCKDB_ERROR.search(text):
        return DataError(f"samples query: {match[1].strip()}")
    if "No space left on device" in text:
        return DataError("Spark: a disk is full, of the table or of spark.local.dir; free some space and run it again")
    raised = _ANY_ERROR.findall(text)
    first_line = next((line for line in text.splitlines() if line.strip()), "failed without a message")
    return DataError(f"Spark: {(raised[-1] if raised else first_line)[:500]}")
