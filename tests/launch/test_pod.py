"""--pod: a file laid over the pods that TorchX makes for Kubernetes."""

from pathlib import Path
from typing import Any

import pytest
from launch.train import train
from tests.kubernetes.manifests import OVERLAY, dangling, violations
from torchx.runner import get_runner
from torchx.specs import AppDef
from torchx.specs.finder import ComponentValidationException


def pods(app: AppDef) -> list[dict[str, Any]]:
    """The pods of a dry run, as they are sent."""
    client = pytest.importorskip("kubernetes").client
    with get_runner() as runner:
        job = runner.dryrun(app, "kubernetes", {"queue": "default", "validate_spec": False}).request.resource
    return [task["template"] for task in client.ApiClient().sanitize_for_serialization(job)["spec"]["tasks"]]


def test_every_host_gets_what_the_file_says_in_its_one_container() -> None:
    mounts = ["type=volume", "src=recd-runs", "dst=/recd/runs"]
    plain = pods(train("data=tiny", j="2x1", mounts=mounts))
    laid = pods(train("data=tiny", j="2x1", mounts=mounts, pod=str(OVERLAY), board_port=6006, run="runs/a"))
    assert len(laid) == 3  # and the host of the curves
    for before, pod in zip(plain, laid[:2], strict=True):
        [was], [container] = before["spec"]["containers"], pod["spec"]["containers"]
        assert container["name"] == was["name"]
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/dev/shm", "/recd/runs", "/tmp"]
        assert container["resources"] == was["resources"]
        assert container["livenessProbe"]["exec"]["command"] == ["recd-alive"]
        assert pod["metadata"]["labels"].items() >= {**before["metadata"]["labels"], "recd/job": "training"}.items() - {
            ("app.kubernetes.io/instance", before["metadata"]["labels"]["app.kubernetes.io/instance"])
        }
    assert [violations(pod["spec"]) + dangling(pod["spec"]) for pod in laid] == [[]] * 3


def test_without_it_a_pod_of_torchx_is_not_restricted() -> None:
    [pod] = pods(train("data=tiny"))
    assert "may run as root" in violations(pod["spec"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("spec: {containers: [{name: a}, {name: b}]}", "2 containers; the job has one"),
        ("[1, 2]", "write metadata: and spec:"),
        ("terminationGracePeriodSeconds: 1", "write metadata: and spec:"),
        ("a: [", "while parsing"),
    ],
)
def test_what_is_no_pod_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(text)
    with pytest.raises(ComponentValidationException, match=rf"--pod .*{said}"):
        train(pod=str(path))
    path.unlink()
    with pytest.raises(ComponentValidationException, match="No such file"):
        train(pod=str(path))
