"""What Spark says of a failure becomes one line."""

import pytest

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.spark.spark_errors import error_from

STACK = """An exception was thrown from the Python worker:
Traceback (most recent call last):
  File "worker.py", line 4207, in invoke_udf
"""
FAILURES = {
    "recd_dist.errors.DataError: two things:\n  one\n  two\n\tat org.apache.spark": (
        DataError,
        "two things:\n  one\n  two",
    ),
    "recd_dist.errors.ConfigError: row_group=0": (ConfigError, "row_group=0"),
    "_duckdb.ConversionException: Conversion Error: no number\n\nLINE 1": (
        DataError,
        "samples query: Conversion Error",
    ),
    "OSError: [Errno 28] No space left on device": (DataError, "Spark: a disk is full"),
    "KeyError: 'x'\n SQLSTATE: 38000": (DataError, "Spark: KeyError: 'x'"),
    "": (DataError, "Spark: An exception was thrown"),
}


@pytest.mark.parametrize("text", FAILURES)
def test_stacks_become_a_line(text):
    error = error_from(STACK + text)
    assert type(error) is FAILURES[text][0]
    assert str(error).startswith(FAILURES[text][1])
    assert "org.apache" not in str(error)
