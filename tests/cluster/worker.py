"""One rank of a job in the network lab: calls a function of a test file and leaves what it returns in a file.

torchrun worker.py FILE FUNCTION JSON_ARGUMENTS RESULTS
"""

import importlib.util
import json
import logging
import sys
from pathlib import Path

import torch

from recd_dist.ranks.process_group import process_group
from recd_dist.ranks.timeouts import Timeouts


def main(path: str, function: str, args: str, results: str) -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    spec = importlib.util.spec_from_file_location("job", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["job"] = module
    spec.loader.exec_module(module)
    with process_group("cpu", Timeouts(collective_s=60.0)) as ranks:
        found = getattr(module, function)(ranks, *json.loads(args))
        Path(results, f"{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
