"""``recd board``: TensorBoard over one run or many."""

import argparse

from recd_dist.commands.command import RUN, Argument, Command, run_of

RUNS = "runs"
"""Where runs lie unless ``run_dir`` says otherwise."""


def run(options: argparse.Namespace) -> int:
    """Serves the curves until Ctrl-C."""
    from recd_dist.metrics.curves import serve

    return int(serve(run_of(options.overrides, RUNS), host=options.host, port=options.port) or 0)


COMMAND = Command(
    name="board",
    summary="TensorBoard over one or many runs",
    details=f"RUN may also be a directory of runs; without it all those below {RUNS} are shown. Ctrl-C stops it.",
    examples=("recd board runs", "recd board runs/tiny-dlrm --port 6007"),
    run=run,
    arguments=(
        RUN,
        Argument("--port", "default 6006", {"type": int, "default": 6006}),
        Argument("--host", "TensorBoard asks for no password: keep loopback", {"default": "127.0.0.1"}),
    ),
)
