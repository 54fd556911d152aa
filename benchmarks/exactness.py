"""Every model, task and optimizer trains the same with deduplication on and off: 50 steps on 1, 2 and 4 ranks.

    python benchmarks/exactness.py [--quick] [--only TEXT] [--markdown] [--json FILE]

A case is trained twice from the same weights on the same batches, on unique rows and by plain TorchRec on expanded
ones, in the same processes. After the last step two numbers are judged, and the script fails where one is too
large: the largest relative difference of the losses of a step, and the largest difference of a weight (tables, dense
layers, running statistics) over the largest number of its tensor. It also fails where a tensor has not moved.

A sum in another order differs in its last bit. SGD keeps such a difference small, and its bound is tight. Adagrad and
Adam divide by the gradient's own size: where a gradient is nothing but rounding, or a ReLU lets the only gradient of a
unit through in one mode alone, a difference of the last bit becomes a whole step. An eps above the rounding (1e-4 in
place of 1e-8) prevents the first and not the second, so that their bound is wide. The same in float64 (one process,
unsharded tables), where the bound is tight again, shows that it is rounding.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import measure
import trained
from equality import build_in_float64, doubles, gather_weights, step_in_float64

from recd_dist.ranks.quiet import log_to_screen, quiet_libraries

STEPS = 50
SAMPLES_PER_STEP = 128
"""Of all ranks together, so that any number of them trains the same batches."""

TIGHT, WIDE, DOUBLE = "tight", "wide", "float64"
BOUNDS = {TIGHT: (1e-5, 1e-2), WIDE: (5e-2, 1.0), DOUBLE: (1e-9, 1e-9)}
"""The largest relative differences of losses and weights that are let pass."""

MODELS = ("dlrm", "dcn_v2", "deepfm", "wide_deep", "mmoe", "ple", "din", "transformer", "hstu", "two_tower")
_BESIDE = ("model.beside={history_item: [history_category]}",)
_OF_MODEL = {"din": _BESIDE, "hstu": _BESIDE}
_TASKS = {
    "binary": ("tasks.label.loss=binary",),
    "regression": ("tasks.watch_s.loss=regression",),
    "softmax": ("tasks.label={loss: softmax, no_positive: skip}",),
}
_ALL_TASKS = (
    "tasks.label={loss: binary}",
    "tasks.watch_s={loss: regression, weight: 0.3}",
    "tasks.chosen={label: label, loss: softmax, no_positive: skip}",
)
_TASKS_OF_TOWERS = (
    "tasks.label={loss: in_batch}",
    "tasks.own={label: label, loss: in_batch, candidates: positives, negatives: rank, log_q: false, weight: 0.3}",
    "tasks.chosen={label: label, loss: softmax, no_positive: skip}",
)
_SGD = ("optim=sgd", "optim.tables.lr=1", "optim.dense.lr=0.05")
_STEADY = ("optim.tables.eps=1e-4", "optim.dense.eps=1e-4")
_TABLE_OPTIMIZERS = {"sgd": 1, "adagrad": 0.02, "rowwise_adagrad": 0.05}
_DENSE_OPTIMIZERS = {"sgd": 0.05, "adagrad": 0.01, "adam": 0.001, "adamw": 0.001}
_FREE = ("logit.bias", "wide.bias", "first_order.bias")
"""A softmax over the candidates of a request does not change with a number that is added to all of their logits."""

_WAYS = {
    "clipped, in 3 micro-batches, averaged": ("micro_batches=3", "optim.clip_norm=0.5", "optim.ema=0.9"),
    "warm-up and decay": ("optim.dense.schedule={warmup_steps: 10, decay: cosine, decay_steps: 40}",),
    "row-wise tables, ids travel": ("plan=row_wise", "plan.send.item=ids"),
    "one group expanded": ("plan.expand=[history]",),
    "sum pooling": ("model.pooling=sum",),
}


@dataclass(frozen=True)
class Case:
    """What is trained in both modes.

    Attributes:
        part: the part of the report in which it stands.
        name: what it is called there.
        kind: which bounds hold, a key of ``BOUNDS``.
        overrides: of recd train.
        ranks: on how many ranks it is trained.
        free: the end of the names of weights on which the loss does not depend.
    """

    part: str
    name: str
    kind: str
    overrides: tuple[str, ...]
    ranks: tuple[int, ...]
    free: tuple[str, ...] = ()


def optimizer(tables: str, dense: str) -> tuple[str, ...]:
    """The overrides that choose two optimizers, with rates that move the weights."""
    rates = f"optim.tables.lr={_TABLE_OPTIMIZERS[tables]}", f"optim.dense.lr={_DENSE_OPTIMIZERS[dense]}"
    return (f"optim.tables.name={tables}", f"optim.dense.name={dense}", *rates)


def find_cases() -> list[Case]:
    """All cases."""
    cases = []
    for model in MODELS:
        chosen = (f"model={model}", "model.dim=8", *_OF_MODEL.get(model, ()))
        tasks = (*chosen, *(_TASKS_OF_TOWERS if model == "two_tower" else _ALL_TASKS))
        cases += [
            Case("Models, SGD", model, TIGHT, (*chosen, *_SGD), (1, 2, 4)),
            Case("Models, row-wise Adagrad and Adagrad, eps 1e-4", model, WIDE, (*chosen, *_STEADY), (2, 4)),
            Case("Models, row-wise Adagrad and Adagrad, eps 1e-8", model, WIDE, chosen, (2,)),
            Case("Models with three tasks, SGD", model, TIGHT, (*tasks, *_SGD), (2,), _FREE),
            Case("Models with three tasks, float64, Adagrad", model, DOUBLE, tasks, (1,), _FREE),
        ]
    for model, (task, options) in product(("dlrm", "transformer"), _TASKS.items()):
        weighted, free = (f"model={model}", *options, "data.weight=importance", *_SGD), _FREE * (task == "softmax")
        cases.append(Case("Tasks with weights, SGD", f"{model}, {task}", TIGHT, weighted, (1, 2, 4), free))
    for tables, dense in product(_TABLE_OPTIMIZERS, _DENSE_OPTIMIZERS):
        chosen, name = ("model=dlrm", *optimizer(tables, dense)), f"{tables}, {dense}"
        kind = TIGHT if tables == dense == "sgd" else WIDE
        cases += [
            Case("Optimizers of tables and dense layers, eps 1e-4", name, kind, (*chosen, *_STEADY), (2, 4)),
            Case("Optimizers of tables and dense layers, eps 1e-8", name, WIDE, chosen, (2,)),
            Case("Optimizers of tables and dense layers, float64, eps 1e-8", name, DOUBLE, chosen, (1,)),
        ]
    for name, options in _WAYS.items():
        cases.append(Case("Ways of training, DLRM, SGD", name, TIGHT, ("model=dlrm", *_SGD, *options), (2, 4)))
    normalised = ("model=dlrm", *_SGD, "model.batch_norm=true")
    cases.append(Case("BatchNorm, DLRM, SGD", "dlrm", WIDE, normalised, (2, 4)))  # it moves units to their ReLU's edge
    cases.append(Case("BatchNorm, DLRM, SGD, float64", "dlrm", DOUBLE, normalised, (1,)))
    return cases


QUICK = (
    "Models, SGD: deepfm",
    "Models with three tasks, SGD: hstu",
    "Optimizers of tables and dense layers, float64, eps 1e-8: rowwise_adagrad, adam",
)


def make_table(directory: Path) -> list[str]:
    """Makes a log with a binary label, a number that is missing for half of the samples, and weights."""
    samples = (
        "select *, case when request_id % 2 = 0 then 30 + 20 * label + 5 * price end as watch_s, "
        "(1 + session_id % 3)::double as importance from read_parquet('{path}/part-*.parquet')"
    )
    overrides = [
        "data=tiny",
        "data.name=exactness",
        "data.synthetic.num_samples=9000",
        "data.synthetic.num_users=200",
        "data.synthetic.request_mean=4",
        f"data.path={directory}/raw",
        f"data.table={directory}/table",
        f"data.samples={json.dumps(samples)}",
        "data.labels=[label,watch_s]",
        "data.policy.unlabelled=keep",
    ]
    trained.make_table(directory / "table", [*overrides, "data.weight=importance", "row_group_samples=1024"])
    return overrides


def all_weights(model: Any) -> dict[str, Any]:
    """Everything that a checkpoint would hold of a model, tables gathered whole; float64 copies."""
    import torch

    from recd_dist.embedding.tables import portable_name

    found = {f"table {name}": weight.double() for name, weight in gather_weights(model).items()}
    for name, value in model.state_dict().items():
        if portable_name(name) == name and value.is_floating_point() and ".losses." not in name:
            found[name] = value.detach().to(torch.float64, copy=True)
    return found


def differences(
    models: list[Any], start: dict[str, Any], losses: list[list[float]], free: Sequence[str]
) -> dict[str, Any]:
    """How far two models and their losses lie apart, and which tensor has moved least, but for those that are free."""
    ours, plain = map(all_weights, models)
    if ours.keys() != plain.keys():
        raise SystemExit(f"exactness: other weights: {sorted(ours.keys() ^ plain.keys())}")
    judged = [name for name in ours if not any(map(name.endswith, free))]
    apart = {n: float((ours[n] - plain[n]).abs().max() / plain[n].abs().max().clamp(min=1e-30)) for n in judged}
    moved = {n: float((ours[n] - start[n]).abs().max()) for n in judged}
    worst, least = max(apart, key=lambda n: apart[n]), min(moved, key=lambda n: moved[n])
    size = sum(losses[1]) / len(losses[1])  # a rank whose samples all lack the label has a step with a loss of 0
    apart_by = max(abs(a - b) for a, b in zip(*losses, strict=True)) / size
    found = {"loss": apart_by, "weights": apart[worst], "where": worst}
    return {**found, "moved": moved[least], "unmoved": least, "losses": losses[1]}


def compare_on_ranks(job: Any, ranks: Any, batches: list[Any], free: Sequence[str]) -> dict[str, Any]:
    """Trains both modes over the ranks; a collective."""
    from recd_dist.metrics.gather import reduce_over_ranks
    from recd_dist.train import training

    plain_job = replace(job, config=replace(job.config, dedup=False))
    sides = [training.shard_model(each, ranks)[:2] for each in (job, plain_job)]
    models = [model for model, _ in sides]
    start = all_weights(models[0])
    losses: list[list[float]] = [[], []]
    for (model, own), curve, stream in zip(sides, losses, (batches, [b.expand() for b in batches]), strict=True):
        model.train()
        pipeline, source = training.start_pipeline(model, own, ranks.device), iter(stream)
        curve += [float(pipeline.progress(source)[0]) for _ in batches]
    found = differences(models, start, losses, free)
    return {**found, **reduce_over_ranks({"loss": found["loss"]}, "max", ranks.device)}


def compare_in_float64(job: Any, batches: list[Any], free: Sequence[str]) -> dict[str, Any]:
    """Trains both modes in float64, in this process alone."""
    import torch
    from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

    from recd_dist.train import build

    models = build_in_float64(job)
    start = all_weights(models[0])
    losses: list[list[float]] = [[], []]
    plain = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "rowwise_adagrad": RowWiseAdagrad}
    wanted = job.config.optim.tables
    for model, curve, expanded in zip(models, losses, (False, True), strict=True):
        optimizers: list[Any] = [plain[wanted.name](model.embeddings.parameters(), lr=wanted.lr)]
        optimizers.append(build.build_dense_optimizer(list(model.head.parameters()), job.config.optim.dense))
        curve += [step_in_float64(model, optimizers, b.expand() if expanded else b) for b in batches]
    return differences(models, start, losses, free)


def rank_main(config: dict[str, Any]) -> None:
    """One rank: goes through the cases, and the first rank writes what was found."""
    import torch

    from recd_dist.job.config import load
    from recd_dist.job.preflight import check
    from recd_dist.ranks.process_group import process_group
    from recd_dist.train import build

    torch.set_num_threads(1)
    log_to_screen()
    quiet_libraries()
    found = []
    with process_group("cpu") as ranks:
        for case in config["cases"]:
            size = f"batch_size={SAMPLES_PER_STEP // ranks.world_size}"
            job = check(load("train", [*config["overrides"], *case["overrides"], size]), ranks.world_size)
            loader = build.build_loader(job, ranks, job.transforms.fit(job.table))
            batches = list(islice(iter(loader), STEPS))
            loader.close()
            if len(batches) < STEPS:
                raise SystemExit(f"exactness: the table has {len(batches)} steps")
            if case["kind"] == DOUBLE:
                with doubles():
                    found.append(compare_in_float64(job, batches, case["free"]))
            else:
                found.append(compare_on_ranks(job, ranks, batches, case["free"]))
            if ranks.is_first:
                sys.stderr.write(
                    f"{ranks.world_size} ranks, {case['part']}: {case['name']}: loss {found[-1]['loss']:.0e}\n"
                )
        if ranks.is_first:
            Path(config["out"]).write_text(json.dumps(found))


def judge(case: Case, found: dict[str, Any]) -> list[str]:
    """What is wrong with a case."""
    most_loss, most_weights = BOUNDS[case.kind]
    wrong = []
    if not found["loss"] <= most_loss:
        wrong.append(f"the losses differ by {found['loss']:.1e}, more than {most_loss:.0e}")
    if not found["weights"] <= most_weights:
        wrong.append(f"{found['where']} differs by {found['weights']:.1e}, more than {most_weights:.0e}")
    if not found["moved"] > 0:
        wrong.append(f"{found['unmoved']} has not moved")
    return wrong


def show(cases: list[Case], found: dict[tuple[Case, int], dict[str, Any]], *, markdown: bool) -> None:
    """Prints a table for each part."""
    for part in dict.fromkeys(case.part for case in cases):
        members = [case for case in cases if case.part == part]
        counts = sorted({count for case in members for count in case.ranks})
        rows = []
        for case in members:
            on = [found[case, count] for count in case.ranks]
            cells = [f"{of['loss']:.0e}, {of['weights']:.0e}" for of in on]
            rows.append([case.name, *cells, f"{min(of['moved'] for of in on):.0e}"])
        kind = members[-1].kind
        bound = f"{BOUNDS[kind][0]:.0e}, {BOUNDS[kind][1]:.0e}"
        sys.stdout.write(f"\n{part} (loss, weights; let pass: {bound})\n\n")
        words = [f"{count} rank{'s' if count > 1 else ''}" for count in counts]
        sys.stdout.write(measure.table(["case", *words, "least moved"], rows, markdown=markdown))


def main() -> int:
    """Prints the tables, and what is wrong; 1 if anything is."""
    parser = measure.build_parser(__doc__)
    parser.add_argument("--only", metavar="TEXT", help="cases with this text in their part or name")
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[1, 2, 4], help="these numbers of ranks (default 1 2 4)"
    )
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        rank_main(json.loads(options.rank))
        return 0
    cases = [c for c in find_cases() if not options.only or options.only in f"{c.part}: {c.name}"]
    if options.quick:
        cases = [replace(c, ranks=(2,) if 2 in c.ranks else c.ranks) for c in cases if f"{c.part}: {c.name}" in QUICK]
    cases = [replace(c, ranks=tuple(n for n in c.ranks if n in options.ranks)) for c in cases]
    cases = [c for c in cases if c.ranks]
    found: dict[tuple[Case, int], dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="exactness_") as scratch:
        overrides = make_table(Path(scratch))
        for count in sorted({count for case in cases for count in case.ranks}):
            now = [case for case in cases if count in case.ranks]
            config = {"cases": [vars(case) for case in now]}
            rows = measure.run_ranks(__file__, config, overrides, count)
            found |= {(case, count): row for case, row in zip(now, rows, strict=True)}
    show(cases, found, markdown=options.markdown)
    wrong = [f"{c.part}: {c.name}, {n} ranks: {w}" for (c, n), of in found.items() for w in judge(c, of)]
    sys.stdout.write(f"\n{len(found)} comparisons of {STEPS} steps, {len(wrong)} outside the bounds\n")
    sys.stdout.write("".join(f"- {line}\n" for line in wrong) + f"{measure.machine()}\n")
    if options.json:
        rows = [{**vars(case), "on": count, **of} for (case, count), of in found.items()]
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
