"""The manifests by themselves: security, volumes, commands, and the schemas that packages bring."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.kubernetes import manifests
from tests.kubernetes.manifests import CORE_GROUPS, FILES, FOLDER, OVERLAY, ROOT, documents, objects, pods

from recd_dist.ranks.launcher import parse_arguments

OBJECTS = [pytest.param(found, id=f"{name}-{found['kind']}") for name, found in objects()]
PODS = [pytest.param(pod, id=name) for name, pod in pods()]
COMPOSE = ROOT / "docker/compose.yaml"


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [found for _, found in objects() if found["kind"] == kind]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_begins_with_the_command_that_uses_it(path: Path) -> None:
    before, named, _ = path.read_text().partition(f"launch/kubernetes/{path.name}")
    assert named
    assert all(
        line.startswith(("# kubectl ", "# torchx run -s kubernetes "))
        for line in before.replace("\\\n#", "").splitlines()
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_explained(path: Path) -> None:
    assert f"launch/kubernetes/{path.name}" in (ROOT / "docs/kubernetes.md").read_text()


@pytest.mark.parametrize("pod", PODS)
def test_pods_meet_the_restricted_standard(pod: dict[str, Any]) -> None:
    assert manifests.violations(pod) == []
    assert manifests.dangling(pod) == []
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pod: pod["securityContext"].pop("runAsNonRoot"), "may run as root"),
        (lambda pod: pod["securityContext"].pop("seccompProfile"), "seccompProfile"),
        (lambda pod: pod["containers"][0]["securityContext"].pop("capabilities"), "host: capabilities"),
        (lambda pod: pod["containers"][0].pop("securityContext"), "host: privileges"),
        (lambda pod: pod["volumes"].append({"name": "disk", "hostPath": {"path": "/"}}), "volume disk: hostPath"),
    ],
)
def test_a_weaker_pod_is_noticed(change: Any, said: str) -> None:
    [pod] = [copy.deepcopy(pod) for name, pod in pods() if name == "jobset.yaml"]
    change(pod)
    assert said in manifests.violations(pod)


@pytest.mark.parametrize("pod", PODS)
def test_pods_write_to_memory_and_claims_alone(pod: dict[str, Any]) -> None:
    claims = {found["metadata"]["name"] for found in of_kind("PersistentVolumeClaim")}
    for volume in pod["volumes"]:
        if "persistentVolumeClaim" in volume:
            assert volume["persistentVolumeClaim"]["claimName"] in claims
        elif "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o400  # what `recd board --token-file` wants beside fsGroup
            assert pod["securityContext"]["fsGroup"]
        else:
            assert volume["emptyDir"]["medium"] == "Memory"
            assert volume["emptyDir"]["sizeLimit"]


def test_no_secret_stands_in_a_file() -> None:
    assert of_kind("Secret") == []
    for _, pod in [*pods(), ("", documents(OVERLAY)[0]["spec"])]:
        for container in pod["containers"]:
            assert not [variable for variable in container.get("env", []) if "SECRET" in variable["name"]]


def launcher(name: str, variables: dict[str, str]) -> Any:
    """What the launcher of a host reads from the command line that Kubernetes gives it."""
    [pod] = [pod for file, pod in pods() if file == name]
    container = pod["containers"][0]
    words = [*container["command"], *(container.get("args") or of_kind("TrainJob")[0]["spec"]["trainer"]["args"])]
    assert words[:3] == ["python3", "-m", "recd_dist.ranks.launcher"]
    return parse_arguments([manifests.as_kubelet_hands_on(word, variables) for word in words[3:]])


def test_hosts_of_a_jobset_meet_at_the_first_one() -> None:
    [jobset] = of_kind("JobSet")
    options = launcher("jobset.yaml", {"JOB_COMPLETION_INDEX": "1"})
    [hosts] = jobset["spec"]["replicatedJobs"]
    first = f"{jobset['metadata']['name']}-{hosts['name']}-0-0.{jobset['metadata']['name']}"
    assert (options.node, options.rdzv_endpoint) == (1, f"{first}:29500")
    assert options.max_nodes == hosts["template"]["spec"]["parallelism"] == hosts["template"]["spec"]["completions"]
    assert options.overrides == ["checkpoint.grace_s=120", "data=rm1"]


def test_hosts_of_a_trainjob_get_their_place_from_kubeflow() -> None:
    [job] = of_kind("TrainJob")
    given = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "2", "PET_NODE_RANK": "1"}
    options = launcher("trainjob.yaml", {**given, "PET_MASTER_ADDR": "first.job", "PET_MASTER_PORT": "29500"})
    assert (options.max_nodes, options.nproc_per_node, options.node) == (2, 2, 1)
    assert options.rdzv_endpoint == "first.job:29500"
    assert job["spec"]["runtimeRef"]["name"] == of_kind("TrainingRuntime")[0]["metadata"]["name"]


def test_the_budget_and_the_network_policy_select_all_that_trains() -> None:
    [budget], [policy] = of_kind("PodDisruptionBudget"), of_kind("NetworkPolicy")
    chosen = budget["spec"]["selector"]["matchLabels"]
    assert policy["spec"]["podSelector"]["matchLabels"] == chosen
    text = {path.name: path.read_text() for path in FILES}
    [label] = [f"{name}: {value}" for name, value in chosen.items()]
    assert [name for name in ("pod.yaml", "jobset.yaml", "trainjob.yaml") if label not in text[name]] == []
    assert label not in text["tensorboard.yaml"] + text["board.yaml"] + text["etl.yaml"]


def test_training_has_the_same_time_to_write_its_checkpoint_everywhere() -> None:
    seconds = {pod["terminationGracePeriodSeconds"] for name, pod in pods() if name in ("jobset.yaml", "trainjob.yaml")}
    seconds.add(documents(OVERLAY)[0]["spec"]["terminationGracePeriodSeconds"])
    compose = yaml.safe_load(COMPOSE.read_text())["services"]["trainer"]["stop_grace_period"]
    assert seconds == {int(compose.removesuffix("s"))}
    for path in (COMPOSE, OVERLAY, FOLDER / "jobset.yaml", FOLDER / "trainjob.yaml"):
        assert set(re.findall(r"checkpoint\.grace_s=(\d+)", path.read_text())) == {str(*seconds)}


@pytest.mark.parametrize("service", ["trainer", "reader", "tensorboard"])
def test_compose_has_a_read_only_root_without_rights(service: str) -> None:
    said = yaml.safe_load(COMPOSE.read_text())["services"][service]
    assert (said["read_only"], said["cap_drop"], said["tmpfs"]) == (True, ["ALL"], ["/tmp"])


@pytest.mark.parametrize("found", [case for case in OBJECTS if case.values[0]["apiVersion"] in CORE_GROUPS])
def test_kubernetes_takes_its_own_kinds(found: dict[str, Any]) -> None:
    schemas = pytest.importorskip("kubernetes_validate")
    schemas.validate(found, "1.37", strict=True)
    broken = {**found, "spec": {**found.get("spec", {}), "replicasss": 1}}
    with pytest.raises(schemas.ValidationError):
        schemas.validate(broken, "1.37", strict=True)


@pytest.mark.parametrize("kind", ["TrainingRuntime", "TrainJob"])
def test_kubeflow_takes_its_own_kinds(kind: str) -> None:
    """Its models leave out what they do not know, so that an unknown field is gone after the way there and back."""
    models = pytest.importorskip("kubeflow_trainer_api.models")
    [found] = of_kind(kind)
    model = getattr(models, f"TrainerV1alpha1{kind}")
    assert model.from_dict(copy.deepcopy(found)).to_dict() == found
    broken = {**found, "spec": {**found["spec"], "unknown": 1}}
    assert model.from_dict(copy.deepcopy(broken)).to_dict() != broken


def test_kubelet_expansion_is_that_of_kubernetes() -> None:
    """Examples of the API's own documentation of a container's command."""
    given = {"A": "1"}
    told = [manifests.as_kubelet_hands_on(text, given) for text in ("$(A)x", "$$(A)", "$(B)", "$$", "${A} $A", "$")]
    assert told == ["1x", "$(A)", "$(B)", "$", "${A} $A", "$"]
