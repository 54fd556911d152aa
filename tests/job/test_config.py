"""Configs: composed, overridden, typed, and a misspelt name is refused with the nearest one."""

from pathlib import Path

import pytest

from recd_dist.errors import ConfigError
from recd_dist.job.config import EtlConfig, config_dir, from_yaml, load, to_yaml
from recd_dist.job.dotted_names import dotted_names
from recd_dist.job.options import TrainConfig


def test_defaults_are_composed_and_typed() -> None:
    config = load("train")

    assert isinstance(config, TrainConfig)
    assert (config.data.name, config.model["name"], config.optim.tables.name) == ("tiny", "dlrm", "rowwise_adagrad")
    assert config.run_dir == "runs/tiny-dlrm"
    assert config.data.table == "tables/tiny"


def test_overrides_reach_every_level() -> None:
    config = load("train", ["batch_size=64", "model=sequence", "model.dim=8", "optim=adam", "optim.dense.lr=0.5"])

    assert (config.batch_size, config.model["name"], config.model["dim"]) == (64, "sequence", 8)
    assert (config.optim.dense.name, config.optim.dense.lr) == ("adam", 0.5)
    assert config.run_dir == "runs/tiny-sequence"


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("data.tables.item.num_embeddings=50", ("tables", "item"), {"num_embeddings": 50}),
        ("+data.tables.item.num_embeddings=50", ("tables", "item"), {"num_embeddings": 50}),
        ("+data.tables={item: {dim: 8}}", ("tables", "item"), {"dim": 8}),
        ("data.features.price.transforms=[log]", ("features", "price"), {"transforms": ["log"]}),
        ("data.groups.user=[age, country]", ("groups", "user"), ["age", "country"]),
    ],
)
def test_maps_of_the_users_own_names_grow_with_and_without_plus(override: str, path: tuple, value: object) -> None:
    name, key = path
    data = load("train", ["data=parquet", override]).data

    assert getattr(data, name)[key] == value


def test_a_table_of_the_plan_is_named_without_plus() -> None:
    assert load("train", ["plan.tables.item=row_wise"]).plan.tables == {"item": "row_wise"}


def test_an_experiment_changes_several_options() -> None:
    assert load("train").dedup
    assert not load("train", ["experiment=dedup_off"]).dedup


def test_yaml_of_a_config_is_the_config(tmp_path: Path) -> None:
    config = load("train", ["batch_size=64", "model.over=[32]", "plan.tables.item={type: TW, ranks: [0]}"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))

    assert from_yaml("train", tmp_path / "config.yaml") == config


def test_what_only_the_etl_needs_may_stay_open_for_training() -> None:
    config = load("train", ["data=parquet"])

    assert config.data.path is None
    assert config.data.labels == []


def test_a_users_directory_is_searched(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.yaml").write_text("name: mine\npath: clicks.parquet\nlabels: [bought]\n")
    config = load("etl", ["data=mine"], str(tmp_path))

    assert isinstance(config, EtlConfig)
    assert (config.data.name, config.data.labels, config.data.table) == ("mine", ["bought"], "tables/mine")
    assert load("etl", ["data=mine", f"hydra.searchpath=[file://{tmp_path}]"]).data.name == "mine"


def test_a_users_config_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/clickstream.yaml").write_text("name: clickstream\n")

    with pytest.raises(ConfigError, match="data=clikstream: no such config; did you mean 'clickstream'"):
        load("etl", ["data=clikstream"], str(tmp_path))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_sizee=3", "unknown option 'batch_sizee'; did you mean 'batch_size'?"),
        ("+unknown=1", "unknown option 'unknown'; every option: recd train --options"),
        ("unknown=1", "unknown option 'unknown'; every option: recd train --options"),
        ("optim.dense.lrr=1", "unknown option 'optim.dense.lrr'; did you mean 'optim.dense.lr'?"),
        ("checkpoint.evry=1", "unknown option 'checkpoint.evry'; did you mean 'checkpoint.every'?"),
        ("model.dimm=3", "unknown option 'model.dimm'; did you mean 'model.dim'?"),
        ("data.keys.sesion=x", "unknown option 'data.keys.sesion'; did you mean 'data.keys.session'?"),
        ("+data.keys.sesion=x", "unknown option 'data.keys.sesion'; did you mean 'data.keys.session'?"),
        ("data=tinny", "data=tinny: no such config; did you mean 'tiny'?"),
        ("model=dlmr", "model=dlmr: no such config; did you mean 'dlrm'?"),
        ("optim=adm", "optim=adm: no such config; did you mean 'adam'?"),
        ("plan=rowwise", "plan=rowwise: no such config; did you mean 'row_wise'?"),
        ("experiment=dedup_of", "experiment=dedup_of: no such config; did you mean 'dedup_off'?"),
        ("dat=tiny", "unknown option 'dat'; did you mean 'data'?"),
        ("optm=adam", "unknown option 'optm'; did you mean 'optim'?"),
        ("modle=dlrm", "unknown option 'modle'; did you mean 'model'?"),
        ("data.features.price.tabel=x", "unknown option 'data.features.price.tabel'; did you mean "
         "'data.features.price.table'?"),
        ("data.tables.item.num_embeding=5", "unknown option 'data.tables.item.num_embeding'; did you mean "
         "'data.tables.item.num_embeddings'?"),
        ("data.features.price=log", "data.features.price=log: must be a map of table, kind, weights, window, "
         "transforms"),
        ("batch_size=many", "batch_size=many: must be a whole number"),
        ("dedup=perhaps", "dedup=perhaps: must be true or false"),
        ("batch_size=[1", "batch_size=[1: must be a whole number"),
        ("batch_size", "'batch_size' is no override; write name=value"),
        ("--batch_size=3", "'--batch_size=3' is no override; options of the config are written name=value"),
        ("hydra.searchpath=[file:///no/such]", "hydra.searchpath: /no/such: no such directory"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_with_the_nearest_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("train", [override])

    assert str(caught.value) == message


def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")

    config = load("train", ["data.path=~/logs/a", "run_dir=~"])

    assert (config.data.path, config.run_dir) == ("/home/ann/logs/a", "/home/ann")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: mine\n keys: {a: b}\n", "line 2, column 6: not YAML (mapping values are not allowed here)"),
        ("name: mine\nnmae: other\n", "unknown option 'data.nmae'; did you mean 'data.name'?"),
    ],
)
def test_a_config_of_ones_own_that_is_wrong_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(text)

    with pytest.raises(ConfigError) as caught:
        load("etl", ["data=mine"], str(tmp_path))

    assert str(caught.value).endswith(message)
    assert "\n" not in str(caught.value)


def test_a_saved_config_that_is_no_yaml_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: [1")

    with pytest.raises(ConfigError, match=r"config.yaml, line 1, column 9: not YAML"):
        from_yaml("train", tmp_path / "config.yaml")


def test_a_config_directory_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="--config-dir /no/such: no such directory"):
        load("train", [], "/no/such")


def test_a_run_directory_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml: not there; is this the directory of a run\?"):
        from_yaml("train", tmp_path / "config.yaml")


def test_a_run_of_another_release_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("batch_size: 3\nwarp: 9\n")

    with pytest.raises(ConfigError, match=r"config\.yaml: .*warp"):
        from_yaml("train", tmp_path / "config.yaml")


@pytest.mark.parametrize("name", sorted(path.stem for path in config_dir().glob("data/*.yaml")))
@pytest.mark.parametrize("command", ["etl", "train"])
def test_every_shipped_source_composes(name: str, command: str) -> None:
    assert load(command, [f"data={name}"]).data.name == name


def test_names_of_leaves_are_dotted() -> None:
    assert list(dotted_names({"a": {"b": 1, "c": {}}, "d": [1]})) == ["a.b", "a.c", "d"]


@pytest.mark.parametrize("master", ["local[2]", "local[*]", "yarn", "spark://host:7077", "'local[2]'"])
def test_a_spark_master_needs_no_quotes(master: str) -> None:
    assert load("etl", [f"spark.master={master}"]).spark.master == master.strip("'")
