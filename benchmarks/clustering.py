"""What whole sessions in a batch do to quality: clustered order against fully shuffled samples, and what cures it.

    python benchmarks/clustering.py [--ebnerd DATA_DIR] [--seeds 3] [--most 1] [--markdown]

The same samples are made into tables whose sessions are whole, are cut into requests, or hold one sample each
(data.sessions.by); batches keep sessions together, so that the last table is fully shuffled, and has nothing to
deduplicate. A synthetic log, of which the best possible AUC is known, is made here; EB-NeRD where its directory is
given. Tables and runs lie below --dir and are made once: started again, the script goes on where it was.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import measure
import trained
from trained import Run

NUMBERS = ("auc", "auc_per_request", "ne", "calibration")
ALL = "reader.window=64"
"""More row groups than any table here has: all sessions change places."""


@dataclass(frozen=True)
class Order:
    """How samples are ordered, and what is changed to cure it.

    Attributes:
        name: in the report.
        sessions: which table, a key of ``TABLES``.
        overrides: of recd train.
    """

    name: str
    sessions: str
    overrides: tuple[str, ...]


TABLES = {
    "whole": (),
    "requests": ("data.sessions.by=request",),
    "samples": ("data.sessions.by=none",),
}
"""For each way to cut sessions the overrides of recd etl."""

_SMALL = "batch_size=64"
ORDERS = (
    Order("fully shuffled", "samples", (ALL,)),
    Order("parts of sessions: whole requests, all change places", "requests", (ALL,)),
    Order("whole sessions, all change places", "whole", (ALL,)),
    Order("whole sessions, `reader.window=8`", "whole", ("reader.window=8",)),
    Order("the same, `dedup=off`", "whole", ("reader.window=8", "dedup=off")),
    Order("whole sessions, `reader.window=1`", "whole", ("reader.window=1",)),
    Order("the order of the table, `reader.shuffle=false`", "whole", ("reader.shuffle=false",)),
    Order("128 a step: fully shuffled", "samples", (ALL, _SMALL)),
    Order("128 a step: whole sessions, `reader.window=8`", "whole", ("reader.window=8", _SMALL)),
    Order("128 a step: the same, tables at a third of the rate", "whole", ("reader.window=8", _SMALL, "{slow}")),
    Order("128 a step: fully shuffled, tables at a third of the rate", "samples", (ALL, _SMALL, "{slow}")),
    Order("whole sessions, `reader.window=8`, `optim.ema=0.98`", "whole", ("reader.window=8", "optim.ema=0.98")),
    Order("1,024 a step: whole sessions, `reader.window=8`", "whole", ("reader.window=8", "batch_size=512")),
    Order("fully shuffled, `optim.ema=0.98`", "samples", (ALL, "optim.ema=0.98")),
)
"""A step has 512 samples where nothing else is said."""

SOURCES = {
    "synthetic": ("data=tiny", "model=dlrm", "batch_size=256"),
    "ebnerd": ("experiment=ebnerd", "model=dlrm", "epochs=1", "optim.ema=null"),
}
RATES = {"synthetic": 0.05, "ebnerd": 0.02}
"""Rates of the tables."""


def find_runs(options: argparse.Namespace) -> Iterator[tuple[str, Order, list[Run]]]:
    """For each source and order the runs over the seeds."""
    for source in options.sources:
        usual, slow = (f"optim.tables.lr={RATES[source] / share:.4f}" for share in (1, 3))
        for number, order in enumerate(ORDERS):
            if options.orders and number not in options.orders:
                continue
            chosen = [usual, *(slow if option == "{slow}" else option for option in order.overrides)]
            own = (*SOURCES[source], f"data.table={options.dir / source / order.sessions}", *chosen)
            runs = [Run(f"{source}/runs/{number}-{seed}", (*own, f"seed={seed}")) for seed in range(options.seeds)]
            yield source, order, runs


def prepare(options: argparse.Namespace) -> None:
    """Makes the tables, unless they exist."""
    for source in options.sources:
        paths = {"synthetic": options.dir / source / "raw", "ebnerd": options.ebnerd}
        for name, cut in TABLES.items():
            table = options.dir / source / name
            data = "data=tiny" if source == "synthetic" else "data=ebnerd"
            trained.make_table(table, [data, f"data.path={paths[source]}", f"data.table={table}", *cut])


def main() -> None:
    """Trains what is missing, then prints a table for each source."""
    parser = measure.build_parser(__doc__)
    parser.add_argument("--ebnerd", type=Path, metavar="DATA_DIR", help="behaviors.parquet and history.parquet")
    parser.add_argument("--dir", type=Path, default=Path(".bench/clustering"), help="tables and runs, kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sources", nargs="+", choices=list(SOURCES), default=list(SOURCES), help="only these")
    parser.add_argument("--orders", type=int, nargs="+", metavar="N", help="only these, counted from 0")
    parser.add_argument("--most", type=int, metavar="N", help="train N runs at most, 0: only show what is there")
    options = parser.parse_args()
    options.dir = options.dir.resolve()
    there = ["synthetic", *(["ebnerd"] if options.ebnerd else [])]
    options.sources = [source for source in there if source in options.sources]
    options.ebnerd = options.ebnerd and options.ebnerd.resolve()
    prepare(options)
    runs = list(find_runs(options))
    by_seed = [of[seed] for seed in range(options.seeds) for _, _, of in runs]
    trained.train_missing(by_seed, options.dir, options.most)
    for source in options.sources:
        rows = [[o.name, *trained.quality_cells(of, options.dir, NUMBERS)] for s, o, of in runs if s == source]
        best = [s["oracle_auc"] for _, _, of in runs for r in of if (s := r.summary(options.dir)) and "oracle_auc" in s]
        sys.stdout.write(f"\n{source}{f', best possible AUC {best[0]:.4f}' if best else ''}\n\n")
        head = ["order of the samples", "seeds", "AUC", "AUC per request", "NE", "calibration"]
        sys.stdout.write(measure.table(head, rows, markdown=options.markdown))
    sys.stdout.write(f"{measure.machine()}\n")


if __name__ == "__main__":
    main()
