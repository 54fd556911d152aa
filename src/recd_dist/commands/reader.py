"""``recd reader``: a server that reads batches for trainers in other processes and on other hosts."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from recd_dist.commands.command import Argument, Command
from recd_dist.errors import ConfigError
from recd_dist.reader.defaults import SERVER_PORT
from recd_dist.reader.tier.server_address import Address
from recd_dist.table.location import Location, location

if TYPE_CHECKING:
    from recd_dist.reader.tier.server_access import ServerAccess

MAX_SESSIONS = 64


def _path(text: str) -> Path:
    return Path(text).expanduser()


def run(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C; or shows what a server has served."""
    if options.stats:
        return _show_stats(options)
    if options.max_sessions < 1:
        raise ConfigError(f"--max-sessions {options.max_sessions}: must be at least 1")
    address, roots = Address.parse(options.listen, "--listen"), _roots(options)
    from recd_dist.reader.tier.served_tables import ServedTables
    from recd_dist.reader.tier.serving import LOG_S, Serving, serve

    log_s = LOG_S if options.log_every is None else options.log_every
    serving = Serving(address, options.max_sessions, options.announce, options.until, log_s)
    return serve(serving, ServedTables(roots, options.vocabularies), _access(options, address), _say)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _roots(options: argparse.Namespace) -> list[Location]:
    """The directories whose tables may be read.

    Raises:
        ConfigError: none is named.
    """
    roots = [location(table) for table in options.roots or []]
    if options.overrides or options.config_dir:
        data = COMMAND.load_config(options).data
        if data.reader == "direct":
            raise ConfigError(
                f"data.reader=direct: servers read tables of `recd etl`, not {data.path} itself; make one with "
                f"`recd etl data={data.name} ...`, or let each rank read the files, without servers"
            )
        roots.append(location(data.table))
    if not roots:
        raise ConfigError("recd reader: say which tables may be read: data=tiny, or --tables DIR")
    return roots


def _access(options: argparse.Namespace, address: Address) -> "ServerAccess":
    """Who may ask: in a job whose servers announce themselves, those who can read the token beside them."""
    from recd_dist.reader.tier.announcements import token_of
    from recd_dist.reader.tier.server_access import ServerAccess

    file = options.token_file
    if file is None and options.announce is not None and not address.is_loopback:
        file = token_of(options.announce)
    return ServerAccess(file, options.cert, options.key)


def _show_stats(options: argparse.Namespace) -> int:
    """Asks a server what it has served."""
    from recd_dist.reader.tier.served_counts import describe_stats
    from recd_dist.reader.tier.server_access import TrainerAccess
    from recd_dist.reader.tier.server_connection import ServerConnection, ServerLost, find_reason

    address = Address.parse(options.stats, "--stats")
    try:
        stats = ServerConnection(address, TrainerAccess(options.token_file, options.ca), call_s=5.0).stats()
    except ServerLost as error:
        raise ConfigError(f"--stats {address}: no answer ({find_reason(address, options.ca)})") from error
    _say(describe_stats(stats))
    return 0


COMMAND = Command(
    name="reader",
    summary="serve batches to trainers in other processes and on other hosts",
    details="Trainers name it as reader.servers=[HOST:PORT]; batches, order and positions are those of a trainer that\n"
    "reads itself. It reads the tables named here and no others. SIGTERM ends it when batches on their way have\n"
    "arrived. On loopback everyone on this machine may ask; elsewhere it wants a token, and should speak TLS:\n"
    "docs/reader_tier.md.",
    examples=(
        "recd reader data=tiny",
        "recd train data=tiny 'reader.servers=[localhost:8815]'",
        "recd reader --tables tables --listen 0.0.0.0:8815 --token-file ~/.recd-reader --cert tier.crt --key tier.key",
        "recd reader --stats localhost:8815",
    ),
    run=run,
    config="etl",
    arguments=(
        Argument(
            "--tables",
            "serve the tables in or below DIR; may be given again",
            {"action": "append", "metavar": "DIR", "dest": "roots"},
        ),
        Argument(
            "--vocabularies",
            "also read vocabulary files of transforms below DIR",
            {"action": "append", "metavar": "DIR", "type": _path, "default": []},
        ),
        Argument(
            "--listen",
            f"where; port 0 takes a free one (default 127.0.0.1:{SERVER_PORT}, this machine alone)",
            {"default": f"127.0.0.1:{SERVER_PORT}", "metavar": "HOST:PORT"},
        ),
        Argument(
            "--token-file",
            "ask for the token in it (else that in RECD_READER_TOKEN)",
            {"type": _path, "metavar": "FILE"},
        ),
        Argument("--cert", "TLS certificate, PEM", {"type": _path, "metavar": "FILE"}),
        Argument("--key", "its private key, PEM", {"type": _path, "metavar": "FILE"}),
        Argument(
            "--max-sessions",
            f"streams of trainers at a time, each of which holds two shuffle windows (default {MAX_SESSIONS})",
            {"type": int, "default": MAX_SESSIONS, "metavar": "N"},
        ),
        Argument(
            "--announce", "write the address into DIR, for reader.servers_dir=DIR", {"type": _path, "metavar": "DIR"}
        ),
        Argument("--until", "end when this file appears", {"type": _path, "metavar": "FILE"}),
        Argument(
            "--log-every", "seconds between two lines of what was served (default 60)", {"type": float, "metavar": "S"}
        ),
        Argument("--stats", "show what a server has served, and end", {"metavar": "HOST:PORT"}),
        Argument("--ca", "with --stats: the certificate that it must be signed by", {"type": _path, "metavar": "FILE"}),
    ),
)
