"""Guards of the house: what the style asks of every file, and places that must agree with each other."""

import ast
import importlib.metadata
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest.mock import Mock

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.house import measure

from recd_dist.ranks.health.release_lines import LINES, ReleaseLine, require_release_line

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "recd_dist").rglob("*.py"))
PLUGINS = sorted((ROOT / "src" / "torchx_plugins").rglob("*.py"))
MAX_LINES, MAX_TEST_LINES, MAX_FUNCTION_LINES = 350, 400, 60
README = (ROOT / "README.md").read_text()
PAGES = {
    path.name: path.read_text() for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
readme_written = pytest.mark.skipif("## " not in README, reason="README.md has no section yet")


def tracked_files() -> list[Path]:
    """The files that are or would be committed."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def pins(line: str = "") -> dict[str, str]:
    """Distribution -> version of constraints.txt, with the changes of a release line."""
    files = ["constraints.txt", *([f"constraints-{line}.txt"] if line else [])]
    lines = [text for name in files for text in (ROOT / name).read_text().splitlines() if not text.startswith("#")]
    return {canonicalize_name(name): version for name, version in (text.split("==") for text in lines)}


def requirements(*extras: str) -> list[Requirement]:
    groups = [PROJECT["optional-dependencies"][extra] for extra in extras] or [PROJECT["dependencies"]]
    found = [Requirement(text) for group in groups for text in group]
    own = [r for r in found if r.name == PROJECT["name"]]  # extras that consist of others
    return [r for r in found if r not in own] + [r for o in own for r in requirements(*sorted(o.extras))]


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        path for path in SOURCES if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_the_library_logs_and_does_not_print() -> None:
    printing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        if path.name != "cli.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def test_json_is_written_in_one_place() -> None:
    """Elsewhere a nan would become NaN, which is no JSON. The ETL's notes to itself hold no floats."""
    own = {"files/json_text.py"}
    names = {path: path.relative_to(ROOT / "src/recd_dist").as_posix() for path in SOURCES}
    writing = [
        name
        for path, name in names.items()
        if name not in own and not name.startswith("etl/") and re.search(r"\bjson\.dumps?\(", path.read_text())
    ]
    assert writing == []


def test_files_and_functions_stay_short() -> None:
    long = []
    for path in [
        *SOURCES,
        *PLUGINS,
        *ROOT.glob("launch/*.py"),
        *ROOT.glob("tests/**/*.py"),
        *ROOT.glob("benchmarks/*.py"),
    ]:
        text = path.read_text()
        most = MAX_LINES if path in [*SOURCES, *PLUGINS] else MAX_TEST_LINES
        if (num_lines := len(text.splitlines())) > most:
            long.append(f"{path.relative_to(ROOT)}: {num_lines} lines")
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.FunctionDef)
                and (num_lines := node.end_lineno - node.lineno + 1) > MAX_FUNCTION_LINES
            ):
                long.append(f"{path.relative_to(ROOT)}: {node.name} has {num_lines} lines")
    assert long == []


def test_every_folder_of_the_source_has_a_folder_of_tests() -> None:
    package = ROOT / "src" / "recd_dist"
    folders = {path.parent.relative_to(package) for path in SOURCES if path.stem != "__init__"}
    untested = [str(folder) for folder in folders if not list((ROOT / "tests" / folder).glob("test_*.py"))]
    assert sorted(untested) == []


def test_a_file_name_stands_for_one_thing() -> None:
    names = [path.stem for path in SOURCES if path.stem != "__init__"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_no_rooms_wings_or_modules_import_each_other_in_a_circle() -> None:
    assert {kind: circles for kind, circles in measure(ROOT / "src" / "recd_dist").circles.items() if circles} == {}


def test_few_modules_stand_outside_a_room() -> None:
    loose = {path.name for path in (ROOT / "src" / "recd_dist").glob("*.py")}
    assert loose == {"__init__.py", "cli.py", "errors.py"}


def test_no_drawer_for_odds_and_ends() -> None:
    drawers = {"utils", "util", "common", "helpers", "misc"}
    assert [path for path in SOURCES if drawers & {path.stem, *path.relative_to(ROOT).parts}] == []


def test_nothing_names_a_machine_or_a_registry() -> None:
    hosts = ["pypi" + r"\.org", "python" + r"hosted\.org", "download" + r"\.pytorch", "npm" + r"js\.(org|com)"]
    forbidden = re.compile(r"(?<![\w.}])/(work" + "|root" + r")/|" + "|".join(hosts))
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in forbidden.finditer(text)]
    assert found == []


def test_light_modules_do_not_load_torch() -> None:
    package = ROOT / "src" / "recd_dist"
    rooms = ["commands", "etl", "job", "screen", "suggest", "synthetic", "table"]
    heavy = {"recd_dist.commands.plan"}
    modules = [path for room in rooms for path in (package / room).rglob("[a-z]*.py") if "spark" not in path.parts]
    names = {".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in modules} - heavy
    names |= {"recd_dist", "recd_dist.cli", "recd_dist.errors", "recd_dist.ranks.launcher", "recd_dist.ranks.rank"}
    code = (
        f"import importlib, sys\nfor name in {sorted(names)}:\n"
        " importlib.import_module(name)\n assert 'torch' not in sys.modules, name"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr


@readme_written
def test_every_config_is_documented() -> None:
    text = "\n".join(PAGES.values())
    unnamed = []
    for path in ROOT.glob("configs/**/*.yaml"):
        group, name = path.parent.name, path.stem
        words = [f"{name}.yaml", f"{group}={name}", f"`{name}`", f"configs/{name}"]
        if not any(word in text for word in words):
            unnamed.append(str(path.relative_to(ROOT)))
    assert unnamed == []


def commands(pattern: str) -> set[tuple[str, str]]:
    """(page, name) of every command of that pattern in code on a page."""
    code = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
    return {
        (page, name)
        for page, text in PAGES.items()
        for span in code.findall(text)
        for name in re.findall(pattern, span)
    }


def test_documented_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {
        (page, name) for page, name in commands(r"(?:^|[`\n$ ])make ([a-z][a-z-]*)") if name not in targets
    } == set()


def test_documented_recd_commands_exist() -> None:
    from recd_dist.cli import COMMANDS

    assert {(page, name) for page, name in commands(r"(?:^|[`\n$ /])recd ([a-z]+)") if name not in COMMANDS} == set()


def test_documented_components_and_files_exist() -> None:
    named = commands(r"(?:^|[`\n$ ])((?:launch|docs|docker|packaging|benchmarks|src|configs|tests)/[\w./-]*\w)")
    assert {(page, name) for page, name in named if not (ROOT / name).exists()} == set()
    functions = commands(r"launch/(\w+\.py:\w+)")
    for page, name in functions:
        file, _, function = name.partition(":")
        assert f"def {function}(" in (ROOT / "launch" / file).read_text(), f"{page}: {name}"


def test_every_make_target_has_a_line_of_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    assert phony == set(re.findall(r"^([a-z-]+):.*## \w", makefile, re.MULTILINE))


@pytest.mark.parametrize("line", LINES, ids=str)
def test_constraints_pin_the_release_lines_of_the_extras(line: ReleaseLine) -> None:
    pinned, suffix = pins(line.name), f"-{line.name}" if line.name else ""
    for requirement in [*requirements(), *requirements(f"cpu{suffix}", f"cuda{suffix}", "dev")]:
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: the constraints have {version}"
    for fbgemm in ("fbgemm-gpu-cpu", "fbgemm-gpu"):
        assert require_release_line({name: pinned[name] for name in ("torch", "torchrec", fbgemm)}) is line


def test_a_line_names_only_what_it_changes() -> None:
    changes = {path.name: path.read_text() for path in ROOT.glob("constraints-*.txt")}
    assert set(changes) == {f"constraints-{line.name}.txt" for line in LINES if line.name}
    again = {line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert {line for text in changes.values() for line in text.splitlines()} & again == set()


@pytest.mark.parametrize("line", LINES, ids=str)
def test_the_shim_stands_for_the_cpu_build_of_the_line(line: ReleaseLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERSIONS", line.name)
    monkeypatch.setitem(sys.modules, "hatchling.metadata.plugin.interface", Mock(MetadataHookInterface=object))
    pinned, metadata = pins(line.name), {}
    hook = runpy.run_path(str(ROOT / "packaging/fbgemm-gpu-cpu-shim/hatch_build.py"))
    hook["ReleaseLine"]().update(metadata)
    needed = [f"{name}=={pinned[name]}" for name in ("torch", "torchrec", "fbgemm-gpu-cpu")]
    assert metadata == {"version": f"{pinned['fbgemm-gpu-cpu']}+cpu", "dependencies": needed}


def test_constraints_name_no_local_build() -> None:
    assert [name for line in LINES for name, version in pins(line.name).items() if "+" in version] == []


def installed_requirements() -> set[str]:
    """Every distribution that this project needs here, directly or not."""
    line = require_release_line()
    waiting, found = [("recd-dist", frozenset({f"cpu-{line.name}" if line.name else "cpu", "dev"}))], set()
    while waiting:
        name, extras = waiting.pop()
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            wanted = needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras | {""})
            if wanted and canonicalize_name(needed.name) not in found:
                found.add(canonicalize_name(needed.name))
                waiting.append((needed.name, frozenset(needed.extras)))
    return found


def test_installed_versions_are_the_pinned_ones() -> None:
    line = require_release_line()
    pinned = pins(line.name)
    # What a CUDA build of torch brings is pinned by torch itself on the default line.
    free = re.compile("" if line.name else r"triton|nvidia-.*|cuda-.*")
    wrong = []
    for name in sorted(name for name in installed_requirements() if not free.fullmatch(name)):
        version = importlib.metadata.version(name).partition("+")[0]
        if pinned.get(name) != version:
            wrong.append(f"{name}: installed {version}, the constraints have {pinned.get(name)}")
    assert wrong == []


@readme_written
def test_readme_names_the_versions_that_belong_together() -> None:
    for pinned in map(pins, [line.name for line in LINES]):
        for name in ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu"):
            assert re.search(rf"{name}\b.*\b{re.escape(pinned[name])}\b", README), f"{name} {pinned[name]}"


def test_changelog_has_this_version() -> None:
    from recd_dist import __version__

    assert re.search(rf"^## {re.escape(__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
