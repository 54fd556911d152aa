"""Measures the house: rooms, wings, layers, arrows, circles, names that occur twice, lines.

    python -m tests.house [--src src/recd_dist] [--json FILE]

A room is a folder at the top of the package, a wing a folder inside a room. A module that lies loose at the top counts
as a room of its own where imports are concerned; ``__init__.py`` of the package is no room. The sources are parsed and
never imported. Imports inside functions count, modules that are started by name (``-m``) do not.
"""

import argparse
import ast
import json
import math
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

Graph = dict[str, set[str]]
"""Name -> the names that it imports. Every name is a key, and none imports itself."""


@dataclass(frozen=True)
class Lines:
    """Lines of the files that are not empty, or of functions; a nested function counts in the outer one, and itself."""

    num: int
    total: int
    median: float
    percentile_90: int
    longest: tuple[int, str]

    @classmethod
    def of(cls, lines: Mapping[str, int]) -> "Lines":
        """Of the lines by name."""
        counts, longest = sorted(lines.values()) or [0], max(((n, name) for name, n in lines.items()), default=(0, ""))
        most = counts[math.ceil(0.9 * len(counts)) - 1]
        return cls(len(lines), sum(counts), statistics.median(counts), most, longest)


@dataclass(frozen=True)
class House:
    """What a source tree came to.

    Attributes:
        layers: room or loose module -> files and lines, by layer, the lowest first. A layer imports only lower ones,
            but for the members of a circle, which share a layer.
        num_module_layers: the longest way down through the modules' imports, in modules.
        num_arrows: pairs of rooms of which one imports the other.
        circles: what imports each other. ``folders``: each without the folders in it; ``neighbours``: what lies side by
            side in one folder, each with all that it holds.
        doubled: file name -> its places, where it has several.
    """

    loose: list[str]
    rooms: list[str]
    wings: list[str]
    layers: list[dict[str, tuple[int, int]]]
    num_module_layers: int
    num_arrows: int
    circles: dict[str, list[list[str]]]
    doubled: dict[str, list[str]]
    files: Lines
    functions: Lines


def measure(src: Path) -> House:
    """Measures a package, given its directory, such as ``src/recd_dist``."""
    paths = {path.relative_to(src).as_posix(): path for path in sorted(src.rglob("*.py"))}
    trees = {path: ast.parse(full.read_text()) for path, full in paths.items()}
    lines = {path: len(full.read_text().splitlines()) for path, full in paths.items()}
    modules = {path.removesuffix(".py").replace("/", "."): tree for path, tree in trees.items()}
    imports = {name: imported(tree, name, src.name, modules) for name, tree in modules.items()}
    rooms = merged(imports, lambda name: name.partition(".")[0])
    folders = sorted({path.rpartition("/")[0] for path in paths} - {""})
    return House(
        loose=[path for path in paths if "/" not in path and path != "__init__.py"],
        rooms=[folder for folder in folders if "/" not in folder],
        wings=[folder for folder in folders if "/" in folder],
        layers=[{room: size(room, lines) for room in layer} for layer in layers(rooms)],
        num_module_layers=len(layers(imports)),
        num_arrows=sum(map(len, rooms.values())),
        circles={
            "rooms": circles(rooms),
            "modules": circles(imports),
            "folders": circles(merged(imports, lambda name: name.rpartition(".")[0])),
            "neighbours": [circle for folder in folders for circle in circles(neighbours(imports, folder))],
        },
        doubled=doubled(lines),
        files=Lines.of({path: n for path, n in lines.items() if n}),
        functions=Lines.of(dict(functions(trees))),
    )


def imported(tree: ast.AST, name: str, package: str, modules: Mapping[str, object]) -> set[str]:
    """The modules of the package that a module names in its imports; a name inside a module stands for the module."""
    full: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = [package, *name.split(".")][: -node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            full.update(f"{base}.{alias.name}" for alias in node.names)
    inside = [n.removeprefix(f"{package}.") for n in full if n.startswith(f"{package}.")]
    found = {module_of(n, modules) or module_of(n.rpartition(".")[0], modules) or name for n in inside}
    return found - {name}


def module_of(name: str, modules: Mapping[str, object]) -> str | None:
    """The module of that name, or the ``__init__`` of the folder of that name."""
    return next((n for n in (name, f"{name}.__init__".lstrip(".")) if n in modules), None)


def functions(trees: Mapping[str, ast.AST]) -> Iterator[tuple[str, int]]:
    """Name, with its place, and lines of every function, method and nested function."""
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{node.name} ({path}:{node.lineno})", (node.end_lineno or 0) - node.lineno + 1


def merged(graph: Graph, group: Callable[[str], str]) -> Graph:
    """The graph of groups of names; the package itself is in none."""
    found: Graph = defaultdict(set)
    for name, targets in graph.items():
        found[group(name)].update(map(group, targets))
    outside = {"", "__init__"}
    return {name: targets - {name} - outside for name, targets in found.items() if name not in outside}


def neighbours(graph: Graph, folder: str) -> Graph:
    """The graph of the modules and folders that lie in one folder, by what they import of each other."""
    start = folder.replace("/", ".") + "."
    within = {n: {t for t in targets if t.startswith(start)} for n, targets in graph.items() if n.startswith(start)}
    return merged(within, lambda name: start + name.removeprefix(start).partition(".")[0])


def reachable(graph: Graph) -> Graph:
    """Name -> every name that it imports, directly or through others; itself only where it is in a circle."""
    found: Graph = {}
    for name in graph:
        seen, waiting = set[str](), list(graph[name])
        while waiting:
            if (target := waiting.pop()) not in seen:
                seen.add(target)
                waiting += graph[target]
        found[name] = seen
    return found


def circles(graph: Graph) -> list[list[str]]:
    """Names that reach each other."""
    reach = reachable(graph)
    found = {tuple(sorted(t for t in reach[n] if n in reach[t])) for n in graph if n in reach[n]}
    return [list(circle) for circle in sorted(found)]


def layers(graph: Graph) -> list[list[str]]:
    """Names by layer, the lowest first: each is one layer above the highest that it imports outside its circle."""
    reach = reachable(graph)

    @cache
    def layer(name: str) -> int:
        return max((layer(target) + 1 for target in reach[name] if name not in reach[target]), default=0)

    height = max(map(layer, graph), default=-1) + 1
    return [sorted(name for name in graph if layer(name) == number) for number in range(height)]


def size(room: str, lines: Mapping[str, int]) -> tuple[int, int]:
    """Files and lines of a room or loose module."""
    inside = [n for path, n in lines.items() if path.startswith((f"{room}.py", f"{room}/"))]
    return len(inside), sum(inside)


def doubled(paths: Mapping[str, int]) -> dict[str, list[str]]:
    """File names that occur several times, with their places."""
    stems = Counter(Path(path).stem for path in paths)
    several = sorted(name for name, n in stems.items() if n > 1 and name != "__init__")
    return {name: [path for path in paths if Path(path).stem == name] for name in several}


def render(house: House) -> str:
    """The house for people: a table, then a line for each layer, the lowest at the bottom."""
    listed = {"loose modules": house.loose, "rooms": house.rooms, "wings": house.wings}
    rows = [(name, f"{len(found)}  {' '.join(found)}") for name, found in listed.items()]
    levels = f"{len(house.layers)} of rooms, {house.num_module_layers} of modules"
    rows += [("layers", levels), ("arrows between rooms", str(house.num_arrows))]
    joined = {kind: [" - ".join(circle) for circle in found] for kind, found in house.circles.items()}
    rows += [(f"circles of {kind}", f"{len(found)}  {'; '.join(found)}") for kind, found in joined.items()]
    rows.append(("names in several places", str(len(house.doubled))))
    rows += [(f"  {name}", " ".join(places)) for name, places in house.doubled.items()]
    for kind, lines in (("file", house.files), ("function", house.functions)):
        pace = f"median {lines.median:g}, 90th percentile {lines.percentile_90}, longest {lines.longest[0]}"
        rows.append((f"lines a {kind}", f"{pace}: {lines.longest[1]}; {lines.num:,} {kind}s, {lines.total:,} lines"))
    table = [f"{name:<24}{value}".rstrip() for name, value in rows]
    for number, layer in reversed(list(enumerate(house.layers, 1))):
        names = ", ".join(f"{name} ({files}, {lines:,})" for name, (files, lines) in layer.items())
        table.append(f"layer {number:>2}  {names}")
    return "\n".join(table) + "\n"


def main() -> None:
    """Measures, prints, writes JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--src", type=Path, default=Path("src/recd_dist"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    house = measure(options.src)
    sys.stdout.write(render(house))
    if options.json:
        options.json.write_text(json.dumps(asdict(house), indent=1) + "\n")


if __name__ == "__main__":
    main()
