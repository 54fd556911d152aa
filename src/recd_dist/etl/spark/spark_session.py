"""The Spark session that the ETL works in: started here, or one that is there already."""

import os
import sys
from typing import TYPE_CHECKING

from recd_dist.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_MISSING = "engine=spark needs PySpark: pip install 'recd-dist[spark]', and Java 17 or later"


def start_session(master: str | None = None) -> "SparkSession":
    """Starts a Spark session for the ETL; where one is there already, Spark gives that one back.

    Args:
        master: where Spark runs, such as ``local[2]``; None leaves it to Spark's default. Under ``spark-submit`` it has
            no effect, since that command has said where Spark runs.

    Returns:
        The session. PySpark and its Arrow functions work.

    Raises:
        ConfigError: PySpark or Java is missing, or Spark does not know the master.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
        from pyspark.sql.pandas.utils import require_minimum_pandas_version, require_minimum_pyarrow_version

        require_minimum_pandas_version()
        require_minimum_pyarrow_version()
    except ImportError as error:
        raise ConfigError(f"{_MISSING} ({str(error).splitlines()[0]})") from error
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # set by spark-submit
        master = None
    else:
        os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.appName("recd etl").config("spark.ui.showConsoleProgress", "false")
    if master is not None:
        builder = builder.master(master).config("spark.ui.enabled", "false").config("spark.log.level", "ERROR")
    try:
        return builder.getOrCreate()
    except (PySparkException, OSError, RuntimeError) as error:
        where = "" if master is None else f" (spark.master={master})"
        raise ConfigError(
            f"Spark does not start{where}: {str(error).splitlines()[0]}; is Java 17 or later there, the master right?"
        ) from error


def active_session() -> "SparkSession | None":
    """The session that is there already, under ``spark-submit`` or in a notebook; None where there is none.

    Raises:
        ConfigError: PySpark is missing.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise ConfigError(_MISSING) from error
    return SparkSession.getActiveSession()
