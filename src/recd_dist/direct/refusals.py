"""What reading directly cannot do, said by the name of the option and with what does it."""

from recd_dist.errors import ConfigError
from recd_dist.etl.source.source import Source

_ETL = "take data.reader=table and make the table with `recd etl`"


def refuse_unable(source: Source) -> None:
    """Refuses options that need all samples to be sorted, joined or looked at before the first is trained.

    Args:
        source: what the data config describes.

    Raises:
        ConfigError: the message has every such option, one a line.
    """
    mistakes = []
    if source.samples is not None or source.samples_spark is not None:
        mistakes.append("data.samples: the direct reader takes the columns of the files as they are, and runs no query")
    linked = [name for name, group in (source.groups or {}).items() if group.sql is not None]
    mistakes += [f"data.groups.{name}.sql: rows of another query are joined by the ETL only" for name in linked]
    if source.session_by == "gap":
        mistakes.append(
            "data.sessions.by=gap: gaps are found when all samples of a user are side by side; name keys.session"
        )
    if source.policy.duplicates != "keep":
        given = "data.keys.sample" if "sample" in source.keys else f"data.policy.duplicates={source.policy.duplicates}"
        mistakes.append(
            f"{given}: duplicates are found when all samples are sorted; data.policy.duplicates=keep keeps them"
        )
    if source.policy.unlabelled == "drop":
        mistakes.append("data.policy.unlabelled=drop: how many samples stay must be known before; keep, or error")
    if source.sample != 1.0:
        mistakes.append(f"data.sample={source.sample:g}: a share of the sessions is taken by the ETL; name fewer files")
    if source.reading.null_values:
        mistakes.append("data.null_values: texts are read as they are")
    windows = [name for name, feature in source.features.items() if feature.window]
    mistakes += [f"data.features.{name}.window=true: windows are stored by the ETL" for name in windows]
    if mistakes:
        raise ConfigError(f"data.reader=direct: {_ETL}, or mend:\n  " + "\n  ".join(mistakes))
