"""A checkpoint that one Python wrote is read by every other: pickles differ from Python to Python."""

import os
import pickle
import pickletools
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

from recd_dist.checkpoint import checkpoint
from recd_dist.checkpoint.safe_storage import PortableWriter, pickle_metadata, read_metadata
from recd_dist.errors import DataError
from recd_dist.table.schema import Feature, Kind, Schema

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
ROOT = Path(__file__).parents[2]
SCHEMA = Schema((Feature("item", Kind.id, table="item"),))

# Runs without torch: modules of the same names stand in for torch's, since a pickle holds names only.
PICKLE = """
import enum, pathlib, pickle, sys, types
for name in ("torch", "torch.distributed", "torch.distributed.checkpoint", "torch.distributed.checkpoint.metadata"):
    sys.modules[name] = types.ModuleType(name)
names = sys.modules["torch.distributed.checkpoint.metadata"]
exec('''
import enum
class _MEM_FORMAT_ENCODING(enum.Enum):
    TORCH_CONTIGUOUS_FORMAT = 0
class StorageMeta: pass
class Metadata: pass
''', names.__dict__)
metadata, metadata.storage_meta = names.Metadata(), names.StorageMeta()
metadata.state_dict_metadata = {"x": names._MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT}
metadata.storage_data, metadata.storage_meta.checkpoint_id = {}, pathlib.Path("/runs/a")
sys.stdout.buffer.write(pickle.dumps(metadata, protocol=4))
"""

SAVE_OR_LOAD = """
import sys, torch
from pathlib import Path
from torchrec.optim.keyed import KeyedOptimizerWrapper
from recd_dist.checkpoint import checkpoint
from tests.checkpoint.test_other_pythons import SCHEMA
what, path = sys.argv[1], Path(sys.argv[2])
torch.manual_seed(3)
model = torch.nn.ModuleDict({"item": torch.nn.Embedding(8, 4)})
optimizer = KeyedOptimizerWrapper(dict(model.named_parameters()), lambda p: torch.optim.Adam(p, lr=0.1))
model["item"](torch.arange(3)).sum().backward()
optimizer.step()
if what == "save":
    checkpoint.save(path, 5, model, optimizer, SCHEMA, {"seen": 1})
else:
    trained = model["item"].weight.detach().clone()
    torch.nn.init.zeros_(model["item"].weight)
    assert checkpoint.load(path / "step-00000005", model, optimizer, SCHEMA).extra == {"seen": 1}
    assert torch.equal(trained, model["item"].weight)
"""


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint that this Python wrote."""
    from torchrec.optim.keyed import KeyedOptimizerWrapper

    model = nn.ModuleDict({"item": nn.Embedding(8, 4, dtype=torch.bfloat16)})
    optimizer = KeyedOptimizerWrapper(dict(model.named_parameters()), lambda p: torch.optim.Adam(p, lr=0.1))
    model["item"](torch.arange(3)).sum().backward()
    optimizer.step()
    return checkpoint.save(tmp_path / "checkpoints", 5, model, optimizer, SCHEMA)


def pythons() -> list[str]:
    """Every Python of this machine that the README promises, of whatever environment."""
    found = {shutil.which(f"python3.{minor}", path="/usr/bin:/usr/local/bin") for minor in range(11, 20)}
    found |= {str(p) for p in Path(sys.base_prefix).parent.glob("3.1[1-9].*/bin/python3") if os.access(p, os.X_OK)}
    return sorted({sys.executable, *filter(None, found)})


@pytest.mark.parametrize("python", pythons())
def test_what_this_machines_pythons_pickle_is_read(python: str, tmp_path: Path) -> None:
    from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

    (tmp_path / ".metadata").write_bytes(subprocess.run([python, "-c", PICKLE], capture_output=True, check=True).stdout)
    metadata = read_metadata(tmp_path)
    assert metadata.state_dict_metadata == {"x": _MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT}
    assert str(metadata.storage_meta.checkpoint_id) == "/runs/a"


def names_in(pickled: bytes) -> set[str]:
    return {str(word) for op, word, _ in pickletools.genops(pickled) if op.name == "SHORT_BINUNICODE"}


def test_metadata_are_written_in_one_form(saved: Path) -> None:
    """Nothing in them hangs on the Python that writes, nor on the place of the run."""
    names = names_in((saved / ".metadata").read_bytes())
    assert "_MEM_FORMAT_ENCODING" in names
    assert not names & {"getattr", "builtins", "pathlib", "pathlib._local", "PosixPath", "TORCH_CONTIGUOUS_FORMAT"}
    assert pickle_metadata(read_metadata(saved)) == (saved / ".metadata").read_bytes()


class ByName(pickle.Pickler):
    """Pickles enums as Python 3.11.0 to 3.11.3 do."""

    def reducer_override(self, value: object) -> object:
        import enum

        return (getattr, (type(value), value.name)) if isinstance(value, enum.Enum) else NotImplemented


def test_a_checkpoint_of_python_3_11_2_is_loaded(saved: Path) -> None:
    with (saved / ".metadata").open("rb") as file:
        metadata = pickle.load(file)
    with (saved / ".metadata").open("wb") as file:
        ByName(file).dump(metadata)
    assert "getattr" in names_in((saved / ".metadata").read_bytes())
    model = nn.ModuleDict({"item": nn.Embedding(8, 4, dtype=torch.bfloat16)})
    checkpoint.load(saved, model)
    assert PortableWriter(saved).storage_meta().checkpoint_id is None


class Call:
    """Pickles as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> object:
        return self.call


@pytest.mark.parametrize(
    ("of", "name"), [(os, "system"), (PortableWriter, "finish"), (Kind, "__members__"), (Kind, "mro"), ("text", "join")]
)
def test_getattr_gives_members_of_enums_alone(saved: Path, of: object, name: str) -> None:
    if isinstance(of, type(os)):
        of = Call(__import__, "os")
    (saved / ".metadata").write_bytes(pickle.dumps(Call(getattr, of, name)))
    with pytest.raises(DataError, match=r"refused: it (asks for|names) .* has no place there"):
        read_metadata(saved)


@pytest.mark.slow
def test_environments_of_other_pythons_read_each_others_checkpoints(tmp_path: Path) -> None:
    """Names environments in RECD_PYTHONS, such as /a/.venv/bin/python:/b/.venv/bin/python (CONTRIBUTING.md)."""
    given = [python for python in os.environ.get("RECD_PYTHONS", "").split(":") if python]
    if not given:
        pytest.skip("RECD_PYTHONS names no other environment")
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PYTHONWARNINGS": "ignore"}
    paths = {python: tmp_path / str(number) for number, python in enumerate([sys.executable, *given])}
    for python, path in paths.items():
        subprocess.run([python, "-c", SAVE_OR_LOAD, "save", path], env=env, check=True)
    assert len({(path / "step-00000005/.metadata").stat().st_size for path in paths.values()}) == 1
    for reader, (writer, path) in product(paths, paths.items()):
        ended = subprocess.run([reader, "-c", SAVE_OR_LOAD, "load", path], env=env, check=False)
        assert ended.returncode == 0, f"{reader} reads what {writer} wrote"
