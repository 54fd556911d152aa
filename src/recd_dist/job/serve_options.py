"""Options of ``recd serve``: how a trained model is served."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from recd_dist.errors import ConfigError


@dataclass
class ServeBatches:
    """Which requests are scored at once."""

    max_candidates: int = 4096  # of all requests of a batch; one request alone may have more
    max_requests: int = 128
    max_wait_ms: float = 0.0  # for company of a request; 0: whatever waits when a worker is free


@dataclass
class ServeLimits:
    """What a request may ask for; the rest is refused with a status and a message."""

    body_mib: float = 4.0  # of a request
    candidates: int = 4096  # of a request
    values: int = 16384  # of a list
    queue: int = 512  # requests that wait; further ones get 429


@dataclass
class ServeConfig:
    """Options of ``recd serve``."""

    model: str = "???"  # the directory that `recd export` wrote, or a link to it
    workers: int = 1  # processes that score, each with a copy of the model
    threads: int = 1  # of each worker's computation
    spare: bool = True  # a further process waits without a model, so that a worker that dies is replaced at once
    dedup: bool = True  # False: a copy of the user's row is computed for each candidate, to see what that costs
    timeout_s: float = 20.0  # within which a request is scored; a client's own X-Timeout-Ms counts where it is less
    hang_s: float = 60.0  # after which a worker that does not answer is ended and replaced
    drain_s: float = 30.0  # for which SIGTERM waits for requests that came before
    watch_s: float | None = 5.0  # between two looks whether `model` is another export; None: never
    user_cache_mib: float = 64.0  # of user rows, kept by user_key and user_version; 0: none
    batch: ServeBatches = field(default_factory=ServeBatches)
    limits: ServeLimits = field(default_factory=ServeLimits)


_MAY_BE_ZERO = {"batch.max_wait_ms", "user_cache_mib", "drain_s"}


def check_serving(config: ServeConfig) -> None:
    """Refuses values that no service can have.

    Raises:
        ConfigError: one of them is zero or negative.
    """
    _check(config, "")


def _check(section: Any, prefix: str) -> None:
    for option in fields(section):
        name, value = f"{prefix}{option.name}", getattr(section, option.name)
        if is_dataclass(value):
            _check(value, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            least = 0 if name in _MAY_BE_ZERO else None
            if value < 0 or (value == 0 and least is None):
                raise ConfigError(f"{name}={value}: must be {'at least 0' if least == 0 else 'more than 0'}")
