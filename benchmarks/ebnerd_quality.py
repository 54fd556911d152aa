"""Quality on EB-NeRD with the last day as test: no model, gradient-boosted trees, and trained runs.

    recd etl data=ebnerd data.path=DIR
    recd train experiment=ebnerd --nproc 2 run_dir=runs/on
    recd train experiment=ebnerd --nproc 2 run_dir=runs/off dedup=off
    python benchmarks/ebnerd_quality.py tables/ebnerd runs/on runs/off [--markdown] [--json FILE]

The trees (scikit-learn, 300 iterations) see the eleven backward-looking numbers that a known solution used, or these
and the four that this project's SQL adds. They see no ids and no history. Both are fitted on the training days.
"""

import json
import sys
from pathlib import Path

import measure
import numpy as np

ELEVEN = (
    "device_type", "num_in_view", "position", "is_front_page", "num_views", "num_clicks", "num_views_1h",
    "num_clicks_1h", "click_rate", "click_rate_1h", "age_min",
)  # fmt: skip
ADDED = ("num_seen", "click_rate_rank", "click_rate_1h_rank", "age_rank")
NOTHING = "the candidate's click rate so far, no model"


Column = np.ndarray[tuple[int], np.dtype[np.float64]]
Columns = dict[str, Column]


def read_columns(table: Path) -> Columns:
    """Reads features, label and request of every sample of a split, through the SQL view that joins them."""
    import duckdb

    from recd_dist.table.flat import flat_view

    wanted = ", ".join([*(f"{name}::double as {name}" for name in (*ELEVEN, *ADDED, "clicked")), "request_id"])
    return dict(duckdb.sql(f"select {wanted} from ({flat_view(table)}) order by sample_id").fetchnumpy())


def score_by_trees(train: Columns, test: Columns, names: tuple[str, ...]) -> Column:
    """Fits gradient-boosted trees on the training samples; returns the logits of the test samples."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=300, early_stopping=False, random_state=0)
    model.fit(np.column_stack([train[n] for n in names]), train["clicked"])
    return np.asarray(model.decision_function(np.column_stack([test[n] for n in names])))


def main() -> None:
    """Prints the table."""
    from recd_dist.metrics.quality import measure_quality

    parser = measure.build_parser(__doc__)
    parser.add_argument("table", type=Path, help="the directory of the clustered table, with train/ and test/")
    parser.add_argument("runs", nargs="*", type=Path, help="directories of trained runs")
    options = parser.parse_args()
    train, test = read_columns(options.table / "train"), read_columns(options.table / "test")
    scored = {
        NOTHING: np.log(test["click_rate"] / (1 - test["click_rate"])),
        "gradient-boosted trees, 11 numbers": score_by_trees(train, test, ELEVEN),
        "gradient-boosted trees, 15 numbers": score_by_trees(train, test, ELEVEN + ADDED),
    }
    rows: dict[str, tuple[float, float, float]] = {}
    for name, logits in scored.items():
        quality = measure_quality(logits, test["clicked"], test["request_id"])
        rows[name] = (quality.auc, quality.auc_per_request, quality.ne)
    for run in options.runs:
        summary = json.loads((run / "summary.json").read_text())
        rows[f"run {run.name}"] = (summary["auc"], summary["auc_per_request"], summary["ne"])
    cells = [[name, *(f"{value:.4f}" for value in row)] for name, row in rows.items()]
    sys.stdout.write(measure.table(["what", "AUC", "AUC per impression", "NE"], cells, markdown=options.markdown))
    sys.stdout.write(f"\n{len(test['clicked']):,} test samples; {measure.machine()}\n")
    if options.json:
        results = [
            measure.Result(f"ebnerd.auc.{n}", a, a, a, NOTHING, "AUC", "last day") for n, (a, *_) in rows.items()
        ]
        options.json.write_text(json.dumps([r.to_json() for r in results], indent=1) + "\n")


if __name__ == "__main__":
    main()
