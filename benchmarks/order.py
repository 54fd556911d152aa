"""What an order of samples costs: samples that share a row in a batch, unique ids of a batch, samples read a second.

    python benchmarks/order.py
    python benchmarks/order.py --preset rm1 --samples 100000 --markdown

The orders take turns on one table with a partition a day; the first pass of each, which compiles, does not count.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from measure import machine, table

from recd_dist.cli import main as recd
from recd_dist.job.config import load
from recd_dist.job.job import Job, resolve
from recd_dist.reader.loader import Loader
from recd_dist.reader.order import ORDERS

HEAD = ("`reader.order`", "samples per row, all groups", "unique ids a sample", "samples/s, one process")


def read(job: Job, order: str, batch_size: int) -> tuple[float, float, float]:
    """Reads an epoch: samples per unique row, unique ids a sample, and samples a second."""
    samples, rows, ids = 0, 0, 0
    options = {"batch_size": batch_size, "order": order, "on_bad_id": "drop"}
    with closing(Loader(job.table, job.schema, job.tables, job.transforms.fit(job.table), **options)) as reader:
        started = time.perf_counter()
        for batch in reader:
            samples += batch.batch_size
            rows += sum(batch.sparse.num_rows(group) for group in job.schema.dedup_groups)
            ids += len(batch.sparse.values)
    seconds = time.perf_counter() - started
    return samples * len(job.schema.dedup_groups) / rows, ids / samples, samples / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        overrides = [f"data={options.preset}", f"data.path={root / 'raw'}", f"data.table={root / 'table'}"]
        sizes = [f"data.synthetic.num_samples={options.samples}", "data.partition=day", "data.split=null"]
        if recd(["etl", *overrides, *sizes]):
            raise SystemExit("the table could not be made")
        job = resolve(load("train", [*overrides, f"run_dir={root / 'run'}"]))
        passes = [{order: read(job, order, options.batch_size) for order in ORDERS} for _ in range(options.rounds + 1)]
    rows = []
    for order in ORDERS:
        factor, ids, _ = passes[1][order]
        speed = statistics.median(found[order][2] for found in passes[1:])
        rows.append([f"`{order}`", f"{factor:.2f}", f"{ids:.1f}", f"{speed:,.0f}"])
    print(table(HEAD, rows, markdown=options.markdown))
    print(f"\n{options.preset}, {job.manifest.num_samples:,} samples, batch {options.batch_size}; {machine()}")


if __name__ == "__main__":
    main()
