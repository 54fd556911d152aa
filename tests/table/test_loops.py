"""Compiled loops work where nothing can be kept on disk, and are kept where it can."""

import os
import subprocess
import sys
from pathlib import Path

import numba.core.caching
import numpy as np
import pytest

from recd_dist.table import loops

SRC = Path(loops.__file__).parents[1]
NO_PLACE = """
import importlib, sys
import numba.core.caching as caching
for kind in (caching.CompileResultCacheImpl, caching.CodeLibraryCacheImpl):
    kind._locator_classes = []  # as where neither the package nor a home directory can be written
for name in sys.argv[1:]:
    importlib.import_module(name)
import numpy as np
from recd_dist.reader.kernels import hash_ids
ids = np.arange(4)
hash_ids(ids, 100, ids)
print(ids.tolist())
"""


def test_every_loop_is_compiled_where_nothing_can_be_kept() -> None:
    users = [path for path in SRC.rglob("*.py") if "@jit" in path.read_text()]
    names = [".".join(path.relative_to(SRC.parent).with_suffix("").parts) for path in users]
    assert {"recd_dist.table.loops", "recd_dist.tensors.expansion", "recd_dist.etl.checksum.row_hashes"} <= set(names)
    code = [sys.executable, "-c", NO_PLACE, *names]
    ended = subprocess.run(code, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.split(",")) == 4


def test_code_is_kept_and_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))

    def double(values: np.ndarray) -> None:
        for i in range(len(values)):
            values[i] *= 2

    with monkeypatch.context() as patch:
        patch.setattr(numba.core.caching.Cache, "save_overload", full_disk)
        values = np.arange(3)
        loops.jit(double)(values)
        assert values.tolist() == [0, 2, 4]
    assert not list(tmp_path.rglob("*.nbc"))
    loops.jit(double)(values)
    assert values.tolist() == [0, 4, 8]
    assert len(list(tmp_path.rglob("*.nbc"))) == 1


def full_disk(*_: object) -> None:
    raise OSError(28, os.strerror(28))


def test_compiled_code_is_old_when_a_loop_that_it_calls_has_changed(tmp_path) -> None:
    """numba looks at the file of a loop alone; the loops that it calls are compiled into it."""
    (tmp_path / "caller.py").write_text(
        "from called import one\nfrom recd_dist.table.loops import jit\n\n@jit\ndef two():\n    return one() + 1\n"
    )
    for number in (1, 10):
        (tmp_path / "called.py").write_text(
            f"from recd_dist.table.loops import jit\n\n@jit\ndef one():\n    return {number}\n"
        )
        command = [sys.executable, "-c", "import caller; print(caller.two())"]
        paths = os.pathsep.join([str(tmp_path), *sys.path])
        environment = os.environ | {"PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert int(found.stdout) == number + 1


def test_code_beside_the_source_is_taken_where_no_other_is_kept(tmp_path) -> None:
    """As in an image: made when it was built, whose files get other times and cannot be written."""
    source = tmp_path / "one.py"
    source.write_text("from recd_dist.table.loops import jit\n\n@jit\ndef one(x):\n    return x + 1\n")
    command = [sys.executable, "-c", "import one; assert one.one(1) == 2"]
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    elsewhere = tmp_path / "elsewhere"
    subprocess.run(command, env=environment, check=True, cwd=tmp_path)
    beside = list(tmp_path.glob("__pycache__/*.nbc"))
    assert beside
    os.utime(source, (1, 1))
    subprocess.run(command, env=environment | {"NUMBA_CACHE_DIR": str(elsewhere)}, check=True, cwd=tmp_path)
    assert not list(elsewhere.rglob("*.nbc"))
    beside[0].unlink()
    subprocess.run(command, env=environment | {"NUMBA_CACHE_DIR": str(elsewhere)}, check=True, cwd=tmp_path)
    assert list(elsewhere.rglob("*.nbc"))


def test_an_array_in_place_of_its_address_does_not_compile() -> None:
    array = np.zeros(2, np.int32)
    for wrong in (
        lambda a: loops.load_int32(a, 0),
        lambda a: loops.store_int32(a, 0, 1),
        lambda a: loops.load_byte(a, 0),
        lambda a: loops.copy_bytes(a, 0, 0),
        lambda a: loops.prefetch(a) or 0,
    ):
        with pytest.raises(numba.TypingError):
            numba.njit(wrong)(array)
