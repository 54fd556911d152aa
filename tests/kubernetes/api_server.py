"""A Kubernetes API server on the loopback device: etcd and kube-apiserver, no nodes, so that nothing runs."""

import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

ASSETS = "KUBEBUILDER_ASSETS"
"""The environment variable of envtest: a directory with etcd, kube-apiserver and kubectl."""
PROGRAMS = ("etcd", "kube-apiserver", "kubectl")
STARTS_S = 60


class Refused(Exception):
    """The API server refused an object; the message is what it answered."""


def missing() -> str:
    """Why no API server can be started here; empty where one can."""
    folder = os.environ.get(ASSETS)
    if not folder:
        return f"{ASSETS} names no directory with {', '.join(PROGRAMS)}"
    gone = [name for name in PROGRAMS if not os.access(Path(folder, name), os.X_OK)]
    return f"{ASSETS}={folder} has no {', '.join(gone)}" if gone else ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ApiServer:
    """etcd and kube-apiserver, stopped at the end of the ``with`` block.

    Args:
        folder: an empty directory for data, keys and logs.

    Attributes:
        kubeconfig: the file with which clients reach the server as an administrator.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._programs = folder, Path(os.environ[ASSETS])
        self._children: list[subprocess.Popen[bytes]] = []
        self.kubeconfig = folder / "kubeconfig.json"

    def __enter__(self) -> "ApiServer":
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self._children):
            child.kill()  # the server would wait a minute for its clients
            child.wait()

    def _start(self) -> None:
        here, port, token = self._folder, _free_port(), secrets.token_hex(16)
        etcd, peers = (f"http://127.0.0.1:{_free_port()}" for _ in range(2))
        key = here / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        (here / "tokens.csv").write_text(f'{token},admin,1,"system:masters"\n')
        clients = ("--listen-client-urls", etcd, "--advertise-client-urls", etcd)
        self._run("etcd", "--data-dir", str(here / "etcd"), *clients, "--listen-peer-urls", peers)
        self._run(
            "kube-apiserver",
            *("--etcd-servers", etcd, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"),
            *("--secure-port", str(port), "--cert-dir", str(here), "--token-auth-file", str(here / "tokens.csv")),
            *(
                "--service-account-issuer",
                "https://kubernetes.default.svc",
                "--service-cluster-ip-range",
                "10.0.0.0/24",
            ),
            *("--service-account-key-file", str(key), "--service-account-signing-key-file", str(key)),
            *("--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount"),
        )
        server = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(here / "apiserver.crt")}
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": server}],
                    "users": [{"name": "admin", "user": {"token": token}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
                    "current-context": "test",
                }
            )
        )
        self._wait()

    def _run(self, program: str, *arguments: str) -> None:
        with (self._folder / f"{program}.log").open("wb") as log:
            self._children.append(
                subprocess.Popen([self._programs / program, *arguments], stdout=log, stderr=subprocess.STDOUT)
            )

    def _wait(self) -> None:
        until = time.monotonic() + STARTS_S
        while True:
            try:
                self.kubectl("get", "--raw", "/readyz")
                return
            except Refused as refusal:
                dead = [child.args for child in self._children if child.poll() is not None]
                if dead or time.monotonic() > until:
                    logs = [path.read_text()[-2000:] for path in self._folder.glob("*.log")]
                    raise RuntimeError(f"no API server: {refusal}; ended: {dead}\n" + "\n".join(logs)) from refusal
                time.sleep(0.3)

    def kubectl(self, *arguments: str, given: str = "") -> str:
        """What kubectl prints.

        Args:
            arguments: its command line.
            given: its standard input.

        Raises:
            Refused: it failed.
        """
        command = [str(self._programs / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refused(done.stderr.strip())
        return done.stdout

    def define(self, files: Sequence[Path]) -> None:
        """Adds kinds, and waits until the server knows them.

        A default of "" is left out, and with it the key of a list that such a default stands for: servers before 1.21
        read it as null. It fills in a name that nobody leaves out.

        Args:
            files: CustomResourceDefinitions.
        """
        for path in files:
            definition = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
            _remove_empty_defaults(definition)
            self.kubectl("create", "--validate=false", "-f", "-", given=json.dumps(definition))
        self.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")

    def create(self, found: Mapping[str, Any], *options: str) -> str:
        """Lets the server take an object.

        Args:
            found: the object. A PodDisruptionBudget is asked for in the version that the server has.
            options: more of kubectl's options.

        Raises:
            Refused: the server did not take it.
        """
        if found["apiVersion"] == "policy/v1" and "policy/v1" not in self.kubectl("api-versions").split():
            found = {**found, "apiVersion": "policy/v1beta1"}
        # Fields of Kubernetes' own kinds that are newer than an old server are no mistake; those of others are.
        lenient = ["--validate=false"] if "." not in found["apiVersion"].partition("/")[0] else []
        return self.kubectl("create", *lenient, *options, "-f", "-", given=json.dumps(found))


def _remove_empty_defaults(schema: Any) -> None:
    if isinstance(schema, list):
        for value in schema:
            _remove_empty_defaults(value)
    elif isinstance(schema, dict):
        members = schema.get("items", {}).get("properties", {}) if isinstance(schema.get("items"), dict) else {}
        if any(members.get(key, {}).get("default") == "" for key in schema.get("x-kubernetes-list-map-keys", [])):
            del schema["x-kubernetes-list-map-keys"], schema["x-kubernetes-list-type"]
        if schema.get("default") == "":
            del schema["default"]
        for value in schema.values():
            _remove_empty_defaults(value)
