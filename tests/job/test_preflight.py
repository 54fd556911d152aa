"""What is found wrong before a rank starts: one line that names the option, what is there and the remedy."""

import json
import shutil
from pathlib import Path

import pytest

from recd_dist.embedding import distribute
from recd_dist.embedding.vocabulary.names import TABLE_OPTIMIZERS
from recd_dist.errors import ConfigError, DataError
from recd_dist.job import preflight
from recd_dist.job.config import CUSTOM, config_dir, load
from recd_dist.job.job import resolve
from recd_dist.job.options import TrainConfig
from recd_dist.model.models import MODELS
from recd_dist.table.schema import Feature, Kind, Schema


def config(tiny: list[str], tmp_path: Path, *overrides: str) -> TrainConfig:
    return load("train", [*tiny, f"run_dir={tmp_path / 'run'}", *overrides])


def test_words_of_other_rooms_are_theirs() -> None:
    assert set(TABLE_OPTIMIZERS) == set(distribute.OPTIMIZERS)
    assert {path.stem for path in config_dir().glob("model/*.yaml")} == set(MODELS)
    assert CUSTOM in MODELS


def test_a_good_job_is_resolved_against_its_table(tiny: list[str], tmp_path: Path) -> None:
    job = preflight.check(config(tiny, tmp_path, "model.dim=8"), world_size=2)

    assert job.schema.groups == ("history", "profile", "sample")
    assert {name: (table.num_embeddings, table.dim) for name, table in job.tables.items()} == {
        "item": (1000, 8), "category": (10, 8), "region": (30, 8), "device": (6, 8), "position": (12, 8),
    }  # fmt: skip
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_size=0", "batch_size=0: must be at least 1"),
        ("max_steps=0", "max_steps=0: must be at least 1"),
        ("epochs=0", "epochs=0: must be at least 1"),
        ("reader.num_workers=-1", "reader.num_workers=-1: must be at least 0"),
        ("evaluate.batch_size=0", "evaluate.batch_size=0: must be at least 1, or null"),
        ("reader.on_bad_id=drp", "reader.on_bad_id=drp: unknown; did you mean 'drop'?"),
        ("optim.dense.lr=0", "optim.dense.lr=0.0: must be above 0, and finite"),
        ("seed=18446744073709551616", "seed=18446744073709551616: must be from -9223372036854775808 to "
         "18446744073709551615, a number of 64 bits"),
        ("optim.tables.name=adagradd", "optim.tables.name=adagradd: unknown; did you mean 'adagrad'?"),
        ("optim.tables.kernel=fbgem", "optim.tables.kernel=fbgem: unknown; did you mean 'fbgemm'?"),
        ("optim.dense.name=adan", "optim.dense.name=adan: unknown; did you mean 'adam'?"),
        ("device=gpu", "device=gpu: unknown; did you mean 'cpu'?"),
        ("data.source=syntetic", "data.source=syntetic: unknown; did you mean 'synthetic'?"),
        ("model.name=dlmr", "model.name=dlmr: no such model; did you mean 'dlrm'?"),
        ("model.dim=wide", "model.dim=wide: must be a whole number"),
        ("model.dim=6", "model.dim=6: must be a multiple of 4; use 8"),
        ("model.over=[a]", "model.over[0]=a: must be a whole number"),
        ("model.bottom=[]", "model.bottom=[]: must be a list of widths, each at least 1, such as [64,32]"),
        ("model.dropout=1", "model.dropout=1.0: must be at least 0 and less than 1"),
        ("model.pooling=men", "model.pooling=men: unknown; did you mean 'mean'?"),
        ("data.tables.item.dim=32", "data.tables.item.dim=32: model.dim is 16; make them agree"),
        ("data.tables.itm.num_embeddings=9999", "data.tables: no table 'itm'; did you mean 'item'?"),
        ("data.tables.item.num_embeddings=x", "data.tables.item.num_embeddings=x: must be a whole number or null"),
        ("data.tables.item.num_embeddings=50", "data.tables.item.num_embeddings=50: ids go up to 999; set "
         "num_embeddings=1000 or more, or data.tables.item.hashed=true, or mapped=true"),
        ("data.features.price.transforms=[lg]", "feature 'price': unknown transform 'lg'; did you mean 'log'?"),
        ("plan.sharding=row_wis", "plan.sharding=row_wis: unknown; did you mean 'row_wise'?"),
        ("plan.tables.itm=RW", "plan.tables.itm: no such table; did you mean 'item'?"),
        ("plan.tables.item=row_wis", "plan.tables.item=row_wis: unknown sharding type; did you mean 'row_wise'?"),
        ("plan.tables.item={typ: RW}", "unknown option 'plan.tables.item.typ'; did you mean 'plan.tables.item.type'?"),
        ("plan.tables.item={type: TW, ranks: [5]}", "plan.tables.item: rank 5 is named, this job has 2 ranks (0 to 1); "
         "start more, or plan again"),
        ("plan.send.itm=ids", "plan.send.itm: no such table; did you mean 'item'?"),
        ("plan.send.item=id", "plan.send.item=id: unknown; did you mean 'ids'?"),
        ("plan.expand=[usr]", "plan.expand: no group 'usr'; there are: history, profile"),
        ("plan.topology=h10x8", "plan.topology=h10x8: unknown; did you mean 'h100'?; NAMExN has N ranks a host"),
        ("plan.costs=no/such.json", "plan.costs=no/such.json: cannot be read (No such file or directory); measure with "
         "`recd plan --probe`"),
        ("plan.file=no/such.json", "plan.file=no/such.json: cannot be read (No such file or directory); `recd plan "
         "--save` writes one"),
        ("plan.world_size=4", "plan.world_size=4: the plan is for 4 ranks, the job has 2; start as many (-j 1x4) or "
         "plan.world_size=null"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(tiny: list[str], tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preflight.check(config(tiny, tmp_path, override), world_size=2)

    assert str(caught.value) == message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.drop=[positon]"], r"has no feature 'positon'; did you mean 'position'\?"),
        (["data.features.pric.transforms=[log]"], r"has no feature 'pric'; did you mean 'price'\?"),
        (["data.labels=[clicked]"], r"data\.labels=\['clicked'\]: the table .* holds \['label'\]; make it again"),
        (["data.keys.session=visit"], r"data\.keys\.session=visit: the table .* was made by 'session_id'"),
        (["data.features.candidate_item.table=category"], r"in the table .* it is item; make it again"),
        (["data.groups.history.features=[region]"], r"'region' is in group 'profile' of the table"),
        (["evaluate.split=tst"], r"evaluate\.split=tst: the table .* has no such split; did you mean 'test'\?"),
        (["dedup=false", "optim.tables.kernel=recd"], r"kernel=recd: needs device=cpu and dedup=true; use auto or"),
        (["device=cpu", "optim.tables.name=adam"], r"fbgemm has no CPU kernel for it; use sgd"),
        (["model=dcn_v2", "model.rank=-1"], r"model\.rank=-1: must be at least 1, or 0 for full matrices"),
        (["model=sequence", "model.heads=3"], r"model\.heads=3: must divide model\.dim, which is 16"),
        (["plan.sharding=planner", "plan.tables.item=RW"], r"the planner places every table itself"),
    ],
)  # fmt: skip
def test_options_that_the_table_contradicts(
    tiny: list[str], tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        preflight.check(config(tiny, tmp_path, *overrides))


def test_a_model_needs_ids(tiny: list[str], tmp_path: Path) -> None:
    job = config(tiny, tmp_path)
    ids = [feature.name for feature in resolve(job).schema.sparse]

    with pytest.raises(ConfigError, match="no feature that is trained holds ids"):
        preflight.check(config(tiny, tmp_path, f"data.drop=[{','.join(ids)}]"))
    assert preflight.check(config(tiny, tmp_path, f"data.drop=[{','.join(ids[1:])}]")).schema.sparse


def test_a_damaged_checkpoint_is_left_to_the_ranks(tiny: list[str], tmp_path: Path) -> None:
    checkpoint_at(tmp_path / "run", 5, 0)
    (tmp_path / "run/checkpoints/step-00000005/checkpoint.json").write_text("{")

    assert preflight.check(config(tiny, tmp_path)).config.resume


def test_no_table(tiny: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no clustered table at .*; make it with `recd etl data=tiny`"):
        preflight.check(config(tiny, tmp_path, f"data.table={tmp_path / 'nothing'}"))


def test_more_ranks_than_samples(tiny: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"samples for 100000 ranks, each needs at least one"):
        preflight.check(config(tiny, tmp_path), world_size=100000)


@pytest.mark.parametrize("file", ["samples", "history"])
def test_a_truncated_or_missing_file_of_the_table(tiny: list[str], tmp_path: Path, file: str) -> None:
    job = resolve(config(tiny, tmp_path))
    shutil.copytree(job.table.path.parent, tmp_path / "table")
    part = job.manifest.parts[0]
    path = tmp_path / "table/train" / (part.samples if file == "samples" else part.groups[file]).path
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2])

    spoiled = config(tiny, tmp_path, f"data.table={tmp_path / 'table'}")
    with pytest.raises(DataError, match=rf"{path.name}: {size // 2:,} bytes, {size:,} were written: the file was cut"):
        preflight.check(spoiled)
    path.unlink()
    with pytest.raises(DataError, match=rf"{path.name}: no such file, though the manifest names it; make the table"):
        preflight.check(spoiled)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run_dir=", "run_dir=: names no directory"),
        ("run_dir=s3://bucket/mine", "the directory of a run is local, .* checkpoint.path=s3://bucket/mine for"),
        ("run_dir=file:///runs/mine", "is an address; write it as a path, run_dir=/runs/mine"),
        ("checkpoint.path=", "checkpoint.path=: names no directory"),
        ("checkpoint.path=memory://mine", "checkpoint.path=memory://mine: is gone when the process ends"),
    ],
)
def test_a_place_that_keeps_nothing(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ConfigError, match=message):
        preflight.check(config(tiny, tmp_path, override))
    assert not list(Path().iterdir())


def test_a_run_directory_that_cannot_be_made(tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"file/run: cannot be written \(Not a directory\); choose another with run_"):
        preflight.check(config(tiny, tmp_path, f"run_dir={tmp_path / 'file/run'}"))


def checkpoint_at(run_dir: Path, step: int, epoch: int) -> None:
    directory = run_dir / f"checkpoints/step-{step:08d}"
    directory.mkdir(parents=True)
    header = {"format": "recd_dist.checkpoint", "version": 1, "step": step, "world_size": 1}
    header |= {"schema": Schema((Feature("item", Kind.id, table="item"),)).to_json()}
    (directory / ".metadata").touch()
    (directory / "checkpoint.json").write_text(json.dumps({**header, "extra": {"reader": {"epoch": epoch}}}))


@pytest.mark.parametrize(
    ("step", "epoch", "overrides", "remedy"),
    [(90, 1, [], "epochs=2"), (90, 0, ["max_steps=90"], "max_steps=1090"), (90, 0, ["max_steps=50"], "max_steps=1090")],
)
def test_a_run_that_is_complete(
    tiny: list[str], tmp_path: Path, step: int, epoch: int, overrides: list[str], remedy: str
) -> None:
    checkpoint_at(tmp_path / "run", step, epoch)
    for summary in (None, "", '{"steps": 80}'):  # the evaluation of this step is missing: that is work
        if summary is not None:
            (tmp_path / "run/summary.json").write_text(summary)
        preflight.check(config(tiny, tmp_path, *overrides))
    (tmp_path / "run/summary.json").write_text('{"steps": 90}')

    with pytest.raises(ConfigError, match=rf"trained to the end already \(90 steps, .*; go on with {remedy}"):
        preflight.check(config(tiny, tmp_path, *overrides))
    preflight.check(config(tiny, tmp_path, *overrides, "resume=false"))
    preflight.check(config(tiny, tmp_path, "epochs=2"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.dim=8", "a run with model.dim=16, now 8"),
        ("model=hstu", "a run with model.name=dlrm, now hstu; model=dlrm goes on with it"),
        ("model.batch_norm=true", "now true; model.batch_norm=false goes on with it"),
        ("optim.ema=0.9", "now 0.9; optim.ema=null goes on with it"),
        ("seed=3", "seed=0, now 3"),
        ("dedup=false", "dedup=true goes on with it"),
    ],
)
def test_a_run_directory_of_another_run(tiny: list[str], tmp_path: Path, override: str, message: str) -> None:
    from recd_dist.job.config import to_yaml

    checkpoint_at(tmp_path / "run", 5, 0)
    (tmp_path / "run/config.yaml").write_text(to_yaml(config(tiny, tmp_path)))

    preflight.check(config(tiny, tmp_path))
    with pytest.raises(ConfigError, match=message):
        preflight.check(config(tiny, tmp_path, override))


def test_the_command_prints_one_line_and_exits_with_2(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = f"run_dir={tmp_path / 'run'}"

    assert preflight.main([*tiny, run_dir]) == 0
    assert preflight.main([*tiny, run_dir, "batch_sizee=3"]) == 2
    assert capsys.readouterr() == ("", "recd: error: unknown option 'batch_sizee'; did you mean 'batch_size'?\n")


def test_a_split_too_small_to_evaluate_is_found_before_training(tiny: list[str], tmp_path: Path) -> None:
    table = Path(next(o for o in tiny if o.startswith("data.table=")).partition("=")[2])
    num_samples = json.loads((table / "test/manifest.json").read_text())["num_samples"]

    with pytest.raises(ConfigError, match=rf"evaluate\.split=test: {num_samples} samples for {num_samples + 1} ranks"):
        preflight.check(config(tiny, tmp_path), world_size=num_samples + 1)
    preflight.check(config(tiny, tmp_path, "evaluate.split=null"), world_size=num_samples + 1)
