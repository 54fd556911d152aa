"""``slurm``: a Slurm of this test run's own, skipped where its programs are missing."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.slurm.private_slurm import PACKAGES, PACKAGES_OF_ACCOUNTING, PrivateSlurm, missing_programs


@pytest.fixture(scope="session")
def slurm() -> Iterator[PrivateSlurm]:
    """Two nodes, with accounting where slurmdbd and MariaDB are installed."""
    if missing := missing_programs():
        pytest.skip(f"no {', '.join(missing)}: {PACKAGES}")
    directory = Path(tempfile.mkdtemp(prefix="recd-slurm-"))  # sockets want a short path
    try:
        with PrivateSlurm(directory, accounting=not missing_programs(accounting=True)) as slurm:
            yield slurm
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def accounting(slurm: PrivateSlurm) -> PrivateSlurm:
    """The same, skipped where it has no accounting."""
    if not slurm.accounting:
        pytest.skip(f"no {', '.join(missing_programs(accounting=True))}: {PACKAGES_OF_ACCOUNTING}")
    return slurm
