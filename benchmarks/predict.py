"""Scores of a table: unique rows against expanded rows, and against reading alone; claims predict.rm1, predict.reader.

    python benchmarks/predict.py [CASE ...] [--rounds N] [--quick] [--markdown] [--json FILE] [--dir DIR]

One process, in which both sides take turns (A B A B ...). A side is what `recd predict` does once the run is open: it
reads the split test of a table of rm1, scores every sample, and writes keys and scores as Parquet. The baseline of
predict.rm1 is the same run with dedup=off, which is plain TorchRec on expanded KeyedJaggedTensors, in batches of the
size that is fastest for it. The baseline of predict.reader reads the same batches as ours and computes nothing: its
ratio says how much of the reader's rate is left. The runs are trained for a few steps; how good they are costs no time.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure

CASES = {
    "rm1": ("model=transformer", "model.history_layers=0", "model.dim=32"),
    "rm1.layers": (
        "model=transformer",
        "model.histories=[views_item,clicks_item,purchases_item]",
        "model.beside={views_item: [views_category], clicks_item: [clicks_category], "
        "purchases_item: [purchases_category]}",
        "model.dim=32",
    ),
    "rm1.dlrm": ("model=dlrm", "model.dim=16"),
}
"""The overrides of the model of each case."""

BASELINE = "dedup=off: plain TorchRec on expanded KeyedJaggedTensors"
READER = "the same batches, read and not scored"


def ensure_run(case: str, directory: Path, num_samples: int) -> Path:
    """Makes the table and a run that has trained a few steps, unless they are there; gives the run's directory."""
    import trained

    name = f"rm1-{num_samples}"
    data = ["data=rm1", f"data.synthetic.num_samples={num_samples}", f"data.path={directory}/raw/{name}"]
    data += [f"data.synthetic.num_users={max(100, num_samples // 33)}", f"data.table={directory}/tables/{name}"]
    trained.make_table(directory / "tables" / name, data)
    run = directory / "runs" / f"predict-{case}-{num_samples}"
    if not (run / "summary.json").is_file():
        options = ["batch_size=512", "max_steps=20", "evaluate.split=null", "device=cpu"]
        trained.run_recd("train", *data, *CASES[case], *options, f"run_dir={run}", "resume=false")
    return run


class Side:
    """A run that is open, and what it takes to score a split with it.

    Args:
        run_dir: the run.
        ranks: this process.
        dedup: compute on unique rows.
        batch_size: samples of a batch; None for the default of `recd predict`.
    """

    def __init__(self, run_dir: Path, ranks: Any, dedup: bool, batch_size: int | None) -> None:
        from recd_dist.job.config import load
        from recd_dist.train.trained_run import open_run

        size = [] if batch_size is None else [f"batch_size={batch_size}"]
        self.config = load("predict", [f"run_dir={run_dir}", "split=test", "device=cpu", "resume=false", *size])
        self.ranks = ranks
        with _dedup(run_dir, dedup):
            self.run = open_run(self.config, ranks)

    @property
    def num_samples(self) -> int:
        """Samples of the split."""
        return int(self.run.job.manifest.num_samples)

    def score(self) -> float:
        """Seconds to read, score and write the split."""
        from recd_dist.screen.phase_progress import PhaseProgress
        from recd_dist.train import prediction
        from recd_dist.train.score_directory import ScoreDirectory
        from recd_dist.train.scoring import choose_columns

        with tempfile.TemporaryDirectory() as scratch:
            config = replace(self.config, out=str(Path(scratch, "out")))
            scoring = choose_columns(config, self.run)
            directory = ScoreDirectory(Path(scratch, "out"), self.ranks)
            with directory.open(), PhaseProgress(False) as bar:
                left = directory.begin({}, self.num_samples, 1)
                begin = time.perf_counter()
                prediction.score_samples(scoring, self.ranks, directory, left, config.samples_per_file, bar)
                return time.perf_counter() - begin

    def read(self) -> float:
        """Seconds to read the split."""
        with self.run.open_batches(self.ranks) as batches:
            begin = time.perf_counter()
            for _ in batches:
                pass
            return time.perf_counter() - begin


@contextmanager
def _dedup(run_dir: Path, dedup: bool) -> Iterator[None]:
    """Inside, the config of a run says whether it computes on unique rows."""
    path = run_dir / "config.yaml"
    text = path.read_text()
    path.write_text(text.replace("\ndedup: true\n", f"\ndedup: {str(dedup).lower()}\n"))
    try:
        yield
    finally:
        path.write_text(text)


def compare(
    claim: str,
    case: str,
    sides: tuple[Side, Side],
    ours: Callable[[], float],
    baseline: Callable[[], float],
    rounds: int,
) -> measure.Result:
    """Measures both sides by turns, after each has run once."""
    ours(), baseline()
    pairs = measure.alternate(ours, baseline, rounds)
    words = BASELINE if claim == "predict.rm1" else READER
    speeds = [sides[n].num_samples / sorted(pair[n] for pair in pairs)[len(pairs) // 2] for n in (0, 1)]
    sizes = [side.run.job.config.batch_size for side in sides]
    details = {"case": case, "ours_samples_per_s": round(speeds[0]), "baseline_samples_per_s": round(speeds[1])}
    details |= {"batch_ours": sizes[0], "batch_baseline": sizes[1]}
    return measure.speed_up(claim, pairs, words, f"{sides[0].num_samples:,} samples, one process", **details)


def main() -> None:
    """Measures the cases."""
    parser = measure.build_parser(__doc__)
    parser.add_argument("cases", nargs="*", default=["rm1", "rm1.dlrm"], help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of a case")
    parser.add_argument("--batch", type=int, help="samples of a batch of ours; the default of recd predict if absent")
    parser.add_argument("--baseline-batch", type=int, default=1024, help="samples of a batch of the baseline")
    parser.add_argument("--dir", type=Path, default=Path(".bench"), help="where tables and runs are kept")
    options = parser.parse_args()
    from recd_dist.ranks.process_group import process_group
    from recd_dist.ranks.quiet import quiet_libraries

    quiet_libraries()
    num_samples = 12000 if options.quick else 120000
    results = []
    with process_group("cpu") as ranks:
        for case in options.cases:
            run_dir = ensure_run(case, options.dir, num_samples)
            ours = Side(run_dir, ranks, dedup=True, batch_size=options.batch)
            if case != "rm1.dlrm":
                expanded = Side(run_dir, ranks, dedup=False, batch_size=options.baseline_batch)
                sides = (ours, expanded)
                results.append(compare("predict.rm1", case, sides, ours.score, expanded.score, options.rounds))
            results.append(compare("predict.reader", case, (ours, ours), ours.score, ours.read, options.rounds))
            sys.stderr.write(f"{results[-1]}\n")
    measure.report(results, options)


if __name__ == "__main__":
    main()
