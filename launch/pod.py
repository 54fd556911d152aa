"""What Kubernetes can say of a pod and TorchX cannot: a file whose fields are laid over those that TorchX makes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from torchx import specs
from torchx.specs.finder import ComponentValidationException
from torchx.specs.overlays import JOIN, set_overlay


def lay_over(role: specs.Role, path: str) -> None:
    """Lays a pod of a YAML file over the pods of a role; other schedulers than kubernetes do not look at it.

    Mappings are merged and lists are added to. The one container of the file is the role's, whatever its name: TorchX
    names a container after its host, so that the file could not. Of its fields, lists are added to, others replaced.

    Args:
        role: the role.
        path: the file, with metadata and spec as in a Pod; launch/kubernetes/pod.yaml is one.

    Raises:
        ComponentValidationException: the file cannot be read, or is no such pod.
    """
    pod = _read(path)
    spec = dict(pod.get("spec") or {})
    containers = spec.pop("containers", None) or []
    if len(containers) > 1:
        raise ComponentValidationException(f"--pod {path}: {len(containers)} containers; the job has one")
    if containers:
        spec[JOIN("containers", on="image")] = [_container(role, containers[0])]
    set_overlay(role, "kubernetes", "V1Pod", {**pod, "spec": spec})


def _container(role: specs.Role, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a container that replace those of TorchX, which replaces a list whole."""
    try:
        from torchx.schedulers.kubernetes_scheduler import role_to_pod, sanitize_for_serialization

        made = sanitize_for_serialization(role_to_pod(role.name, role, None))["spec"]["containers"][0]
    except ModuleNotFoundError as error:
        raise ComponentValidationException(
            "--pod: the package kubernetes is not installed: pip install kubernetes"
        ) from error
    fields = {name: [*made.get(name, []), *of] if isinstance(of, list) else of for name, of in wanted.items()}
    fields.pop("name", None)
    return {**fields, "image": role.image}


def _read(path: str) -> dict[str, Any]:
    try:
        pod = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ComponentValidationException(f"--pod {path}: {error}") from error
    if not isinstance(pod, dict) or not pod.keys() <= {"apiVersion", "kind", "metadata", "spec"}:
        raise ComponentValidationException(f"--pod {path}: no pod; write metadata: and spec: as in a Pod's manifest")
    return {name: pod[name] for name in ("metadata", "spec") if pod.get(name)}
