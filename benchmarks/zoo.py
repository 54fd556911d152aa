"""Every model on EB-NeRD: quality on the last day over three seeds, deduplication on and off, beside trees; speed.

    python benchmarks/zoo.py DATA_DIR [--day 6] [--models dlrm din] [--seeds 3] [--most 1] [--markdown]

DATA_DIR holds behaviors.parquet and history.parquet. Table and runs lie below --dir and are made once: started again,
the script goes on where it was. With --day 6 the seventh day is left out and the sixth is the test: by it the options
of the models were chosen. The trees (scikit-learn, 300 iterations) see the eleven backward-looking numbers that a known
solution used, or these and the four that this project's SQL adds; they see no ids and no history.

Speed is that of steps, by benchmarks/step.py: both modes in the same processes and by turns, on the same batches in
memory. The runs that quality needs lie hours apart, so that their speeds say nothing.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import measure
import numpy as np
import step
import trained
from trained import Run

FIRST_ELEVEN = (
    "device_type", "num_in_view", "position", "is_front_page", "num_views", "num_clicks", "num_views_1h",
    "num_clicks_1h", "click_rate", "click_rate_1h", "age_min",
)  # fmt: skip
ADDED = ("num_seen", "click_rate_rank", "click_rate_1h_rank", "age_rank")
NUMBERS = ("auc", "auc_per_request", "ne")
HEAD = ["AUC", "AUC per impression", "NE"]

_HISTORIES = (
    "model.histories=[history_article,recent_article]",
    "model.beside={history_article: [history_read_time, history_scroll]}",
    "model.max_length=50",
)
_ONCE = ("epochs=1",)
MODELS: dict[str, tuple[str, ...]] = {
    "dlrm": (),
    "dcn_v2": (),
    "deepfm": (),
    "wide_deep": (),
    "mmoe": (),
    "ple": (),
    "din": _HISTORIES,
    "transformer": _HISTORIES,
    "hstu": (*_HISTORIES, *_ONCE),
}
"""The models, each with what differs from configs/experiment/ebnerd.yaml."""

Column = np.ndarray[tuple[int], np.dtype[np.float64]]
Columns = dict[str, Column]


def raw_logs(options: argparse.Namespace) -> Path:
    """The directory of the raw logs; for --day 6 a copy without the last day."""
    if options.day == 7:
        return Path(options.data).resolve()
    import duckdb

    copy = options.dir / "raw"
    copy.mkdir(parents=True, exist_ok=True)
    last = "(select date_trunc('day', max(impression_time) - interval 7 hour) + interval 7 hour from found)"
    duckdb.sql(
        f"copy (with found as (select * from '{options.data}/behaviors.parquet') select * from found "
        f"where impression_time < {last}) to '{copy}/behaviors.parquet' (format parquet)"
    )
    duckdb.sql(f"copy (from '{options.data}/history.parquet') to '{copy}/history.parquet' (format parquet)")
    return copy.resolve()


def prepare(options: argparse.Namespace) -> Path:
    """Makes the table, unless it exists, and returns its directory."""
    table: Path = options.dir / "table"
    if not (table / "train/manifest.json").is_file():
        trained.run_recd("etl", "data=ebnerd", f"data.path={raw_logs(options)}", f"data.table={table}")
    return table


def find_runs(options: argparse.Namespace, table: Path) -> dict[tuple[str, bool], list[Run]]:
    """For each model and mode the runs over the seeds."""
    found = {}
    for model in options.models:
        for dedup in (True, False):
            mode = "on" if dedup else "off"
            fixed = ("experiment=ebnerd", f"data.table={table}", f"model={model}", *MODELS[model], f"dedup={mode}")
            runs = [Run(f"runs/{model}-{mode}-{seed}", (*fixed, f"seed={seed}")) for seed in range(options.seeds)]
            found[model, dedup] = runs
    return found


def in_order(runs: dict[tuple[str, bool], list[Run]], seeds: int) -> list[Run]:
    """The runs in the order in which they are trained: every model once before any again; dedup=off last."""
    return [of[seed] for mode in (True, False) for seed in range(seeds) for (_, m), of in runs.items() if m is mode]


def read_columns(table: Path) -> Columns:
    """Reads features, label and request of every sample of a split, through the SQL view that joins them."""
    import duckdb

    from recd_dist.table.flat import flat_view

    names = (*FIRST_ELEVEN, *ADDED, "clicked")
    wanted = ", ".join([*(f"{name}::double as {name}" for name in names), "request_id"])
    return dict(duckdb.sql(f"select {wanted} from ({flat_view(table)}) order by sample_id").fetchnumpy())


def score_by_trees(train: Columns, test: Columns, names: tuple[str, ...]) -> Column:
    """Fits gradient-boosted trees on the training samples; returns the logits of the test samples."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=300, early_stopping=False, random_state=0)
    model.fit(np.column_stack([train[n] for n in names]), train["clicked"])
    return np.asarray(model.decision_function(np.column_stack([test[n] for n in names])))


def baselines(options: argparse.Namespace, table: Path) -> dict[str, dict[str, float]]:
    """Quality without a model and of trees; computed once."""
    from recd_dist.metrics.quality import measure_quality

    kept = options.dir / "trees.json"
    if not kept.is_file():
        train, test = read_columns(table / "train"), read_columns(table / "test")
        scored = {
            "the candidate's click rate so far, no model": np.log(test["click_rate"] / (1 - test["click_rate"])),
            "gradient-boosted trees, 11 numbers": score_by_trees(train, test, FIRST_ELEVEN),
            "gradient-boosted trees, 15 numbers": score_by_trees(train, test, FIRST_ELEVEN + ADDED),
        }
        found = {n: measure_quality(x, test["clicked"], test["request_id"]).to_json() for n, x in scored.items()}
        kept.write_text(json.dumps(found))
    return dict(json.loads(kept.read_text()))


def quality_table(options: argparse.Namespace, table: Path, runs: dict[tuple[str, bool], list[Run]]) -> str:
    """The table of quality: trees first, then the models by their AUC."""
    simple = [[n, "", "", *(f"{of[k]:.4f}" for k in NUMBERS)] for n, of in baselines(options, table).items()]
    rows = []
    for (model, dedup), of in runs.items():
        cells = trained.quality_cells(of, options.dir, NUMBERS)
        if cells[0] != "0":
            rows.append([f"`{model}`", "on" if dedup else "off", *cells])
    head = ["what", "dedup", "seeds", *HEAD]
    return measure.table(head, [*simple, *sorted(rows, key=lambda r: r[3], reverse=True)], markdown=options.markdown)


def measure_speed(options: argparse.Namespace, runs: dict[tuple[str, bool], list[Run]]) -> None:
    """Measures whole steps of each model, both modes by turns; kept, so that a model is measured once."""
    for model in options.models:
        kept = options.dir / f"speed-{model}.json"
        if not kept.is_file():
            chosen = {"pairs": 5, "block": 4, "num_batches": 8}
            found = measure.run_ranks(step.__file__, chosen, [*runs[model, True][0].overrides])
            kept.write_text(json.dumps(found))


def speed_table(options: argparse.Namespace) -> str:
    """The table of what was measured of steps."""
    rows = []
    for model in options.models:
        kept = options.dir / f"speed-{model}.json"
        if kept.is_file():
            found = json.loads(kept.read_text())
            ratios = [off / on for on, off in found["pairs"]]
            on, off = (found["samples"] / statistics.median(side) for side in zip(*found["pairs"], strict=True))
            sent = [sum(counted for counted, _ in mode.values()) / 1e6 for mode in found["bytes"]]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
            rows.append([f"`{model}`", spread, f"{on:,.0f}", f"{off:,.0f}", *(f"{number:.2f}" for number in sent)])
    head = ["model", "off / on, seconds a step", "samples/s on", "off", "MB sent a step on", "off"]
    return measure.table(head, rows, markdown=options.markdown) if rows else ""


def read_options() -> argparse.Namespace:
    parser = measure.build_parser(__doc__)
    parser.add_argument("data", help="the directory of behaviors.parquet and history.parquet")
    parser.add_argument("--dir", type=Path, help="table and runs, kept (default .bench/zoo, with --day 6 zoo-day6)")
    parser.add_argument("--day", type=int, choices=(6, 7), default=7, help="the test day; 6 leaves out the seventh")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="MODEL")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, metavar="N", help="train N runs at most, 0: only show what is there")
    options = parser.parse_args()
    options.dir = (options.dir or Path(".bench", "zoo" if options.day == 7 else "zoo-day6")).resolve()
    return options


def main() -> None:
    """Trains what is missing, then prints the tables."""
    options = read_options()
    table = prepare(options)
    runs = find_runs(options, table)
    if options.most != 0:
        measure_speed(options, runs)
        trained.train_missing(in_order(runs, options.seeds), options.dir, options.most)
    sys.stdout.write(quality_table(options, table, runs) + "\n" + speed_table(options))
    sys.stdout.write(f"\n{measure.machine()}\n")
    if options.json:
        done = [(f"{m}.{'on' if d else 'off'}", [r.summary(options.dir) for r in of]) for (m, d), of in runs.items()]
        numbers = {n: {k: [s[k] for s in of if s] for k in NUMBERS} for n, of in done}
        options.json.write_text(json.dumps({"trees": baselines(options, table), **numbers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
