"""What the server of ranks loads beforehand is what a rank would load after it was forked, at every restart."""

import json
import subprocess
import sys
from pathlib import Path

_TRAIN = """
import json, os, sys, threading
import recd_dist.ranks.rank
from recd_dist.train import training
threads = len(os.listdir("/proc/self/task"))
training.prepare()
started = len(os.listdir("/proc/self/task")) - threads
before = set(sys.modules)
training.main(sys.argv[1:])
print(json.dumps([started, sorted(set(sys.modules) - before)]))
"""


def test_a_forked_rank_imports_hardly_anything(tiny: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", _TRAIN, *tiny, f"run_dir={tmp_path / 'run'}", "max_steps=2", "device=cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    num_threads, loaded = json.loads(done.stdout.splitlines()[-1])
    assert num_threads == 0, "a thread does not survive a fork"
    rooms = {name.partition(".")[0] for name in loaded}
    assert not rooms & {"numba", "scipy", "torchmetrics", "google", "hydra"}
    assert len(loaded) < 100, loaded
