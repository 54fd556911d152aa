"""Exports of rm1: their bytes against those of the trained tables, and what 8-bit rows cost in AUC.

    python benchmarks/export.py [--samples N] [--quick] [--markdown] [--json FILE] [--dir DIR]

A run is trained for an epoch and exported with every kind of rows; its split test is scored by the run, and by the
export as requests. Bytes are those of all files of the export; the baseline is that of the tables in float32. A delta
is exported after one more step of few samples.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measure

MODELS = {
    "transformer, dim 64": ("model=transformer", "model.dim=64", "model.history_layers=1"),
    "dlrm, dim 16": ("model=dlrm", "model.dim=16"),
}
"""The overrides of the models: rows of 64 numbers and of 16."""

ROWS = ("fp32", "fp16", "int8")
BASELINE = "the tables of the checkpoint in float32"


def ensure_run(name: str, directory: Path, num_samples: int) -> Path:
    """Makes the table and a run that has trained an epoch, unless they are there; gives the run's directory."""
    import trained

    data = data_of(directory, num_samples)
    trained.make_table(directory / "tables" / f"rm1-{num_samples}", data)
    run = directory / "runs" / f"export-{name.partition(',')[0]}-{num_samples}"
    if not (run / "summary.json").is_file():
        options = ["batch_size=1024", "evaluate.split=null", "device=cpu", "optim.dense.lr=0.002"]
        trained.run_recd("train", *data, *MODELS[name], *options, f"run_dir={run}", "resume=false")
    return run


def data_of(directory: Path, num_samples: int) -> list[str]:
    """The overrides of the data."""
    name = f"rm1-{num_samples}"
    sizes = [f"data.synthetic.num_samples={num_samples}", f"data.synthetic.num_users={max(100, num_samples // 33)}"]
    return ["data=rm1", *sizes, f"data.path={directory}/raw/{name}", f"data.table={directory}/tables/{name}"]


def measure_model(name: str, directory: Path, num_samples: int) -> Iterator[measure.Result]:
    """Exports a run in every way, and a delta of the run after one more step."""
    import trained

    run = ensure_run(name, directory, num_samples)
    for rows in ROWS:
        with exported(run, directory, rows) as (out, told):
            yield result(name, rows, out, told)
            if rows != "fp32":
                continue
            next_run = directory / "runs" / "export-next"
            shutil.rmtree(next_run, ignore_errors=True)
            step = ["batch_size=1024", "max_steps=1", "evaluate.split=null", "device=cpu", f"run_from={run}"]
            trained.run_recd("train", *data_of(directory, num_samples), *MODELS[name], *step, f"run_dir={next_run}")
            with exported(next_run, directory, rows, f"base={out}") as (delta, changes):
                yield result(name, "fp32, delta after a step of 1,024 samples", delta, changes, out)


@contextmanager
def exported(run: Path, directory: Path, rows: str, *more: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """An export that is deleted afterwards, and what the command says of it."""
    import trained

    out = directory / f"export-{run.name}-{rows}"
    file = directory / "export.json"
    options = [f"rows={rows}", f"out={out}", "overwrite=true", "check_samples=1000000", "device=cpu"]
    trained.run_recd("export", str(run), *options, *more, "--json", str(file))
    try:
        yield out, json.loads(file.read_text())
    finally:
        shutil.rmtree(out)


def result(name: str, rows: str, out: Path, told: dict[str, Any], base: Path | None = None) -> measure.Result:
    """A row of the table."""
    from recd_dist.exported.description import TABLES

    size = sum(path.stat().st_size for path in out.iterdir())
    description = json.loads((out / "export.json").read_text())
    numbers = [t["num_embeddings"] for t in description["tables"].values()]
    tables = 4 * sum(n * t["dim"] for n, t in zip(numbers, description["tables"].values(), strict=True))
    of = told["auc"]["label"]
    claim = f"export.{rows.partition(',')[0]}{'.delta' if base else ''}"
    details = {
        "model": name,
        "rows": rows,
        "MB": f"{size / 1e6:.1f}",
        "tables alone": f"{(out / TABLES).stat().st_size / tables:.3f}",
        "AUC run": f"{of['run']:.5f}",
        "AUC export": f"{of['export']:.5f}",
        "samples": f"{told['checked_samples']:,}",
        "largest difference of a score": f"{told['largest_difference']:.2g}",
    }
    ratio = round(size / tables, 4)
    return measure.Result(claim, ratio, ratio, ratio, BASELINE, "ratio", "all files of the export", details)


def main() -> None:
    parser = measure.build_parser(__doc__)
    parser.add_argument("--samples", type=int, default=120_000, help="samples of the table")
    parser.add_argument("--dir", type=Path, default=Path(".bench"), help="where tables and runs are kept")
    options = parser.parse_args()
    num_samples = 20_000 if options.quick else options.samples
    results = []
    for name in MODELS:
        for found in measure_model(name, options.dir.resolve(), num_samples):
            results.append(found)
            sys.stderr.write(f"{found.claim}: {found.value}\n")
    measure.report(results, options)


if __name__ == "__main__":
    main()
