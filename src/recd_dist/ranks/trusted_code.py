"""Code of the user's own, imported by a name from a config: only what the environment of the process trusts."""

import importlib
import os
import traceback
from typing import Any

from recd_dist.errors import ConfigError

TRUSTED = "RECD_TRUSTED_PACKAGES"
"""The environment variable that lists, with commas, the packages from which a config may name code.

Importing a module runs its code. So a config, which may come from somebody else, cannot do it by itself.
"""


def import_trusted(where: str, module: str, name: str) -> Any:
    """Imports something of a trusted package.

    Args:
        where: the option and its value, for messages.
        module: ``package.module``.
        name: what the module holds under this name is returned.

    Returns:
        What stands there; None where the module has no such name.

    Raises:
        ConfigError: the package is not trusted here, there is no such module, or importing it fails.
    """
    package = module.partition(".")[0]
    if package not in [word.strip() for word in os.environ.get(TRUSTED, "").split(",")]:
        raise ConfigError(
            f"{where}: a config may run code of packages alone that you trust; if you trust '{package}', "
            f"start the job with {TRUSTED}={package} in its environment, on every host"
        )
    try:
        return getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{where}: there is no module '{error.name}'; install its package, or name its folder in "
            "PYTHONPATH (the working directory is not searched)"
        ) from error
    except Exception as error:
        raise ConfigError(f"{where}: importing {module} fails with {describe_error(error)}") from error


def describe_error(error: Exception) -> str:
    """An error in one line, with the place where it was raised in the user's code."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{place}"
