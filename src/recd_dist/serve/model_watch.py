"""Looks whether another export lies where the model was: a link that was turned, or a directory that was replaced."""

import asyncio
import logging
from pathlib import Path

from recd_dist.exported.description import DESCRIPTION
from recd_dist.serve.http_service import Service
from recd_dist.serve.refused import RELOADING, RefusedError

logger = logging.getLogger(__name__)

Identity = tuple[str, int, int] | None


def identity(model: str) -> Identity:
    """What tells one export from another; None while there is none.

    Args:
        model: its directory, or a link to it.
    """
    directory = Path(model).resolve()
    try:
        status = (directory / DESCRIPTION).stat()  # which is written last
    except OSError:
        return None
    return str(directory), status.st_ino, status.st_mtime_ns


async def watch_model(service: Service, seconds: float) -> None:
    """Reloads when the export is another one; one that cannot be loaded is tried once.

    Args:
        service: whose ``model`` is looked at.
        seconds: between two looks.
    """
    known = identity(service.model)
    while True:
        await asyncio.sleep(seconds)
        found = identity(service.model)
        if found is None or found == known:
            continue
        try:
            logger.info("serve: %s is another export; it is loaded", service.model)
            await service.reload(None)
        except RefusedError as refused:
            if refused.code == RELOADING:
                continue  # which may be this one, or not
        known = found
