"""Follows the value of one override from the command line to the optimizer that is made with it.

    PYTHONPATH=src python tests/override_path.py [--json FILE]

Trains the run of tests/fixtures/before_rooms for one step with ``optim.dense.lr=0.0123`` and looks at every call of a
function of the package, in every process that the command starts: the command itself, the check before the job, the
rank. A call counts when an argument, ``self`` included, holds the override: its text, or the number, reached through
fields, values, items, or what a function given as an argument has around it. It ends where a torch optimizer is made
with that number. PYTHONPATH chooses the source tree; nothing is imported from it here.

The way is what a reader must follow at least: the functions on the stack when the optimizer is made, and, in the
processes before, those on the stack when the next process is started. What has returned by then, such as the function
that loads the config, is not on the way but in the whole list.
"""

import argparse
import atexit
import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from itertools import groupby, pairwise
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

NAME, VALUE = "optim.dense.lr", 0.0123
PACKAGE, DEPTH, MOST_ITEMS = "recd_dist", 6, 1000
FIXTURE = Path(__file__).parent / "fixtures/before_rooms"
RUN = ["train", "--config-dir", "configs", "data=clicks", f"{NAME}={VALUE}", "run_dir=runs/traced", "max_steps=1"]
HOOK = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("override_path", {file!r})
sys.modules["override_path"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.Trace({package!r}, {out!r}).start()
"""
"""A sitecustomize.py, which every Python process runs when it starts."""

Step = tuple[str, str, str]  # module that the process runs, function, file below the package


class Holders:
    """Which objects hold the override."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._without: dict[int, Any] = {}  # frozen dataclasses without it, kept so that no other object takes their id

    def holds(self, value: Any, depth: int = DEPTH) -> bool:
        """Whether the override can be reached from an object."""
        if isinstance(value, str):
            return f"{NAME}=" in value
        if isinstance(value, float):
            return type(value) is float and value == VALUE
        if depth == 0 or value is None or isinstance(value, int | bytes | type) or id(value) in self._without:
            return False
        found = any(self.holds(inner, depth - 1) for inner in self._inside(value))
        kind = getattr(type(value), "__dataclass_params__", None)
        if kind and kind.frozen and depth == DEPTH and not found:
            self._without[id(value)] = value
        return found

    def _inside(self, value: Any) -> list[Any]:
        """What an object holds directly; arrays, tensors, modules and objects of libraries are not opened."""
        if isinstance(value, dict):
            return list(value.values())[:MOST_ITEMS]
        if isinstance(value, list | tuple | set | frozenset):
            return list(value)[:MOST_ITEMS]
        if isinstance(value, FunctionType):
            return [cell.cell_contents for cell in value.__closure__ or () if cell != type(cell)()]
        if dataclasses.is_dataclass(value):
            return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
        kind = type(value)
        ours = kind.__module__.partition(".")[0] == self._package or isinstance(value, argparse.Namespace)
        if not ours or any(base.__module__.startswith("torch.nn") for base in kind.__mro__):
            return []
        return list(vars(value).values()) if hasattr(value, "__dict__") else []


class Trace:
    """Looks at the calls of one process into ``package``, and writes what it saw into the directory ``out``."""

    def __init__(self, package: str, out: str) -> None:
        self._start, self._out = f"{package}/", Path(out) / f"{os.getpid()}.json"
        self._holders = Holders(Path(package).name)
        self._seen: dict[str, Any] = {"argv": sys.orig_argv, "calls": [], "starts": [], "end": None}

    def start(self) -> None:
        """Begins; the process writes when it starts another one, where the way ends, and at its own end."""
        atexit.register(self._write)
        threading.setprofile(self._look)
        sys.setprofile(self._look)

    def _look(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event != "call" or self._seen["end"]:
            return
        code = frame.f_code
        if code.co_filename.startswith(self._start):
            if (step := self._step(code)) and any(map(self._holders.holds, arguments(frame))):
                self._seen["calls"].append([time.monotonic_ns(), *step])
        elif code.co_qualname == "Popen.__init__" and code.co_filename.endswith("subprocess.py"):
            command = frame.f_locals.get("args")
            if isinstance(command, list | tuple) and self._holders.holds(command):
                self._seen["starts"].append({"argv": [*map(str, command)], "stack": self._stack(frame)})
                self._write()
        elif code.co_qualname == "Optimizer.__init__" and frame.f_locals.get("defaults", {}).get("lr") == VALUE:
            self._seen["end"] = self._stack(frame)
            self._write()

    def _step(self, code: CodeType) -> tuple[str, str] | None:
        """Function and file; a lambda or a comprehension belongs to the function around it, a module to none."""
        name = ".".join(part for part in code.co_qualname.split(".") if not part.startswith("<"))
        return (name, code.co_filename.removeprefix(self._start)) if name else None

    def _stack(self, frame: FrameType | None) -> list[tuple[str, str]]:
        """The package's functions that are running, the outermost first."""
        found: list[tuple[str, str]] = []
        while frame is not None:
            if frame.f_code.co_filename.startswith(self._start) and (step := self._step(frame.f_code)):
                found.insert(0, step)
            frame = frame.f_back
        return found

    def _write(self) -> None:
        self._out.write_text(json.dumps(self._seen))


def arguments(frame: FrameType) -> list[Any]:
    """The values that a call was handed."""
    code, values = frame.f_code, frame.f_locals
    num = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
    return [values.get(name) for name in code.co_varnames[:num]]


def trace(package: Path) -> list[dict[str, Any]]:
    """Runs the command; what each process saw, in order of their first calls."""
    scripts = tomllib.loads((package.parents[1] / "pyproject.toml").read_text())["project"]["scripts"]
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = shutil.copytree(FIXTURE, Path(scratch, "run")), Path(scratch, "out")
        out.mkdir()
        hook = HOOK.format(file=str(Path(__file__).resolve()), package=str(package), out=str(out))
        Path(scratch, "sitecustomize.py").write_text(hook)
        environment = os.environ | {"PYTHONPATH": f"{scratch}:{package.parent}", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", scripts["recd"].partition(":")[0], *RUN]
        ended = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, timeout=300)
        if ended.returncode:
            raise SystemExit(ended.stderr.decode())
        processes = [json.loads(path.read_text()) for path in out.iterdir()]
    return sorted((p for p in processes if p["calls"]), key=lambda process: process["calls"][0][0])


def module_of(process: dict[str, Any]) -> str:
    """The module that a process runs."""
    argv = process["argv"]
    return argv[argv.index("-m") + 1] if "-m" in argv else Path(argv[1]).name


def way(processes: list[dict[str, Any]]) -> list[Step]:
    """The stacks of the process that makes the optimizer and of those that led to it."""
    last = next((p for p in processes if p["end"]), None)
    if last is None:
        raise SystemExit(f"no optimizer was made with {NAME}={VALUE}")
    found = [(module_of(last), *step) for step in last["end"]]
    while True:
        starts = [(p, s["stack"]) for p in processes for s in p["starts"] if s["argv"][1:] == last["argv"][1:]]
        if not starts:
            return found
        last, stack = starts[0]
        found = [*((module_of(last), *step) for step in stack), *found]


def room_of(file: str) -> str:
    """The folder at the top of the package, or the module that lies there."""
    return file.partition("/")[0].removesuffix(".py")


def totals(steps: list[Step]) -> dict[str, int]:
    """Functions, files, rooms, and how often the next step is in another room."""
    rooms = [room_of(file) for _, _, file in steps]
    return {
        "functions": len({(function, file) for _, function, file in steps}),
        "files": len({file for _, _, file in steps}),
        "rooms": len(set(rooms)),
        "changes of room": sum(a != b for a, b in pairwise(rooms)),
    }


def main() -> None:
    """Traces and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit(f"no {PACKAGE} on PYTHONPATH")
    processes = trace(Path(spec.origin).resolve().parent)
    calls = sorted((time_ns, module_of(p), *step) for p in processes for time_ns, *step in p["calls"])
    handed = [step for step, _ in groupby(call[1:] for call in calls)]
    found = {f"the way of {NAME}={VALUE}": way(processes), "all that is handed it, in order": handed}
    for title, steps in found.items():
        sys.stdout.write(f"{title}\n")
        sys.stdout.writelines(f"  {process:<22} {file:<34} {function}\n" for process, function, file in steps)
        sys.stdout.write(f"  {', '.join(f'{n} {name}' for name, n in totals(steps).items())}\n\n")
    if options.json:
        options.json.write_text(json.dumps({t: {"steps": s, **totals(s)} for t, s in found.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
