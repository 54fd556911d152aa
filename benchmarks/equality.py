"""Deduplication loses nothing: dedup=on and dedup=off train the same model, step by step, on 2 ranks.

    recd etl data=tiny
    python benchmarks/equality.py [OVERRIDE ...] [--steps 200] [--markdown] [--json FILE]

Both modes start from the same weights and train the same batches through the same pipeline; dedup=off is plain TorchRec
on expanded KeyedJaggedTensors. At a few steps the script prints the largest relative difference of the losses so far,
and that of the table weights (the largest difference of a table divided by its largest weight). float32 sums in another
order differ by rounding, and a difference grows during training. The same model and batches in float64 (one process,
unsharded tables, plain Adagrad) show that it is only rounding: there the difference is a billion times smaller.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import measure

from recd_dist.ranks.quiet import log_to_screen, quiet_libraries

SHOWN = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
BASELINE = "dedup=off: plain TorchRec on expanded KeyedJaggedTensors"
Row = dict[str, float]


def loss_difference(ours: list[float], plain: list[float]) -> float:
    """The largest relative difference of two loss curves."""
    return max(abs(a - b) / abs(b) for a, b in zip(ours, plain, strict=True))


def gather_weights(model: Any) -> dict[str, Any]:
    """Gathers every table whole on every rank, because the modes may place their shards differently; a collective."""
    import torch
    import torch.distributed as dist

    from recd_dist.embedding.initial_weights import local_shards
    from recd_dist.embedding.tables import table_weights

    whole = {}
    for name, weight in table_weights(model).items():
        full = torch.zeros(tuple(weight.size()), dtype=weight.dtype)
        for part, row, column in local_shards(weight):
            full[row : row + part.shape[0], column : column + part.shape[1]] = part
        dist.all_reduce(full)
        whole[name] = full
    return whole


def weight_difference(ours: Any, plain: Any, start: dict[str, Any]) -> tuple[float, float]:
    """The largest difference of a table divided by its largest weight, and the smallest movement of a table so far."""
    mine, others = gather_weights(ours), gather_weights(plain)
    worst = max(float((mine[t] - others[t]).abs().max() / others[t].abs().max()) for t in mine)
    return worst, min(float((mine[t] - start[t]).abs().max()) for t in mine)


def rank_main(config: dict[str, Any]) -> None:
    """One rank: trains both modes side by side, and compares them at the steps that are shown."""
    import torch

    from recd_dist.job.config import load
    from recd_dist.job.job import resolve
    from recd_dist.metrics.gather import reduce_over_ranks
    from recd_dist.ranks.process_group import process_group
    from recd_dist.train import build, training

    torch.set_num_threads(1)
    log_to_screen()
    quiet_libraries()
    with process_group("cpu") as ranks:
        job = resolve(load("train", config["overrides"]))
        loader = build.build_loader(job, ranks, job.transforms.fit(job.table))
        if len(loader) < config["steps"]:
            raise SystemExit(f"equality: the table has {len(loader)} steps; lower batch_size or --steps")
        batches = list(islice(iter(loader), config["steps"]))
        loader.close()
        plain_job = replace(job, config=replace(job.config, dedup=False))
        sides = [training.shard_model(each, ranks)[:2] for each in (job, plain_job)]
        models = [model for model, _ in sides]
        pipelines = [training.start_pipeline(m, o, ranks.device) for m, o in sides]
        start, rows = gather_weights(models[0]), []
        streams = [iter(batches), (batch.expand() for batch in batches)]
        losses: list[list[float]] = [[], []]
        for step in range(1, config["steps"] + 1):
            for pipeline, stream, curve in zip(pipelines, streams, losses, strict=True):
                curve.append(float(pipeline.progress(stream)[0]))
            if step in SHOWN or step == config["steps"]:
                worst, moved = weight_difference(*models, start)
                difference = reduce_over_ranks({"loss": loss_difference(*losses)}, "max", ranks.device)["loss"]
                row = {"loss_difference": difference, "weight_difference": worst, "moved": moved}
                rows.append({"step": step, "loss": losses[1][-1], **row})
        if ranks.is_first:
            Path(config["out"]).write_text(json.dumps(rows))


@contextmanager
def doubles() -> Iterator[None]:
    """Inside, ``Tensor.float`` keeps float64: TorchRec's unsharded collections convert their outputs with it."""
    import torch

    single, torch.Tensor.float = torch.Tensor.float, torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.float = single  # type: ignore[method-assign]


def build_in_float64(job: Any) -> list[Any]:
    """The models of both modes in float64, dedup=on first: unsharded, with the same weights."""
    from recd_dist.embedding.initial_weights import initialize_tables
    from recd_dist.train import build

    models = []
    for dedup in (True, False):
        with build.seeded(job):  # both begin with the same dense weights
            models.append(build.build_model(job, dedup, "cpu"))
        initialize_tables(models[-1], job.config.seed)
        models[-1].double()
    return models


def step_in_float64(model: Any, optimizers: list[Any], batch: Any) -> float:
    """One step of a model in float64; returns its loss."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss, _ = model(to_float64(batch))
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    return float(loss.item())


def compare_in_float64(overrides: list[str], steps: int) -> list[Row]:
    """Compares the modes in float64: one process, unsharded tables, torch's Adagrad for everything."""
    import torch

    from recd_dist.job.config import load
    from recd_dist.job.job import resolve
    from recd_dist.ranks.process_group import process_group
    from recd_dist.train import build

    with doubles(), process_group("cpu") as ranks:
        job = resolve(load("train", overrides))
        loader = build.build_loader(job, ranks, job.transforms.fit(job.table))
        batches = list(islice(iter(loader), steps))
        models = build_in_float64(job)
        optimizers = [[torch.optim.Adagrad(m.parameters(), lr=0.02)] for m in models]
        start, rows = gather_weights(models[0]), []
        losses: list[list[float]] = [[], []]
        for step, batch in enumerate(batches, 1):
            for model, own, curve, each in zip(models, optimizers, losses, (batch, batch.expand()), strict=True):
                curve.append(step_in_float64(model, own, each))
            if step in SHOWN or step == steps:
                worst, moved = weight_difference(*models, start)
                row = {"loss_difference": loss_difference(*losses), "weight_difference": worst, "moved": moved}
                rows.append({"step": step, "loss": losses[1][-1], **row})
        return rows


def to_float64(batch: Any) -> Any:
    """The batch with float64 dense features and labels."""
    dense = {group: values.double() for group, values in batch.dense.items()}
    return replace(batch, dense=dense, labels=batch.labels.double())


def main() -> None:
    """Prints both tables."""
    parser = measure.build_parser(__doc__)
    parser.add_argument("overrides", nargs="*", default=["data=tiny"], help="of recd train; default data=tiny")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        rank_main(json.loads(options.rank))
        return
    single = measure.run_ranks(__file__, {"steps": options.steps}, options.overrides)
    tiny = ["data=tiny", "batch_size=256"]
    double = compare_in_float64(tiny, min(options.steps, 100))
    head = ["step", "loss", "loss, largest relative difference", "weights, largest relative difference", "moved"]
    results = []
    for title, rows, claim in (
        (f"float32, {measure.NUM_RANKS} ranks, {' '.join(options.overrides)}", single, "equality.float32"),
        (f"float64, 1 process, {' '.join(tiny)}", double, "equality.float64"),
    ):
        sys.stdout.write(f"\n{title}\n\n")
        cells = [
            [f"{r['step']:.0f}", f"{r['loss']:.4f}"]
            + [f"{r[k]:.1e}" for k in ("loss_difference", "weight_difference", "moved")]
            for r in rows
        ]
        sys.stdout.write(measure.table(head, cells, markdown=options.markdown))
        worst = [r["loss_difference"] for r in rows]
        results.append(measure.Result(claim, worst[-1], worst[0], worst[-1], BASELINE, "relative", title))
    sys.stdout.write(f"\n{measure.machine()}\n")
    if options.json:
        options.json.write_text(json.dumps([r.to_json() for r in results], indent=1) + "\n")


if __name__ == "__main__":
    main()
