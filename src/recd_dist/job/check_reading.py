"""Order, batches and work of the reader: what does not fit each other, or the table, is said before a rank starts."""

from dataclasses import asdict

from recd_dist.errors import ConfigError, nearest
from recd_dist.job.config import CUSTOM
from recd_dist.job.job import Job
from recd_dist.model.history_choice import HISTORY_MODELS
from recd_dist.reader.order import SESSIONS, TIME, Shuffle, partition_ends
from recd_dist.reader.work import BATCHES, Work
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import Kind

WHOLE = ("sessions", "users")
"""What may be kept from being cut between two batches."""


def check_reading(job: Job) -> None:
    """Checks what a config says about the order of samples and where batches end.

    Args:
        job: the job.

    Raises:
        ConfigError: the message names the option and the remedy.
    """
    reader, manifest = job.config.reader, job.manifest
    if reader.shuffle is not None and reader.order != SESSIONS:
        raise ConfigError(
            f"reader.shuffle={str(reader.shuffle).lower()}: the older name of reader.order, which is {reader.order}; "
            "take one of them (reader.shuffle=null)"
        )
    partition_ends(manifest, Shuffle(order=reader.read_order))
    if reader.order == TIME and "timestamp" not in manifest.source.get("keys", {"timestamp": ""}):
        raise ConfigError(
            f"reader.order=time: table {job.table.path} knows no times; make it from a source with "
            "data.keys.timestamp=COLUMN, or take reader.order=table"
        )
    _check_filled(job)
    _check_work(job)


def _check_filled(job: Job) -> None:
    reader, manifest = job.config.reader, job.manifest
    if reader.batch_ids is not None and reader.batch_ids < 1:
        raise ConfigError(f"reader.batch_ids={reader.batch_ids}: must be at least 1, or null")
    if reader.whole is not None and reader.whole not in WHOLE:
        raise ConfigError(f"reader.whole={reader.whole}: unknown{nearest(reader.whole, WHOLE)}")
    if reader.is_filled and reader.batches == "work":
        name = "batch_ids" if reader.whole is None else "whole"
        raise ConfigError(
            f"reader.{name}={getattr(reader, name)}: with reader.batches=work batches end where their work is equal; "
            f"take reader.batches=samples, or reader.{name}=null"
        )
    if reader.whole is not None and reader.order == TIME:
        raise ConfigError(
            f"reader.whole={reader.whole}: in order of time (reader.order=time) samples of a session lie apart; take "
            "reader.order=partitions or sessions, or reader.whole=null"
        )
    if reader.whole == "users" and not are_users(manifest):
        user = manifest.source.get("keys", {}).get("user", "COLUMN")
        raise ConfigError(
            f"reader.whole=users: table {job.table.path} does not store users, its sessions are {manifest.sessions}; "
            f"make it with data.keys.user={user} data.sessions.by=user, or take reader.whole=sessions"
        )


def are_users(manifest: Manifest) -> bool:
    """Whether a session of a table is all that a user has done, by the words that the manifest has for sessions."""
    user = manifest.source.get("keys", {}).get("user")
    return user is not None and manifest.sessions == f"samples of one {user} (keys.user)"


def _check_work(job: Job) -> None:
    reader, model = job.config.reader, str(job.config.model["name"])
    if reader.batches not in BATCHES:
        raise ConfigError(f"reader.batches={reader.batches}: unknown{nearest(reader.batches, BATCHES)}")
    given = {name: value for name, value in asdict(reader.work).items() if value is not None}
    if reader.batches != "work":
        if given:
            name, value = next(iter(given.items()))
            raise ConfigError(f"reader.work.{name}={value}: is for reader.batches=work only; add that, or null")
        return
    Work.of(reader.work)
    if not any(feature.kind is Kind.ids for feature in job.schema.sparse):
        raise ConfigError(
            f"reader.batches=work: {job.table.path} has no lists (histories), so that every sample is as much work as "
            "another; use reader.batches=samples"
        )
    if model not in (*HISTORY_MODELS, CUSTOM) and (of_histories := {"look", "pair"} & given.keys()):
        raise ConfigError(
            f"reader.work.{sorted(of_histories)[0]}: model '{model}' pools its lists, no sample looks at them; use "
            "reader.work.id"
        )
