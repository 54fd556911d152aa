"""``recd board``: TensorBoard over one run or many."""

import argparse
from pathlib import Path

from recd_dist.commands.command import Argument, Command


def run(options: argparse.Namespace) -> int:
    """Serves the curves until Ctrl-C."""
    from recd_dist.metrics.curves import serve

    return int(serve(Path(options.run_dir), host=options.host, port=options.port) or 0)


COMMAND = Command(
    name="board",
    summary="TensorBoard over one or many runs",
    details="Ctrl-C stops it.",
    examples=("recd board runs", "recd board runs/tiny-dlrm --port 6007"),
    run=run,
    arguments=(
        Argument("run_dir", "a run, or a directory of runs", {"nargs": "?", "default": "runs"}),
        Argument("--port", "default 6006", {"type": int, "default": 6006}),
        Argument("--host", "TensorBoard asks for no password: keep loopback", {"default": "127.0.0.1"}),
    ),
)
