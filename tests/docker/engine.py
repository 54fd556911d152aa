"""Builds the image and runs it: with Docker where its daemon answers, otherwise with buildah and runc.

buildah builds without a daemon and without user namespaces (chroot isolation, the vfs store), runc runs the image's own
root file system from a bundle that says what ``docker run`` would. Both are packages of Debian and want root.
"""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/python:3.11-slim-bookworm"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OPTIONS = "RECD_BUILD_OPTIONS"
"""The environment variable with further options of the build, such as ``-v /opt/wheels:/opt/wheels:ro``."""


Done = subprocess.CompletedProcess[str]


def missing() -> str:
    """Why no image can be built here; empty where one can."""
    if _docker_answers():
        return ""
    gone = [name for name in ("buildah", "runc") if not shutil.which(name)]
    if gone:
        return f"no Docker daemon answers, and {', '.join(gone)} is not installed"
    return "" if os.geteuid() == 0 else "buildah and runc want root"


def _docker_answers() -> bool:
    return bool(shutil.which("docker")) and _is_fine("docker", "info")


def _is_fine(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _said(command: Sequence[str], **variables: str) -> str:
    env = {**os.environ, **variables}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


class Docker:
    """The engine of most people.

    Args:
        folder: a directory for what lies outside of the image.
    """

    def __init__(self, folder: Path) -> None:
        self._image = "recd_dist:test"

    def build(self) -> None:
        """Builds the image."""
        more = shlex.split(os.environ.get(OPTIONS, ""))
        _said(["docker", "build", "-f", "docker/Dockerfile", "-t", self._image, *more, str(ROOT)])

    def size(self) -> int:
        """Bytes of the image."""
        return int(self.config()["Size"])

    def config(self) -> dict[str, Any]:
        """What the engine says of the image."""
        return json.loads(_said(["docker", "image", "inspect", self._image]))[0]

    def run(
        self, volumes: Mapping[str, Path], command: Sequence[str], user: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command with a read-only root file system, without capabilities.

        Args:
            volumes: directories of this machine by their place in the container.
            command: what to run.
            user: another user id.
        """
        options = [word for place, path in volumes.items() for word in ("-v", f"{path}:{place}")]
        options += ["--user", user] if user else []
        fixed = ("docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--shm-size", "1g", "--cap-drop", "ALL")
        return subprocess.run([*fixed, *options, self._image, *command], capture_output=True, text=True, check=False)

    def remove(self) -> None:
        """Removes the image."""
        _said(["docker", "image", "rm", self._image])


class BuildahAndRunc:
    """The same without a daemon.

    Args:
        folder: a directory for the store of images, removed with it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._image = folder, "localhost/recd_dist:test"
        self._store = ["--root", str(folder / "store"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]

    def _buildah(self, *arguments: str) -> str:
        return _said(["buildah", *self._store, *arguments], TMPDIR=str(self._folder))  # pip's cache lies there

    def build(self) -> None:
        """Builds the image. Where the base image cannot be pulled, a Debian with Python stands in for it."""
        try:
            self._buildah("pull", BASE)
        except RuntimeError:
            self._make_base()
        more = shlex.split(os.environ.get(OPTIONS, ""))
        fixed = ("--isolation", "chroot", "--pull-never", "--format", "docker", "-f", "docker/Dockerfile")
        self._buildah("build", *fixed, "-t", self._image, *more, str(ROOT))

    def _make_base(self) -> None:
        root = self._folder / "base"
        wanted = "python3,python3-venv,python3-pip,ca-certificates"
        _said(["debootstrap", "--variant=minbase", f"--include={wanted}", "bookworm", str(root)])
        shutil.rmtree(root / "var/cache/apt/archives")
        _said(["tar", "-C", str(root), "-cf", f"{root}.tar", "."])
        shutil.rmtree(root)
        made = self._buildah("from", "scratch").strip()
        self._buildah("add", "--quiet", made, f"{root}.tar", "/")
        Path(f"{root}.tar").unlink()
        self._buildah("config", "--env", f"PATH={PATH}", made)
        self._buildah("commit", "--rm", "--quiet", made, BASE)

    def size(self) -> int:
        """Bytes of the image's own files and of its base."""
        files = _said(["du", "-sb", "-x", self.config()["Root"]])
        return int(files.split()[0])

    def config(self) -> dict[str, Any]:
        """What the engine says of the image, and ``Root``: the directory with its files."""
        said = json.loads(self._buildah("inspect", "--type", "image", self._image))
        folders = [folder for folder in (self._folder / "store/vfs/dir").iterdir() if not (folder / "build").exists()]
        [layer] = [folder for folder in folders if (folder / "opt/recd_dist/bin/recd").exists()]
        return {"Config": said["Docker"]["config"], "Root": str(layer)}

    def run(
        self, volumes: Mapping[str, Path], command: Sequence[str], user: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command with a read-only root file system, without capabilities.

        Args:
            volumes: directories of this machine by their place in the container.
            command: what to run.
            user: another user id.
        """
        bundle = self._folder / "bundle"
        bundle.mkdir(exist_ok=True)
        (bundle / "config.json").unlink(missing_ok=True)
        _said(["runc", "spec", "--bundle", str(bundle)])
        spec = json.loads((bundle / "config.json").read_text())
        said = self.config()
        uid, _, gid = (user or said["Config"]["User"]).partition(":")
        (bundle / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 recd\n")
        tmpfs = ["nosuid", "nodev", "noexec", "mode=1777"]
        mounts = {place: str(path) for place, path in volumes.items()} | {"/etc/hosts": str(bundle / "hosts")}
        spec["root"] = {"path": said["Root"], "readonly": True}
        spec["hostname"] = "recd"
        spec["mounts"] += [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": tmpfs}]
        spec["mounts"] += [{"destination": to, "source": of, "options": ["rbind"]} for to, of in mounts.items()]
        for mount in spec["mounts"]:
            if mount["destination"] == "/dev/shm":
                mount["options"] = [o for o in mount["options"] if not o.startswith("size=")] + ["size=1g"]
        spec["process"] |= {
            "terminal": False,
            "user": {"uid": int(uid), "gid": int(gid or 0)},
            "cwd": said["Config"]["WorkingDir"],
            "env": said["Config"]["Env"],
            "args": list(command),
            "capabilities": {},
            "rlimits": [],
            "noNewPrivileges": True,
        }
        (bundle / "config.json").write_text(json.dumps(spec))
        name = f"recd-test-{os.getpid()}"
        command = ["runc", "--root", str(self._folder / "runc"), "run", "--bundle", str(bundle), name]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def remove(self) -> None:
        """Removes all images with their store."""
        shutil.rmtree(self._folder, ignore_errors=True)


def engine(folder: Path) -> Docker | BuildahAndRunc:
    """The engine of this machine.

    Args:
        folder: an empty directory on a disk with 8 GB free.
    """
    return Docker(folder) if _docker_answers() else BuildahAndRunc(folder)
