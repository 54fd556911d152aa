"""``server``: an API server of one's own, with the kinds that Volcano, Kueue, Kubeflow Trainer and JobSet add."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kubernetes.api_server import ApiServer, missing

DEFINITIONS = "RECD_CRDS"
"""The environment variable that names a directory with the published CRD files."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    if reason := missing():
        pytest.skip(reason)
    definitions = sorted(Path(os.environ.get(DEFINITIONS) or os.devnull).glob("*.yaml"))
    if not definitions:
        pytest.skip(f"{DEFINITIONS} names no directory with CRD files: CONTRIBUTING.md lists them")
    with ApiServer(tmp_path_factory.mktemp("server")) as started:
        started.define(definitions)
        started.kubectl("create", "namespace", "recd")
        yield started
