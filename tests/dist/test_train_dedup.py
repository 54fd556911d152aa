"""A whole job on two ranks, dedup=on against dedup=off: the same batches give the same losses and the same tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.cli import main
from recd_dist.job.config import load
from recd_dist.job.preflight import check
from recd_dist.ranks.process_group import Ranks
from recd_dist.train import build
from recd_dist.train.evaluation import evaluate_run
from recd_dist.train.training import shard_model, start_pipeline, train

NUM_STEPS = 20


def _train_steps(
    ranks: Ranks, overrides: list[str], num_steps: int = NUM_STEPS
) -> tuple[list[float], list[int], dict[str, Any], dict[str, Any]]:
    """Losses, batch sizes, and this rank's pieces of the tables before and after."""
    job = check(load("train", overrides), ranks.world_size)
    transforms = job.transforms.fit(job.table)
    model, optimizer, _ = shard_model(job, ranks)
    pipeline = start_pipeline(model, optimizer, ranks.device)
    before = _table_pieces(model)
    losses, sizes = [], []
    loader = build.build_loader(job, ranks, transforms)
    batches = iter(loader)
    for _ in range(num_steps):
        output = pipeline.progress(batches)
        losses.append(float(output.loss))
        sizes.append(output.batch.batch_size)
    loader.close()
    return losses, sizes, before, _table_pieces(model)


def _table_pieces(model: Any) -> dict[str, Any]:
    pieces = {}
    for name, value in model.state_dict().items():
        for shard in value.local_shards() if hasattr(value, "local_shards") else []:
            pieces[name.split(".")[-2], tuple(shard.metadata.shard_offsets)] = shard.tensor.numpy().copy()
    return pieces


@pytest.mark.parametrize(
    "options",
    [
        ["model=dlrm"],
        ["model=sequence"],
        ["model=dlrm", "model.batch_norm=true", "optim.clip_norm=0.5"],
        ["model=dlrm", "plan.expand=[history]", "plan.send.item=ids"],
        ["model=sequence", "plan.expand=[profile]", "plan.send.item=rows"],
        ["model=sequence", "plan.expand=[history]"],
        ["model=sequence", "plan.expand=[history,profile]"],
        ["model=din", "model.beside={history_item: [history_category]}"],
        ["model=hstu", "model.beside={history_item: [history_category]}"],
        ["model=transformer"],
    ],
    ids=[
        "dlrm",
        "sequence",
        "dlrm, normalised and clipped",
        "dlrm, expanded",
        "sequence, expanded",
        "sequence, history expanded",
        "sequence, all expanded",
        "din",
        "hstu",
        "transformer",
    ],
)
def test_losses_and_tables_agree(two_ranks, tiny: list[str], tmp_path: Path, options: list[str]) -> None:
    # Adagrad turns a gradient that is nothing but rounding into a whole step, unless eps is above the rounding.
    steady = ["optim.dense.eps=1e-4", "optim.tables.eps=1e-4"]
    overrides = [*tiny, *options, *steady, "batch_size=64", f"run_dir={tmp_path / 'run'}", "plan=row_wise"]
    on = two_ranks(_train_steps, [*overrides, "dedup=on"])
    off = two_ranks(_train_steps, [*overrides, "dedup=off"])

    for (losses, sizes, before, after), (plain, plain_sizes, plain_before, plain_after) in zip(on, off, strict=True):
        assert sizes == plain_sizes
        np.testing.assert_allclose(losses, plain, rtol=1e-4)
        assert before.keys() == plain_before.keys()
        assert {name for name, _ in before} == {"item", "category", "region", "device", "position"}
        for name, weights in after.items():
            np.testing.assert_array_equal(before[name], plain_before[name])
            np.testing.assert_allclose(weights, plain_after[name], atol=1e-4, err_msg=str(name))
            assert np.abs(weights - before[name]).max() > 0.01, f"{name} was not trained"


def _train_models(ranks: Ranks, runs: dict[str, list[str]]) -> dict[str, tuple[list[float], dict[str, Any]]]:
    """For each run its losses, and this rank's pieces of the tables."""
    results = {}
    for name, overrides in runs.items():
        losses, _, _, after = _train_steps(ranks, overrides, 4)
        results[name] = losses, after
    return results


def test_every_model_trains_alike_with_and_without_deduplication(two_ranks, tiny: list[str], tmp_path: Path) -> None:
    """The models of pooled vectors, all in one job of two ranks."""
    steady = ["optim.dense.eps=1e-4", "optim.tables.eps=1e-4", "batch_size=64", "plan=row_wise"]
    models = {name: [f"model={name}"] for name in ("dcn_v2", "deepfm", "wide_deep", "mmoe", "ple")}
    models["mlperf"] = ["experiment=mlperf_dcn_v2", "model.dim=8", "model.rank=4", "model.over=[16]"]
    common = [*tiny, f"run_dir={tmp_path / 'run'}"]
    on, off = (
        two_ranks(_train_models, {n: [*common, *chosen, *steady, f"dedup={dedup}"] for n, chosen in models.items()})
        for dedup in ("on", "off")
    )

    for unique, plain in zip(on, off, strict=True):
        for name, (losses, tables) in unique.items():
            np.testing.assert_allclose(losses, plain[name][0], rtol=1e-4, err_msg=name)
            assert losses[0] != losses[-1]
            for table, weights in tables.items():
                np.testing.assert_allclose(weights, plain[name][1][table], atol=1e-4, err_msg=f"{name}, {table}")


# --- lists with weights, from raw logs on ---


def raw_logs(num_sessions: int = 500) -> pa.Table:
    """Histories shift and have weights of both signs; ``shops`` has no weights, ``tags`` differs in every sample."""
    random = np.random.default_rng(0)
    rows = []
    for session in range(num_sessions):
        items, heat = random.integers(0, 60, 40), random.uniform(-5, 10, 40).astype(np.float32)
        at = 0
        for t in range(random.integers(3, 12)):
            at += int(random.random() < 0.3)
            tags = random.integers(0, 12, random.integers(0, 4))
            rows.append(
                {
                    "session": session,
                    "t": t,
                    "clicked": float(random.random() < 0.4),
                    "history": items[at : at + 12].tolist(),
                    "heat": heat[at : at + 12].tolist(),
                    "shops": (items[at : at + 5] % 9).tolist(),
                    "tags": tags.tolist(),
                    "near": random.uniform(0, 10, len(tags)).tolist(),
                    "candidate": int(random.integers(0, 60)),
                    "candidate_shop": int(random.integers(0, 9)),
                    "price": float(random.normal()),
                }
            )
    return pa.Table.from_pylist(rows)


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that name a table that ``recd etl`` writes from these logs."""
    path = tmp_path_factory.mktemp("weights")
    pq.write_table(raw_logs(), path / "raw.parquet")
    overrides = [
        "data=parquet",
        f"data.path={path / 'raw.parquet'}",
        f"data.table={path / 'table'}",
        "data.keys={session: session, timestamp: t}",
        "data.labels=[clicked]",
        "data.groups={user: [history, shops]}",
        "data.features.history={table: item, weights: heat, window: true}",
        "data.features.shops={table: shop, window: false}",
        "data.features.tags={table: tag, weights: near}",
        "data.features.candidate.table=item",
    ]
    assert main(["etl", *overrides, "row_group_samples=256"]) == 0
    return overrides


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize(
    "options",
    [
        ["model=dlrm"],
        ["model=dlrm", "plan.send={item: ids, tag: ids}"],
        ["model=sequence"],
        ["model=dlrm", "plan.expand=[user]"],
    ],
    ids=["dlrm", "dlrm, ids", "sequence", "dlrm, expanded"],
)
def test_weights_train_the_same(two_ranks, weighted, tmp_path: Path, options: list[str], pooling: str) -> None:
    overrides = [*weighted, *options, f"model.pooling={pooling}", "batch_size=64", f"run_dir={tmp_path / 'run'}"]
    # Adagrad's first step would make a whole step of the rounding of a gradient near 0, so the optimizer is SGD.
    overrides += ["plan=row_wise", "optim=sgd", "optim.tables.lr=20"]
    on = two_ranks(_train_steps, [*overrides, "dedup=on"])
    off = two_ranks(_train_steps, [*overrides, "dedup=off"])
    without = two_ranks(_train_steps, [*overrides, "dedup=on", "data.drop=[heat,near]"])
    for (losses, sizes, before, after), plain, dropped in zip(on, off, without, strict=True):
        assert sizes == plain[1]
        np.testing.assert_allclose(losses, plain[0], rtol=1e-5)
        assert np.abs(np.array(losses) - dropped[0]).max() > 3e-4  # weights are used
        assert before.keys() == plain[2].keys()
        assert {name for name, _ in before} == {"item", "shop", "tag", "candidate_shop"}
        for name, values in after.items():
            np.testing.assert_array_equal(before[name], plain[2][name])
            np.testing.assert_allclose(values, plain[3][name], atol=1e-5, err_msg=str(name))
            assert np.abs(values - before[name]).max() > 5e-3, f"{name} was not trained"


def _train_and_evaluate(ranks: Ranks, overrides: list[str], run_dir: Path) -> tuple[dict, dict]:
    summary = train(load("train", overrides), ranks)
    return summary, evaluate_run(load("evaluate", [f"run_dir={run_dir}"]), ranks)


@pytest.mark.parametrize("dedup", ["on", "off"])
def test_a_run_is_saved_evaluated_and_counted(two_ranks, weighted: list[str], tmp_path: Path, dedup: str) -> None:
    run_dir = tmp_path / "run"
    overrides = [*weighted, "batch_size=64", f"run_dir={run_dir}", f"dedup={dedup}", "max_steps=8", "plan=row_wise"]
    summary, evaluation = two_ranks(_train_and_evaluate, overrides, run_dir)[0]
    assert evaluation["step"] == 8
    assert evaluation["ne"] == pytest.approx(summary["ne"], rel=1e-5)
    formula = summary["unique_bytes_by_formula" if dedup == "on" else "expanded_bytes"]
    assert summary["sent_bytes"] == pytest.approx(formula, rel=0.05)


def _train_and_look(ranks: Ranks, overrides: list[str]) -> dict[str, Any]:
    return train(load("train", overrides), ranks)


def test_evaluations_while_training_are_the_same_on_ranks_and_in_both_modes(
    two_ranks, tiny: list[str], tmp_path: Path
) -> None:
    best = []
    for mode in ("on", "off"):
        run_dir = tmp_path / mode
        options = [f"dedup={mode}", "batch_size=64", "max_steps=20", "evaluate.every=5", "plan=row_wise"]
        results = two_ranks(_train_and_look, [*tiny, f"run_dir={run_dir}", *options])
        assert results[0]["best"] == results[1]["best"]  # the ranks come to the same decisions
        assert [path.name for path in (run_dir / "best").glob("step-*")] == [f"step-{results[0]['best']['step']:08d}"]
        best.append({name: results[0]["best"][name] for name in ("step", "ne", "auc", "num_samples")})
    assert best[0] == pytest.approx(best[1], rel=1e-3)
