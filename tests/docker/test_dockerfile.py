"""What the image is built from: the Dockerfile copies what the package is made of, and the context lets it through."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def copied() -> list[str]:
    """The first folders and files that come from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    return [word for line in lines for word in line.split()]


def test_the_image_gets_all_that_a_wheel_holds() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*(path.partition("/")[0] for path in wheel["packages"]), *wheel["force-include"]}
    before_install = DOCKERFILE.partition("--force-reinstall")[0]
    assert {name for name in needed if not re.search(rf"^COPY {name} {name}$", before_install, re.MULTILINE)} == set()
    first = re.search(r"mkdir (.*?) &&", DOCKERFILE)
    assert first
    assert set(first[1].split()) == set(wheel["force-include"])  # hatch wants them in the first layer too, if empty


def test_the_context_holds_what_is_copied() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    missing = [path for path in copied() if not any(path == name or path.startswith(f"{name}/") for name in allowed)]
    assert missing == []


def test_every_argument_of_the_build_can_be_given_to_compose() -> None:
    arguments = set(re.findall(r"^ARG (\w+)=", DOCKERFILE, re.MULTILINE)) - {"PYTHON"}
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    assert set(compose["x-image"]["build"]["args"]) == arguments
