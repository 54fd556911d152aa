"""One rank of the tests: it runs the functions of test files that it is sent, all in one process group."""

import importlib.util
import logging
import os
import sys
import traceback
from multiprocessing.connection import Connection
from types import ModuleType

import torch

from recd_dist.ranks.process_group import process_group
from recd_dist.ranks.timeouts import Timeouts


def load_module(path: str, modules: dict[str, ModuleType]) -> ModuleType:
    """Loads a test file as a module, by its path: pytest's importlib mode gives it no name to import it by."""
    if path not in modules:
        spec = importlib.util.spec_from_file_location(f"ranks_{len(modules)}", path)
        modules[path] = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = modules[path]
        spec.loader.exec_module(modules[path])
    return modules[path]


def main() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    connection = Connection(int(os.environ["RECD_TEST_FD"]))
    modules: dict[str, ModuleType] = {}
    with process_group("cpu", Timeouts(collective_s=30.0)) as ranks:
        while (job := connection.recv()) is not None:
            path, function, args = job
            try:
                connection.send((True, getattr(load_module(path, modules), function)(ranks, *args)))
            except Exception:
                connection.send((False, traceback.format_exc()))


if __name__ == "__main__":
    main()
