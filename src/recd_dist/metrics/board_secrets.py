"""The secrets of a dashboard: the token that its readers show, and the private key of its certificate.

Who may read such a file follows the rule of PostgreSQL's ``ssl_key_file``. A file of your own is yours alone, mode 600:
a group is often a whole project. A file of root, or of somebody else, was handed to this process through its group, so
the group may read it: that is how Kubernetes mounts a Secret for a pod that is not root (``fsGroup`` makes 0440 of
``defaultMode: 0400``), and how Vault's agent writes its files. Everyone on a machine may never read it, and nobody else
write it. Links are followed, since every file of a Secret is one; the mode is that of the file at their end.
"""

import os
import secrets
import shlex
import ssl
import stat
from pathlib import Path

from recd_dist.errors import ConfigError

MIN_TOKEN_LENGTH = 20
"""Characters; a token that is made here has 43, of 256 random bits."""

CERTIFY = (
    "openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj /CN=$(hostname -f) -keyout board.key -out board.crt"
)
"""A command that makes a certificate for a first try, and its key."""

_MAKE_ONE = "to make one: openssl rand -hex 32"


def read_token(file: Path, make: bool = False) -> str:
    """Reads a token from a file that not everyone may read.

    Args:
        file: the file; its one line without the white space around it is the token.
        make: write a new token where there is no such file.

    Raises:
        ConfigError: the file cannot be read or written, too many may read it, or its text is no token.
    """
    try:
        if make and not file.exists():
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
                new.write(secrets.token_urlsafe(32) + "\n")
        require_private("--token-file", file)
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {file}: {getattr(error, 'strerror', None) or 'no text'}") from error
    return require_token(f"--token-file {file}", token)


def require_token(where: str, token: str) -> str:
    """Refuses a text that is no token, and returns one that is.

    Args:
        where: where it stands, for the message.
        token: the text.

    Raises:
        ConfigError: it is empty or short, has several lines, or letters that no header has.
    """
    if not token:
        raise ConfigError(f"{where}: it is empty; {_MAKE_ONE}")
    if num_lines := len(token.splitlines()) - 1:
        raise ConfigError(f"{where}: {num_lines + 1} lines, a token is one line; {_MAKE_ONE}")
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(
            f"{where}: a token has letters, digits and signs of ASCII, as headers of HTTP have; {_MAKE_ONE}"
        )
    if len(token) < MIN_TOKEN_LENGTH:
        raise ConfigError(f"{where}: {len(token)} characters, a token has at least {MIN_TOKEN_LENGTH}; {_MAKE_ONE}")
    return token


def require_private(option: str, file: Path) -> None:
    """Refuses a file with a secret that too many may read, or that is no plain file.

    Args:
        option: the option that names it, for the message.
        file: the file, or a link to it.

    Raises:
        ConfigError: it is a pipe or a directory; everyone may read it, its group may and it is one's own, or somebody
            else may write it.
        OSError: it is not there.
    """
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{option} {file}: no plain file; a pipe cannot be read twice, so write it into a file")
    who = _others(status.st_mode, status.st_uid, os.geteuid())
    if who:
        raise ConfigError(
            f"{option} {file}: {who}; chmod 600 {shlex.quote(str(file))}, or for a Secret of Kubernetes fsGroup and "
            "defaultMode: 0400"
        )


def _others(mode: int, owner: int, user: int) -> str:
    """Who has too many rights on a file; empty where nobody has."""
    if mode & 0o007:
        return "everyone on this machine can read or change it"
    if mode & 0o020:
        return "its group can change it"
    if mode & 0o040 and owner == user != 0:
        return "its group can read it"
    return ""


def require_certificate(cert: Path, key: Path | None) -> None:
    """Refuses a certificate that a server cannot use.

    Args:
        cert: the certificate, as PEM.
        key: its private key; None where it stands in the same file.

    Raises:
        ConfigError: one of the files cannot be read, they do not belong together, or too many may read the key.
    """
    try:
        tls_context(cert, key)
        require_private("--key" if key else "--cert", key or cert)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"--cert {cert}{f' --key {key}' if key else ''}: no certificate with its private key "
            f"({error.strerror or error}); to make them: {CERTIFY}"
        ) from error


def tls_context(cert: Path, key: Path | None) -> ssl.SSLContext:
    """The TLS settings of a server: Python's own, which speak TLS 1.2 and later."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key, password=lambda: "")  # an encrypted key fails, and waits for nobody to type
    return context
