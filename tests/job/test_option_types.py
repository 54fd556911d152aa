"""What an option may hold: names and shapes, in a file as on the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recd_dist.errors import ConfigError
from recd_dist.job.config import load

Mine = Callable[[str], list[str]]


@pytest.fixture
def mine(tmp_path: Path) -> Mine:
    """Writes a config of one's own, and returns the overrides that choose it."""

    def write(text: str, folder: str = "data") -> list[str]:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "mine.yaml").write_text(text, encoding="utf-8")
        return [f"hydra.searchpath=[file://{tmp_path}]", f"{folder}=mine"]

    return write


def refused(overrides: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load("train", overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


MAP = "must be a map of"
OF_TABLES = "num_embeddings, dim, hashed, mapped, admit_after, evict, max_age"
LISTED = "a list such as [a, b]"
GROUPS = f"{MAP} names, each {LISTED} or a map of features, key, sql, sql_spark or null"
KEYS = "a map of session, request, timestamp, user, sample, order"
SHAPES = {
    "groups: [a, b]": f"data.groups=[a, b]: {GROUPS}",
    "groups: 5": f"data.groups=5: {GROUPS}",
    "groups: {user: {features: {a: 1}}}": f"data.groups.user.features={{a: 1}}: must be {LISTED} or null",
    "groups: {user: {fetures: [a]}}": "unknown option 'data.groups.user.fetures'; did you mean "
    "'data.groups.user.features'?",
    "labels: {y: 1}": f"data.labels={{y: 1}}: must be {LISTED}",
    "labels: [[y]]": "data.labels[0]=[y]: must be text",
    "features: [a, b]": "data.features=[a, b]: must be a map of names, each a map of table, kind, weights, window, "
    "transforms",
    "features: {a: [log]}": "data.features.a=[log]: must be a map of table, kind, weights, window, transforms",
    "features: {a: {tabel: b}}": "unknown option 'data.features.a.tabel'; did you mean 'data.features.a.table'?",
    "features: {a: {window: 3}}": "data.features.a.window=3: must be true or false or null",
    "features: {a: {transforms: {log: 1}}}": f"data.features.a.transforms={{log: 1}}: must be {LISTED} or null",
    "tables: 5": f"data.tables=5: must be a map of names, each a map of {OF_TABLES}",
    "tables: {a: 5}": f"data.tables.a=5: must be a map of {OF_TABLES}",
    "tables: {a: {num_embeddings: many}}": "data.tables.a.num_embeddings=many: must be a whole number or null",
    "keys: session": f"data.keys=session: must be {KEYS}",
    "keys: [session]": f"data.keys=[session]: must be {KEYS}",
    "keys: {session: [a]}": "data.keys.session=[a]: must be text or null",
    "keys: {session: on}": "data.keys.session=true: must be text; YAML takes on, off, yes, no, true and false for "
    "truth values: put the text in quotes",
    "keys: {sesion: a}": "unknown option 'data.keys.sesion'; did you mean 'data.keys.session'?",
    "sessions: gap": "data.sessions=gap: must be a map of by, gap",
    "policy: [late]": "data.policy=[late]: must be a map of duplicates, late, time, earliest, latest, unlabelled",
    "path: [a, b]": "data.path=[a, b]: must be text or null",
    "split: [a]": "data.split=[a]: must be a number or text or null",
    "sample: most": "data.sample=most: must be a number",
    "synthetic: 5": "data.synthetic=5: must be a map of num_samples, groups, tables, seed, session_mean, "
    "session_median, session_max, request_mean, rate_per_s, gap_s, num_users, zipf, focus, click_rate, signal, shares",
    "synthetic: {num_samlpes: 5}": "unknown option 'data.synthetic.num_samlpes'; did you mean "
    "'data.synthetic.num_samples'?",
    "synthetic: {groups: {a: {saty: 1}}}": "unknown option 'data.synthetic.groups.a.saty'; did you mean "
    "'data.synthetic.groups.a.stay'?",
    "samples: select '${nope}'": "option 'data.samples': ${nope} names no option; the text itself is written \\${nope}",
    "nmae: a": "unknown option 'data.nmae'; did you mean 'data.name'?",
}


@pytest.mark.parametrize("text", SHAPES)
def test_a_file_of_another_shape_names_the_option_and_the_shape(mine: Mine, text: str) -> None:
    assert refused(mine(text)) == SHAPES[text]


@pytest.mark.parametrize(
    ("folder", "text", "message"),
    [
        ("model", "name: dlrm\ndim: wide", "model.dim=wide: must be a whole number"),
        ("model", "name: dlrm\nover: {a: 1}", f"model.over={{a: 1}}: must be {LISTED}"),
        ("model", "[dlrm]", "model=[dlrm]: must be a map of names"),
        ("optim", "dense: adam", "optim.dense=adam: must be a map of name, lr, eps, weight_decay"),
        ("optim", "dense: {lrr: 1}", "unknown option 'optim.dense.lrr'; did you mean 'optim.dense.lr'?"),
        ("plan", "tables: [a]", f"plan.tables=[a]: {MAP} names, each text or a map of type, ranks, host, hosts"),
        ("plan", "tables: {a: {rank: [0]}}", "unknown option 'plan.tables.a.rank'; did you mean "
         "'plan.tables.a.ranks'?"),
        ("plan", "send: {a: [b]}", "plan.send.a=[b]: must be text"),
        ("plan", "expand: {a: 1}", f"plan.expand={{a: 1}}: must be {LISTED} or null"),
        ("experiment", "# @package _global_\nreader: 5", "reader=5: must be a map of num_workers, order, "),
        ("experiment", "# @package _global_\ndata: 5", "data=5: must be a map"),
        ("experiment", "# @package _global_\nbatchsize: 5", "unknown option 'batchsize'; did you mean 'batch_size'?"),
    ],
)  # fmt: skip
def test_so_do_files_of_other_folders(mine: Mine, folder: str, text: str, message: str) -> None:
    assert refused(mine(text, folder)).startswith(message)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("labels: y", "labels", ["y"]),
        ("labels: 2024", "labels", ["2024"]),
        ("drop: a", "drop", ["a"]),
        ("drop:", "drop", []),
        ("keys:", "keys.session", None),
        ("groups: {user: age}", "groups", {"user": ["age"]}),
        ("groups: {2024: [a]}", "groups", {"2024": ["a"]}),
        ("features: {price: }", "features", {"price": {}}),
        ("sample: 1", "sample", 1.0),
        ("partitions: [2026-11-25]", "partitions", ["2026-11-25"]),
        ("samples: select '\\${x}'", "samples", "select '${x}'"),
    ],
)
def test_what_can_be_meant_in_one_way_only_is_taken(mine: Mine, text: str, path: str, value: object) -> None:
    found = load("etl", mine(text)).data
    for part in path.split("."):
        found = getattr(found, part)

    assert found == value


def test_a_model_of_ones_own_takes_the_arguments_of_its_name(mine: Mine) -> None:
    chosen = mine("name: sequence\ndim: 8", "model")

    assert load("train", [*chosen, "model.heads=4"]).model == {"name": "sequence", "dim": 8, "heads": 4}
    assert refused([*chosen, "model.haeds=4"]) == "unknown option 'model.haeds'; did you mean 'model.heads'?"
    assert refused(["model.heads=4"]).startswith("unknown option 'model.heads'; there are: name, dim, bottom, over")
