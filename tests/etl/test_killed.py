"""kill -9 at random moments: the next run goes on, and its table equals that of an undisturbed run, byte for byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recd_dist.synthetic.logs import generate
from recd_dist.synthetic.spec import SyntheticSpec
from recd_dist.table.manifest import Manifest

ROOT = Path(__file__).parents[2]
GROUPS = {
    "history": {"stay": 0.85, "update": "shift", "ids": {"clicks": {"table": "item", "length": 30}}},
    "profile": {"stay": 0.95, "ids": ["region"], "dense": ["age"]},
    "sample": {"ids": {"candidate": {"table": "item"}}, "dense": ["price"]},
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tables = {"item": 500, "region": 200}
    spec = SyntheticSpec.from_dict({"num_samples": 20_000, "num_users": 500, "tables": tables, "groups": GROUPS})
    return generate(spec, tmp_path_factory.mktemp("killed") / "raw", progress=False)


def killed(raw: Path, out: Path, kills: int, seed: int, *more: str) -> list[dict[str, object]]:
    arguments = [str(raw), str(out), str(kills), str(seed), *more]
    done = subprocess.run(
        [sys.executable, "-m", "tests.etl.killed", *arguments],
        cwd=ROOT,
        env={**os.environ, "NUMBA_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["exit"] == 0, done.stderr
    return report["states"]


def same(one: Path, other: Path) -> None:
    for split in ("train", "test"):
        a, b = Manifest.load(one / split), Manifest.load(other / split)
        assert a.parts == b.parts
        assert (a.features, a.ids, a.num_samples, a.schema) == (b.features, b.ids, b.num_samples, b.schema)
        for part in b.parts:
            for file in part.files:
                assert (one / split / file.path).read_bytes() == (other / split / file.path).read_bytes()
        there = {path.relative_to(other / split).as_posix() for path in (other / split).rglob("part-*")}
        assert there == {file.path for part in b.parts for file in part.files}


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_been(raw, tmp_path, kills):
    states = killed(raw, tmp_path / "out", kills, seed=kills)
    assert sum(not state["ended"] for state in states) > kills / 2
    assert not any(state["table"] for state in states if not state["ended"] and not state["read"])
    same(tmp_path / "undisturbed", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "undisturbed"]
