"""What TensorBoard's HParams tab shows of a sweep: the options that differ, and what the runs came to.

Each run tells TensorBoard its whole config. Of those hundred columns the tab shows the first few; an experiment that
stands beside the runs names those that matter.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from recd_dist.metrics.curves import BOARD_DIRECTORY

RESULTS = ("ne", "auc", "loss", "samples_per_s")
_CONFIGS = ("data", "model")
"""Options that choose a config; the run itself tells its name."""


def write_columns(directory: Path, axes: Mapping[str, Sequence[str]]) -> None:
    """Writes the experiment of a sweep; an earlier one of it goes.

    Args:
        directory: the directory with the runs.
        axes: the values of each option that differs, by its dotted name, as they were typed.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    types = {"number": api_pb2.DATA_TYPE_FLOAT64, "truth": api_pb2.DATA_TYPE_BOOL, "text": api_pb2.DATA_TYPE_STRING}
    columns = [
        api_pb2.HParamInfo(name=f"{name}.name" if name in _CONFIGS else name, type=types[_type_of(values)])
        for name, values in axes.items()
    ]
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=f"result/{name}"), display_name=name) for name in RESULTS]
    board = directory / BOARD_DIRECTORY
    for file in board.glob("*.tfevents.*"):
        file.unlink()
    experiment = api_pb2.Experiment(hparam_infos=columns, metric_infos=metrics)
    content = plugin_data_pb2.HParamsPluginData(experiment=experiment, version=metadata.PLUGIN_DATA_VERSION)
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    value = Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=SummaryMetadata(plugin_data=plugin))
    writer = EventFileWriter(str(board))
    writer.add_event(Event(summary=Summary(value=[value])))
    writer.close()


def _type_of(values: Sequence[str]) -> str:
    """The type of an option's values: number, truth or text."""
    if all(value.lower() in ("true", "false", "on", "off") for value in values):
        return "truth"
    with suppress(ValueError):
        return "number" if [float(value) for value in values] else "text"
    return "text"
