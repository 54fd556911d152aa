"""What comes from elsewhere (configs, tables, checkpoints, plans) is data: nothing in it is run, and little listens."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from recd_dist.errors import ConfigError
from recd_dist.job.config import load

ROOT = Path(__file__).parents[1]
MODULES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
    for folder in ("src/recd_dist", "launch")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def names(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, and every name and attribute that is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def users(*wanted: str) -> set[str]:
    """The modules that import or call one of some names, whatever stands before their last parts."""
    return {
        module
        for module, tree in MODULES.items()
        if any(f".{want}." in f".{name}." for name in names(tree) for want in wanted)
    }


def test_code_is_imported_by_name_only_where_this_program_says_the_name() -> None:
    """ranks/rank.py, rank_server.py: the launcher's --module; libraries.py: those of a job. No config comes there."""
    assert users("import_module", "__import__", "spec_from_file_location", "entry_points", "runpy", "pkgutil") == {
        "src/recd_dist/ranks/rank.py",
        "src/recd_dist/ranks/rank_server.py",
        "src/recd_dist/ranks/health/libraries.py",
    }
    assert users("instantiate", "hydra.utils", "get_class", "get_method", "get_object", "pydoc.locate") == set()


def test_bytes_are_unpickled_in_one_place() -> None:
    """safe_storage.py, by a list of allowed classes; what torch loads is loaded as weights only."""
    assert users("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve") == {
        "src/recd_dist/checkpoint/safe_storage.py"
    }
    loads = [
        ast.unparse(node)
        for tree in MODULES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "yaml.load", "dcp.load")
    ]
    assert [call for call in loads if call.startswith("torch") and "weights_only=True" not in call] == []
    assert [call for call in loads if "allow_pickle" in call] == []
    safe = 'getattr(yaml, "CSafeLoader", yaml.SafeLoader)'
    assert [call for call in loads if call.startswith("yaml")] == ["yaml.load(text, _Loader)"]
    assert f"_Loader = {safe}" in (ROOT / "src/recd_dist/job/run_records.py").read_text()


def test_what_listens_is_known() -> None:
    """All but board_guard.py, which asks for a token, belong to the ranks of a job, or try whether a port is free."""
    listeners = users("bind", "listen", "create_server", "TCPStore", "make_server", "HTTPServer", "WerkzeugServer")
    assert listeners == {
        "src/recd_dist/metrics/board_guard.py",
        "src/recd_dist/metrics/board_server.py",
        "src/recd_dist/ranks/health/ports.py",
        "src/recd_dist/ranks/launcher.py",
        "src/recd_dist/ranks/process_group.py",
    }


@pytest.mark.parametrize("place", ["", "model.", "data.", "optim.dense."])
def test_a_config_names_no_code(place: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown option '.*_target_'"):
        load("train", [f"{place}_target_=os.system"])
