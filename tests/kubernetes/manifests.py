"""The manifests of launch/kubernetes, and the pods in them."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "launch/kubernetes"
OVERLAY = FOLDER / "pod.yaml"
FILES = sorted(FOLDER.glob("*.yaml"))
CORE_GROUPS = ("v1", "apps/v1", "batch/v1", "policy/v1", "networking.k8s.io/v1")
"""Groups of Kubernetes itself; the others are defined by what is installed on a cluster."""


def documents(path: Path) -> list[dict[str, Any]]:
    """The objects of a file."""
    return list(yaml.safe_load_all(path.read_text()))


def objects() -> list[tuple[str, dict[str, Any]]]:
    """All objects with the name of their file; the overlay for TorchX is none."""
    return [(path.name, found) for path in FILES if path != OVERLAY for found in documents(path)]


def pod_specs(found: Any) -> Iterator[dict[str, Any]]:
    """Every pod specification inside an object, whatever its kind: a mapping with containers."""
    if isinstance(found, Mapping):
        if isinstance(found.get("containers"), list):
            yield dict(found)
        for value in found.values():
            yield from pod_specs(value)
    elif isinstance(found, list):
        for value in found:
            yield from pod_specs(value)


def pods() -> list[tuple[str, dict[str, Any]]]:
    """All pod specifications with the name of their file."""
    return [(name, pod) for name, found in objects() for pod in pod_specs(found)]


def violations(pod: Mapping[str, Any]) -> list[str]:
    """What a pod breaks of the Pod Security Standard "restricted", and of our own rule of a read-only root."""
    whole = pod.get("securityContext", {})
    wrong = []
    if not whole.get("runAsNonRoot") or not whole.get("runAsUser"):
        wrong.append("may run as root")
    if whole.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        wrong.append("seccompProfile")
    wrong += [f"{name}" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    wrong += [f"volume {volume['name']}: hostPath" for volume in pod.get("volumes", []) if "hostPath" in volume]
    for container in pod["containers"]:
        own = container.get("securityContext") or {}
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            wrong.append(f"{container['name']}: privileges")
        if own.get("capabilities", {}).get("drop") != ["ALL"]:
            wrong.append(f"{container['name']}: capabilities")
        if not own.get("readOnlyRootFilesystem"):
            wrong.append(f"{container['name']}: writable root")
    return wrong


def dangling(pod: Mapping[str, Any]) -> list[str]:
    """Mounts without a volume and volumes without a mount."""
    mounted = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
    return sorted(mounted ^ {volume["name"] for volume in pod.get("volumes", [])})


def as_kubelet_hands_on(text: str, variables: Mapping[str, str]) -> str:
    """A word of a command after Kubernetes has replaced $(NAME), where it knows the name, and $$ by $."""

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else variables.get(name, match[0])

    return re.sub(r"\$(?:\$|\(([^)]*)\))", replaced, text)
