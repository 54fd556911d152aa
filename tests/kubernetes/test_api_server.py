"""A real API server takes what launch/kubernetes holds and what TorchX submits, and refuses what is broken."""

import copy
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from tests.kubernetes.api_server import ApiServer, Refused
from tests.kubernetes.manifests import OVERLAY, ROOT, objects, pods

pytestmark = pytest.mark.kubernetes
OBJECTS = [pytest.param(found, id=f"{name}-{found['kind']}") for name, found in objects()]
JOB = ("-j", "2x2", "--run", "runs/a", "--pod", str(OVERLAY), "--mounts", "type=volume,src=recd-runs,dst=/recd/runs")
NASTY = ("data=tiny", "note='a,b c'", "x=$(HOME)", "q=$$", "v=${data.name}")


@pytest.mark.parametrize("found", OBJECTS)
def test_every_object_is_accepted(server: ApiServer, found: dict[str, Any]) -> None:
    if found["kind"] == "Namespace":
        assert server.kubectl("get", "namespace", found["metadata"]["name"])
        return
    assert server.create(found).endswith("created\n")


@pytest.mark.parametrize("pod", [pytest.param(pod, id=name) for name, pod in pods()])
def test_the_server_takes_each_pod_by_itself(server: ApiServer, pod: dict[str, Any]) -> None:
    """Kinds that are defined by a schema hold pods that nobody has looked into: here the server does."""
    command = {"command": ["true"], **pod["containers"][0]}
    whole = {**pod, "containers": [command]}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "try-", "namespace": "recd"}, "spec": whole}
    assert "created" in server.create(made, "--dry-run=server")


def _without(*path: str | int) -> Any:
    def change(found: Any) -> None:
        for step in path[:-1]:
            found = found[step]
        del found[path[-1]]

    return change


def _with(value: Any, *path: str | int) -> Any:
    def change(found: Any) -> None:
        for step in path[:-1]:
            found = found[step]
        found[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("PodDisruptionBudget", _with("many of them", "spec", "minAvailable")),
        ("PersistentVolumeClaim", _with(["ReadWriteSometimes"], "spec", "accessModes")),
        ("Deployment", _with({"app": "another"}, "spec", "selector", "matchLabels")),
        ("Job", _with("Always", "spec", "template", "spec", "restartPolicy")),
        ("JobSet", _with("twice", "spec", "replicatedJobs", 0, "replicas")),
        ("TrainJob", _without("spec", "runtimeRef", "name")),
        ("TrainJob", _with([{"value": "no name"}], "spec", "trainer", "env")),
        ("TrainingRuntime", _without("spec", "template", "spec", "replicatedJobs", 0, "name")),
        ("LocalQueue", _with(1, "spec", "clusterQueue")),
        ("Queue", _with("heavy", "spec", "weight")),
    ],
)
def test_broken_objects_are_refused(server: ApiServer, kind: str, change: Any) -> None:
    found = copy.deepcopy(next(found for _, found in objects() if found["kind"] == kind))
    found["metadata"] = {key: value for key, value in found["metadata"].items() if key != "name"}
    found["metadata"]["generateName"] = "broken-"
    assert "created" in server.create(found, "--dry-run=server")
    change(found)
    with pytest.raises(Refused, match=r"invalid|cannot be handled"):  # by the server: kubectl looks at nothing
        server.create(found, "--dry-run=server", "--validate=false")


@pytest.mark.parametrize("kind", ["JobSet", "TrainingRuntime", "TrainJob", "ClusterQueue", "Queue"])
def test_misspelt_fields_are_refused(server: ApiServer, kind: str) -> None:
    """Servers before 1.25 drop such a field; there kubectl refuses it, by the schema that the server publishes."""
    found = copy.deepcopy(next(found for _, found in objects() if found["kind"] == kind))
    found["metadata"]["name"] = "misspelt"
    found["spec"]["replicasss"] = 1
    with pytest.raises(Refused, match="replicasss"):
        server.create(found, "--dry-run=server")


def torchx(server: ApiServer, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "KUBECONFIG": str(server.kubeconfig), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "torchx.cli.main", *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def submitted(server: ApiServer) -> dict[str, Any]:
    """The Volcano Job that `torchx run` has submitted, as the server kept it."""
    pytest.importorskip("kubernetes")
    words = ("launch/train.py:train", "--name", "rm1", *JOB)
    done = torchx(server, "run", "-s", "kubernetes", *words, "--", *NASTY)
    assert done.returncode == 0, done.stderr
    name = done.stdout.strip().splitlines()[-1].rpartition(":")[2]
    return json.loads(server.kubectl("-n", "recd", "get", "jobs.batch.volcano.sh", name, "-o", "json"))


def test_torchx_submits_a_job_of_two_hosts(server: ApiServer, submitted: dict[str, Any]) -> None:
    spec = submitted["spec"]
    assert (spec["queue"], spec["schedulerName"]) == ("recd", "volcano")
    assert [task["name"] for task in spec["tasks"]] == ["train-0", "train-1"]
    for task in spec["tasks"]:
        pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(task["template"])}
        pod["metadata"] |= {"name": task["name"], "namespace": "recd"}
        assert "created" in server.create(pod, "--dry-run=server")


def test_torchx_finds_and_cancels_its_job(server: ApiServer, submitted: dict[str, Any]) -> None:
    handle = f"kubernetes:///recd:{submitted['metadata']['name']}"
    assert torchx(server, "status", handle).returncode == 0
    listed = torchx(server, "list", "-s", "kubernetes")
    assert listed.returncode == 0, listed.stderr
    assert torchx(server, "delete", handle).returncode == 0
    with pytest.raises(Refused, match="NotFound"):
        server.kubectl("-n", "recd", "get", "jobs.batch.volcano.sh", submitted["metadata"]["name"])


def test_torchx_reports_what_the_server_refuses(server: ApiServer) -> None:
    words = ("-cfg", "namespace=absent", "launch/train.py:train", *JOB)
    done = torchx(server, "run", "-s", "kubernetes", *words, "--", "data=tiny")
    assert done.returncode != 0
    assert "Not Found" in done.stderr
