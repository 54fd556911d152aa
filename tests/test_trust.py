"""What comes from elsewhere (configs, tables, checkpoints, plans) is data: nothing in it is run, and little listens."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from recd_dist.errors import ConfigError
from recd_dist.job.config import load

ROOT = Path(__file__).parents[1]
MODULES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
    for folder in ("src", "launch", "packaging")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
SERVERS = (
    "bind|listen|create_server|create_unix_server|start_server|start_unix_server|serve_forever|socketserver|TCPServer|"
    "UDPServer|http.server|HTTPServer|ThreadingHTTPServer|make_server|run_simple|WerkzeugServer|TensorBoard|xmlrpc|"
    "wsgiref|uvicorn|waitress|gunicorn|flask|aiohttp|tornado|grpc|SyncManager|Manager|Listener|TCPStore|"
    "init_process_group|init_rpc|get_rendezvous_handler|FlightServerBase"
)
"""Parts of names that make a process listen."""

IMPORTERS = (
    "import_module|__import__|spec_from_file_location|module_from_spec|exec_module|load_module|SourceFileLoader|"
    "entry_points|runpy|pkgutil|resolve_name|load_library|instantiate|hydra.utils|get_class|get_method|get_object|"
    "pydoc.locate"
)
"""Parts of names that import code whose name is a value, or run it."""


def names(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, and every name and attribute that is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def uses(wanted: str) -> set[str]:
    """``module: name`` of all that is imported or called and has one of some names, a|b|c, among its parts."""
    return {
        f"{module.removeprefix('src/recd_dist/')}: {name}"
        for module, tree in MODULES.items()
        for name in names(tree)
        if has_part(name, wanted)
    }


def has_part(name: str, wanted: str) -> bool:
    """Whether one of some names, a|b|c, is among the parts of a dotted name."""
    return bool(re.search(rf"(^|\.)({wanted})(\.|$)", name))


def test_the_lists_find_what_they_name() -> None:
    """A listener or an importer that is written otherwise is found as well."""
    text = "from http.server import HTTPServer\nimport asyncio\nasyncio.start_server(f)\nself.x.bind(a)\neval(b)"
    found = list(names(ast.parse(text)))
    assert [name for name in found if has_part(name, SERVERS)] == [
        "http.server.HTTPServer",
        "asyncio.start_server",
        "self.x.bind",
    ]
    assert "eval" in found


def test_code_is_imported_by_name_only_where_this_program_says_the_name() -> None:
    """A config says a name in one place, ranks/trusted_code.py, which imports only what the environment trusts.

    ranks/rank.py, rank_server.py: the launcher's --module; libraries.py: those of a job; prepared.py: its own list.
    """
    assert uses(IMPORTERS) == {
        "ranks/rank.py: importlib.import_module",
        "ranks/rank_server.py: importlib.import_module",
        "ranks/health/libraries.py: importlib.import_module",
        "ranks/trusted_code.py: importlib.import_module",
        "train/prepared.py: import_module",
        "train/prepared.py: importlib.import_module",
    }
    builtins = {"eval", "exec", "compile", "builtins.eval", "builtins.exec", "builtins.compile"}
    # The line with which Python's multiprocessing starts its own server, run in a fork instead of a new process.
    assert [module for module, tree in MODULES.items() if builtins & set(names(tree))] == [
        "src/recd_dist/reader/worker_process.py"
    ]


def test_bytes_are_unpickled_in_one_place() -> None:
    """safe_storage.py, by a list of allowed classes; what torch loads is loaded as weights only."""
    found = uses("pickle|cloudpickle|dill|joblib|marshal|shelve")
    assert {use.partition(":")[0] for use in found} == {"checkpoint/safe_storage.py"}
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
    """A new listener fails here until it is listed, with what keeps strangers out of it.

    - board_guard.py: TensorBoard, which asks for a token beyond loopback; board_server.py looks for a free port before.
    - process_group.py: the store of a job, on loopback for one host; gloo and NCCL, between its hosts.
    - host_ranks.py: where several hosts meet, through a file on one; a port of loopback that is held for rank 0.
    - flight_service.py: servers of the reader, on loopback unless told otherwise; beyond it they ask for a token.
    - service_run.py: `recd serve`, on loopback unless told otherwise; beyond it HTTP and Flight ask for a token.
    - probe.py: the two ranks that `recd plan --probe` starts, which meet through a file and talk over loopback.
    - launcher.py, health/ports.py: whether a port is free.
    - user_transform.py: whether a function takes its arguments; nothing listens.
    """
    assert uses(SERVERS) == {
        "metrics/board_guard.py: TensorBoard",
        "metrics/board_guard.py: tensorboard.program.TensorBoard",
        "metrics/board_guard.py: tensorboard.program.WerkzeugServer",
        "metrics/board_server.py: free.bind",
        "metrics/board_server.py: probe.bind",
        "plan/probe.py: dist.init_process_group",
        "ranks/health/ports.py: probe.bind",
        "ranks/host_ranks.py: held.bind",
        "ranks/host_ranks.py: registry.get_rendezvous_handler",
        "ranks/launcher.py: probe.bind",
        "ranks/process_group.py: dist.TCPStore",
        "ranks/process_group.py: dist.init_process_group",
        "ranks/process_group.py: socket.create_server",
        "serve/service_run.py: socket.create_server",
        "serve/http_connection.py: uvicorn.protocols.http.httptools_impl.HttpToolsProtocol",
        "serve/service_run.py: uvicorn",
        "serve/service_run.py: uvicorn.Config",
        "reader/user_transform.py: inspect.signature(function).bind",
    }
    servers = {
        m
        for m, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if has_part(ast.unparse(base), SERVERS)
    }
    assert {module.removeprefix("src/recd_dist/") for module in servers} == {
        "reader/tier/flight_service.py",
        "metrics/board_guard.py",
        "serve/flight_scoring.py",
        "serve/service_run.py",
    }


@pytest.mark.parametrize("place", ["", "model.", "data.", "optim.dense."])
def test_a_config_names_no_code(place: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown option '.*_target_'"):
        load("train", [f"{place}_target_=os.system"])
