"""Overrides arrive as they were typed: every option that holds text, in any letters, by a shell and a saved run."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recd_dist.errors import ConfigError
from recd_dist.job.config import from_yaml, load, to_yaml
from recd_dist.job.option_types import kind_of
from recd_dist.job.options import EtlConfig, EvaluateConfig, TrainConfig
from recd_dist.screen.command_line import command_line, override

LETTERS = st.one_of(st.sampled_from("\"'\\[]{}(),=#$:~ .ab"), st.characters(exclude_categories=["Cs"]))
TEXT = st.text(alphabet=LETTERS, min_size=1).filter(lambda text: text != "???")
EXAMPLES = [
    "d/dt=2026-11-25/a.parquet",
    "runs/lr=0.1",
    "clicks (1).parquet",
    "price > 3",
    "select a, 'b', \"c\" from '{path}' where x != '${y}' -- # not [1]",
    "${data.name}",
    "\\${data.name}",
    "$HOME",
    "クリック, 点击",
    "null",
    "'quoted'",
    "~/x",
    " ",
]


ONE_RUN = "one command makes one run; `recd sweep"
EACH = "` makes one of each value"


def texts(of: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The options that hold text, or lists of text, by path; names of maps are wild too."""
    kind = kind_of(of)
    if str in kind.scalars and float not in kind.scalars and not kind.is_map:
        yield path, False
    elif kind.element is not None and not kind.is_map and str in kind_of(kind.element).scalars:
        yield path, True
    for name, below in (kind.names or {}).items():
        yield from texts(below, (*path, name))
    if kind.entries is not None:
        yield from texts(kind.entries, (*path, "a.b=c (d) é"))


def value_at(config: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        config = config[part] if isinstance(config, dict) else getattr(config, part)
    return config


OPTIONS = {
    name: [found for found in texts(of) if found[0][0] not in ("model", "experiment") and "synthetic" not in found[0]]
    for name, of in (("train", TrainConfig), ("etl", EtlConfig), ("evaluate", EvaluateConfig))
}


def arrives(name: str, text: str, path: Path) -> None:
    """Sets every text option to a text by a printed command line, loads, saves and loads again."""
    wanted = {option: [text, "x"] if is_list else text for option, is_list in OPTIONS[name]}
    line = command_line("recd", name, *(override(option, value) for option, value in wanted.items()))
    config = load(name, shlex.split(line)[2:])

    assert {option: value_at(config, option) for option in wanted} == wanted
    path.write_text(to_yaml(config), encoding="utf-8")
    assert from_yaml(name, path) == config


@pytest.mark.parametrize("text", EXAMPLES)
@pytest.mark.parametrize("name", OPTIONS)
def test_text_survives_the_way_from_a_printed_line_to_a_saved_run(name: str, text: str, tmp_path: Path) -> None:
    arrives(name, text, tmp_path / "config.yaml")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(text="\x85")
@given(text=TEXT)
def test_any_text_survives(text: str, tmp_path: Path) -> None:
    arrives("etl", text, tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("typed", "path", "value"),
    [
        ("data.path=d/dt=2026-11-25/a.parquet", "path", "d/dt=2026-11-25/a.parquet"),
        ("data.path=clicks (1).parquet", "path", "clicks (1).parquet"),
        ("data.path=s3://b/*/[ab]{c,d}.csv # x", "path", "s3://b/*/[ab]{c,d}.csv # x"),
        ("data.split=price > 3", "split", "price > 3"),
        ("data.split='price > 3'", "split", "price > 3"),
        ("data.split=0.25", "split", 0.25),
        ("data.split=null", "split", None),
        ("data.samples=select [1, 2] as h, 'a=b' as c from t", "samples", "select [1, 2] as h, 'a=b' as c from t"),
        ("data.samples=select '${x}'", "samples", "select '${x}'"),
        ("data.table=t/${data.name}-${nope}", "table", "t/tiny-${nope}"),
        ("data.table=t/\\${data.name}", "table", "t/${data.name}"),
        ('data.labels=[点击, a=b, "c, d", it\'s]', "labels", ["点击", "a=b", "c, d", "it's"]),
        ("data.labels=[NULL, null]", "labels", ["NULL", "null"]),
        ("data.labels=clicked", "labels", ["clicked"]),
        ("+data.drop=[a]", "drop", ["a"]),
        ("++data.drop=[a]", "drop", ["a"]),
        ("data.partitions=[2026-11-24, 2026-11-25]", "partitions", ["2026-11-24", "2026-11-25"]),
        ("data.partitions=null", "partitions", None),
        ("data.keys.session=null", "keys.session", None),
        ("data.keys.session='null'", "keys.session", "null"),
        ("data.keys.session=[a]", "keys.session", "[a]"),
        ("data.sample=0.5", "sample", 0.5),
    ],
)
def test_values_are_taken_literally(typed: str, path: str, value: object) -> None:
    assert value_at(load("etl", [typed]).data, tuple(path.split("."))) == value


@pytest.mark.parametrize(
    ("typed", "entries"),
    [
        ('data.groups."a.b"=[x]', {"a.b": ["x"]}),
        ("data.groups.u (1)=[price (usd), x#y]", {"u (1)": ["price (usd)", "x#y"]}),
        ("data.groups.profile.key=user", {"profile": {"features": ["region", "device", "age_days"], "key": ["user"]}}),
        ("data.groups.h.sql=select {a: 1}, '$x'", {"h": {"sql": "select {a: 1}, '$x'"}}),
        ("data.groups={h: {sql: x, key: [a]}}", {"h": {"sql": "x", "key": ["a"]}}),
        ("data.groups={h:{sql:x,key:[a]}}", {"h": {"sql": "x", "key": ["a"]}}),
    ],
)
def test_maps_of_the_users_own_names(typed: str, entries: dict[str, object]) -> None:
    groups = load("etl", [typed]).data.groups

    assert {name: groups[name] for name in entries} == entries
    assert len(groups) == len({*entries, "history", "profile"})


def test_an_entry_can_be_taken_out() -> None:
    assert list(load("etl", ["~data.groups.profile"]).data.groups) == ["history"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("data.labels=a,b", "data.labels=a,b: several names stand in brackets: 'data.labels=[a,b]'; one name with a "
         "comma in it in quotes: 'data.labels=[\"a,b\"]'"),
        ("data.labels=[a,(b]", "data.labels=[a,(b]: brackets are not in pairs; a list is written [a, b], and an "
         "element with such a sign in quotes: 'data.labels=[\"a, b (c\", d]'"),
        ("data.features.a.b.table=x", "data.features.a.b.table=x: a name with a dot in it stands in quotes: "
         "'data.features.\"a.b\".table=x'"),
        ("optim.dense.lr=0.01,0.02", f"optim.dense.lr=0.01,0.02: {ONE_RUN} optim.dense.lr=0.01,0.02{EACH}"),
        ("model=dlrm,sequence", f"model=dlrm,sequence: {ONE_RUN} model=dlrm,sequence{EACH}"),
        ("batch_size=choice(1, 2)", f"batch_size=choice(1, 2): {ONE_RUN} 'batch_size=choice(1, 2)'{EACH}"),
        ("plan.tables={item: [}", "plan.tables={item: [}: neither a list [a, b] nor a map {a: b} nor a value (expected "
         "the node content, but found '}'); put text with commas, brackets, braces, colons, # or quotes in double "
         "quotes"),
        ("~data.groups.none", "'~data.groups.none': there is no data.groups.none to take out"),
        ("run_dir=${run_dir}", "option 'run_dir': its value holds itself"),
    ],
)  # fmt: skip
def test_what_is_ambiguous_shows_the_line_to_type(typed: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("train", [typed])

    assert str(caught.value) == message


def test_a_directory_of_ones_own_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "conf=v2, [é] 'x' #1"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "données.yaml").write_text("labels: y\nkeys: {session: s}\n", encoding="utf-8")

    assert load("etl", ["data=données"], str(folder)).data.labels == ["y"]
    searched = override("hydra.searchpath", [f"file://{folder}"])
    assert load("train", [searched, "data=données"]).data.keys.session == "s"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("data.null_values=NULL", r"no element is written 'data.null_values=\[\]', the text NULL .*=\[NULL\]'"),
        ("data.features={null: {table: x}}", "a name that YAML takes for null; put it in quotes"),
        ("~+data.groups.user=[a]", "is no override"),
        ("data=null", "every command reads data; there are: .*tiny"),
    ],
)
def test_what_could_be_lost_without_a_word_is_refused(typed, message):
    with pytest.raises(ConfigError, match=message):
        load("etl", ["data=parquet", typed])
