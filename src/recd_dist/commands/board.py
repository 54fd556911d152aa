"""``recd board``: TensorBoard over one run or many."""

import argparse
from pathlib import Path

from recd_dist.commands.command import RUN, Argument, Command, run_of

RUNS = "runs"
"""Where runs lie unless ``run_dir`` says otherwise."""


def _path(text: str) -> Path:
    return Path(text).expanduser()


def run(options: argparse.Namespace) -> int:
    """Serves the curves until Ctrl-C, or until a job has ended."""
    from recd_dist.metrics.board_server import Access, serve, serve_until

    access = Access(options.token_file, options.cert, options.key, options.no_tls)
    directory = run_of(options.overrides, RUNS)
    if options.until:
        return serve_until(options.until, directory, options.port, options.host, access)
    return int(serve(directory, options.port, options.host, access) or 0)


COMMAND = Command(
    name="board",
    summary="TensorBoard over one or many runs",
    details=f"RUN may also be a directory of runs; without it all those below {RUNS} are shown. Ctrl-C stops it. It "
    "listens on this machine alone; for others it asks for a token and speaks TLS.",
    examples=(
        "recd board runs",
        "recd board runs/tiny-dlrm --port 6007",
        "recd board runs --host 0.0.0.0 --token-file ~/.recd-board --cert board.crt --key board.key",
    ),
    run=run,
    arguments=(
        RUN,
        Argument("--port", "default 6006", {"type": int, "default": 6006}),
        Argument("--until", "end when this file appears; the run may begin later", {"type": _path, "metavar": "FILE"}),
        Argument("--host", "default 127.0.0.1; another address needs a token and TLS", {"default": "127.0.0.1"}),
        Argument(
            "--token-file", "ask for the token in it; made where it is not there", {"type": _path, "metavar": "FILE"}
        ),
        Argument("--cert", "TLS certificate, PEM", {"type": _path, "metavar": "FILE"}),
        Argument("--key", "its private key, PEM", {"type": _path, "metavar": "FILE"}),
        Argument("--no-tls", "plain HTTP beyond loopback, where a proxy in front speaks TLS", {"action": "store_true"}),
    ),
)
