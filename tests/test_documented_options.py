"""Every option that a page names is taken by every command that can use it, on every config, one's own included."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import documented

from recd_dist import cli
from recd_dist.errors import ConfigError
from recd_dist.job.combinations import plan_sweep
from recd_dist.job.config import _OF_A_RUN, _TYPES, config_dir, load
from recd_dist.job.option_types import Kind, UnknownOption, kind_at, kind_of
from recd_dist.job.overrides import parse_override
from recd_dist.screen.command_line import override

CONFIGS = {name: kind_of(of) for name, of in _TYPES.items()}
DATA = sorted(path.stem for path in (config_dir() / "data").glob("*.yaml"))
OWN = {"mine": "name: mine\npath: clicks.parquet\nlabels: [clicked]\n", "empty": "", "only_sql": "samples: select 1\n"}
NOT_OURS = {"spark.speculation", "is_weighted", "need_weights", "embedding_table_index_type", "name", "dt"}
"""Options of other programs, and words that stand for any, which pages name."""
REFUSED = {"optim.dense.lr=0.01,0.02", "seed=1,2", "model.over=[64,32],[128]", "tasks.watch_s.weight=0.1,0.3"}
"""What a page names as refused, or as values of a sweep."""

MODELS = {path.stem: load("train", [f"model={path.stem}"]).model for path in (config_dir() / "model").glob("*.yaml")}

TEXT = "\n".join(page.read_text() for page in documented.PAGES)
SHIPPED = "\n".join(
    f"`{line}`" for path in documented.CONFIGS for line in re.findall(r"[\w.]+=[^\s)]+(?<![.,])", path.read_text())
)


def example(kind: Kind) -> tuple[str, Any]:
    """A value as it is typed, and as it arrives."""
    if kind.element is not None:
        of = kind_of(kind.element)
        return ("[1, 2]", [1, 2]) if int in of.scalars else ("[log]", ["log"])
    for scalar, value in ((bool, True), (int, 3), (float, 0.5), (str, "a=b (c), d")):
        if scalar in kind.scalars:
            return str(value), value
    return "3", 3


def leaves(name: str, known: Kind) -> Iterator[tuple[str, Kind]]:
    """The single options at or below a name; in a map of the user's names, those of one entry."""
    kind = kind_at(tuple(name.split(".")), known)
    if kind.element is not None or kind.scalars or kind.free:
        yield name, kind
    else:
        yield from (leaf for below in kind.names or {} for leaf in leaves(f"{name}.{below}", known))
    if kind.entries is not None and "synthetic" not in name:
        yield from leaves(f"{name}.some", known)
        yield from (leaf for n in kind_of(kind.entries).names or {} for leaf in leaves(f"{name}.other.{n}", known))


def path_of(name: str) -> tuple[str, ...]:
    return parse_override(name if "=" in name else f"{name}=").path


def knows(name: str, known: Kind) -> bool:
    try:
        kind_at(path_of(name), known)
    except UnknownOption:
        return False
    return True


def value_at(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = config[part] if isinstance(config, dict) else getattr(config, part)
    return config


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("own")
    (folder / "data").mkdir()
    for name, text in OWN.items():
        (folder / "data" / f"{name}.yaml").write_text(text)
    return str(folder)


def chosen(command: str, data: str) -> list[str]:
    if command in _OF_A_RUN:
        return ["run_dir=runs/x"]
    return [f"data={data}"]


CASES = [(command, data) for command in ("train", "etl") for data in (*DATA, *OWN)] + [(name, "") for name in _OF_A_RUN]


@pytest.mark.parametrize(("command", "data"), CASES)
def test_every_option_that_a_page_names_arrives(command: str, data: str, own: str) -> None:
    known = CONFIGS[command]
    names = [name for name in documented.option_names(TEXT) if knows(name, known) and not name.startswith("model.")]
    wanted = {leaf: example(kind) for name in names for leaf, kind in leaves(name, known)}
    if command not in _OF_A_RUN:
        assert {"data.partition", "data.drop", "data.policy.late", "data.features.some.weights"} <= wanted.keys()
    config = load(command, [*chosen(command, data), *(f"{name}={typed}" for name, (typed, _) in wanted.items())], own)

    assert {name: value_at(config, name) for name in wanted} == {name: value for name, (_, value) in wanted.items()}


@pytest.mark.parametrize(("command", "data"), CASES)
def test_every_override_that_a_page_or_a_config_names_is_taken(command: str, data: str, own: str) -> None:
    found = [o for o in documented.overrides(TEXT + SHIPPED) if o not in REFUSED]
    folders = {path.name for path in config_dir().iterdir()}

    assert len(found) > 40
    settings = [
        o for o in found if knows(o, CONFIGS[command]) and not (len(path_of(o)) == 1 and path_of(o)[0] in folders)
    ]
    of_models = [o for o in settings if path_of(o)[0] == "model" and command == "train"]
    load(command, [*chosen(command, data), *(o for o in settings if o not in of_models)], own)
    for name, options in MODELS.items() if of_models else ():
        own_options = [o for o in of_models if path_of(o)[1] in options]
        load(command, [*chosen(command, data), f"model={name}", *own_options], own)


def test_every_override_that_a_page_names_belongs_to_a_command() -> None:
    paths = {path_of(override) for override in documented.overrides(TEXT + SHIPPED)}
    unknown = {p for p in paths if not any(knows(override(p, ""), known) for known in CONFIGS.values())}

    assert {".".join(path) for path in unknown} - NOT_OURS - {
        f"model.{name}" for model in MODELS.values() for name in model
    } == set()


@pytest.mark.parametrize("typed", sorted(REFUSED))
def test_what_a_page_names_as_refused_is_refused(typed: str) -> None:
    with pytest.raises(ConfigError):
        load("train", [typed])


PAGES = {str(page.relative_to(documented.ROOT)): documented.all_commands(page) for page in documented.PAGES}
PAGES["configs"] = [line for path in documented.CONFIGS for line in documented.config_commands(path)]
PAGES["help"] = [line for c in cli.COMMANDS.values() for e in c.examples for line in documented.commands(e)]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_parsed_and_its_config_composed(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documented.own_configs(tmp_path)
    monkeypatch.chdir(tmp_path)
    for line in PAGES[page]:
        words = documented.shell_words(line)
        if words[0] == "torchx":
            name = re.search(r"launch/\w+\.py:(\w+)", line)
            assert name, line
            words = ["recd", name[1], *words[words.index("--") + 1 if "--" in words else len(words) - 1 :]]
        if "data=mine" in words and "--config-dir" not in words:
            words += ["--config-dir", "my_configs"]  # which pages leave out once they have said it
        options = cli._parse(words[1:])
        assert options, line
        command = cli.COMMANDS[options.command]
        if options.command == "sweep":  # each of its runs is one of recd train
            sweep = plan_sweep(command.rank_overrides(options))
            options.overrides = [*sweep.fixed, *sweep.combinations[-1].overrides]
        if command.config is None or (options.command == "reader" and "--tables" in words):
            continue
        try:
            assert command.load_config(options) is not None
        except ConfigError as error:
            pytest.fail(f"{page}: {shlex.join(words)}: {error}")
