"""``recd serve``: a trained model as a service."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from recd_dist.commands.command import Argument, Command
from recd_dist.errors import ConfigError
from recd_dist.reader.tier.server_address import Address

PORT = 8080
_PACKAGES = ("fastapi", "uvicorn", "httptools", "uvloop", "prometheus_client", "swagger_ui_bundle", "orjson")


def _path(text: str) -> Path:
    return Path(text).expanduser()


def run(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C."""
    config = COMMAND.load_config(options)
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ConfigError(f"recd serve needs {', '.join(missing)}: pip install 'recd-dist[serve]'")
    address = Address.parse(options.listen, "--listen")
    flight = Address.parse(options.flight, "--flight") if options.flight else None
    from recd_dist.reader.tier.server_access import ServerAccess
    from recd_dist.serve.service_run import Listening, serve

    access = ServerAccess(options.token_file, options.cert, options.key, "RECD_SERVE_TOKEN", "ask the model")
    return serve(config, Listening(address, access, flight, options.announce), _say)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


COMMAND = Command(
    name="serve",
    summary="answer requests for scores with an exported model",
    details="A request is one user row and its candidates, as JSON over HTTP or as Arrow over Flight; those that wait\n"
    "are scored in one batch, each distinct row once. ADDRESS/docs shows the interface with the model's own features,\n"
    "ADDRESS/metrics what Prometheus reads. SIGHUP, POST /v1/reload or another export at the same place change the\n"
    "model, SIGTERM ends it, without a lost request. On loopback everyone on this machine may ask; elsewhere it wants\n"
    "a token, and should speak TLS: docs/serving.md.",
    examples=(
        "recd serve model=exports/tiny",
        "recd serve model=exports/tiny --listen 127.0.0.1:0 --announce serve.json",
        "recd serve model=exports/tiny workers=2 batch.max_wait_ms=2 --flight 127.0.0.1:8816",
        "recd serve model=exports/tiny --listen 0.0.0.0:8080 --token-file token --cert serve.crt --key serve.key",
    ),
    run=run,
    config="serve",
    arguments=(
        Argument(
            "--listen",
            f"where HTTP listens; port 0 takes a free one (default 127.0.0.1:{PORT}, this machine alone)",
            {"default": f"127.0.0.1:{PORT}", "metavar": "HOST:PORT"},
        ),
        Argument("--flight", "also listen for Arrow Flight there", {"metavar": "HOST:PORT"}),
        Argument(
            "--token-file",
            "ask for the token in it (else that in RECD_SERVE_TOKEN)",
            {"type": _path, "metavar": "FILE"},
        ),
        Argument("--cert", "TLS certificate, PEM", {"type": _path, "metavar": "FILE"}),
        Argument("--key", "its private key, PEM", {"type": _path, "metavar": "FILE"}),
        Argument(
            "--announce", "write the addresses into FILE as JSON, for scripts", {"type": _path, "metavar": "FILE"}
        ),
    ),
)
