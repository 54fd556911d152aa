"""The shim's version and requirements: those of the release line that VERSIONS names, read from the constraints."""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

ROOT = Path(__file__).parents[2]
LINE = ("torch", "torchrec", "fbgemm-gpu-cpu")
"""What belongs together: pip then sees when another torch or torchrec takes the place of the one that was chosen."""


class ReleaseLine(MetadataHookInterface):
    """Fills in what pyproject.toml leaves open."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets the version and the requirements.

        Args:
            metadata: the project's table of pyproject.toml; changed in place.
        """
        versions = os.environ.get("VERSIONS", "")
        pins: dict[str, str] = {}
        for name in ("constraints.txt", *([f"constraints-{versions}.txt"] if versions else [])):
            pins |= dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / name).read_text(), re.MULTILINE))
        metadata["version"] = f"{pins['fbgemm-gpu-cpu']}+cpu"
        metadata["dependencies"] = [f"{name}=={pins[name]}" for name in LINE]
