"""From files to updated weights: claim path.rm1.

    python benchmarks/path.py [--quick] [--samples N] [--rounds N] [--markdown] [--json FILE] [--dir DIR]

Two gloo ranks of one thread each train the rm1 preset (ours, modelled on RecD's words) for whole epochs, reading
included, by turns (A B A B ...). Ours reads the clustered table with the loader of ``recd train`` and trains on
unique rows. The baseline is what a user of TorchRec would write: the same samples in one flat Parquet file in time
order (zstd-3, required columns, encodings by the same chooser), read by pyarrow one row group at a time by a thread
of each rank that stays a few batches ahead (flat_reader.py), and the same model on plain TorchRec modules, with the
same tables, sizes, optimizers and pipeline. Each rank reads every other row group. Dense features are standardised on
both sides.

The model is that of step.rm1: candidates attend to their histories, without layers over them.
"""

import argparse
import json
import queue
import statistics
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import flat_reader
import measure
import step
from rm1 import raw_logs
from short_histories import Epochs
from storage_flat import ROW_GROUP

from recd_dist.ranks.quiet import log_to_screen, quiet_libraries

CASE = step.CASES["rm1"]
BASELINE = "the same samples flat in time order, zstd, by pyarrow into plain TorchRec (dedup=off)"
AHEAD = 4
"""Batches that the baseline's thread reads ahead, as many as the loader's default."""


class FlatEpochs(Epochs):
    """Plain TorchRec, trained epoch after epoch from a flat file.

    Args:
        job: the job to train; its ``dedup`` is False.
        ranks: this rank.
        file: the flat file.
    """

    def __init__(self, job: Any, ranks: Any, file: Path) -> None:
        import pyarrow.parquet as pq

        super().__init__(job, ranks)
        self._job, self._file = job, file
        metadata = pq.read_metadata(file)
        # Ranks need as many batches each, and this reader knows no better: the last row groups are left out.
        num_whole = sum(metadata.row_group(n).num_rows == ROW_GROUP for n in range(metadata.num_row_groups))
        self._row_groups = range(ranks.rank, num_whole - num_whole % ranks.world_size, ranks.world_size)
        sizes = [metadata.row_group(n).num_rows for n in self._row_groups]
        self._num_batches = sum(-(-size // job.config.batch_size) for size in sizes)
        self.num_samples = sum(sizes)
        steps = job.transforms.fit(job.table).steps
        self._moments = [steps[f.name][0].arguments for f in job.schema.dense]

    def _batches(self) -> Iterator[Any]:
        """The batches of this rank, as the model takes them."""
        import torch

        from recd_dist.table.schema import SAMPLE
        from recd_dist.tensors.batch import Batch
        from recd_dist.tensors.ikjt import IKJT, GroupLayout

        schema, nothing = self._job.schema, torch.zeros(0, dtype=torch.int32)
        mean = torch.tensor([m["mean"] for m in self._moments])
        deviation = torch.tensor([m["std"] or 1.0 for m in self._moments])
        for flat in flat_reader.read_batches(self._file, schema, self._job.config.batch_size, self._row_groups):
            offsets = tuple(accumulate(flat.counts, initial=0))
            layout = (GroupLayout(SAMPLE, flat.keys, flat.size),)
            sparse = IKJT(layout, flat.size, flat.values, flat.lengths, nothing, offsets)
            numbers = torch.arange(flat.size)
            yield Batch(sparse, {SAMPLE: (flat.dense - mean) / deviation}, flat.labels, numbers, numbers, numbers)

    def _begin(self) -> tuple[Iterator[Any], int]:
        """The batches of an epoch, which a thread reads ahead, and their number."""
        ahead: queue.Queue[Any] = queue.Queue(AHEAD)

        def read() -> None:
            for batch in self._batches():
                ahead.put(batch)
            ahead.put(None)

        self._thread = threading.Thread(target=read)
        self._thread.start()
        return iter(ahead.get, None), self._num_batches

    def _end(self) -> None:
        """Waits for the thread."""
        self._thread.join()


def rank_main(config: dict[str, Any]) -> None:
    """One rank: trains both by turns; rank 0 writes the seconds of a sample."""
    import pyarrow as pa
    import torch

    from recd_dist.job.config import load
    from recd_dist.job.job import resolve
    from recd_dist.ranks.process_group import process_group

    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    log_to_screen()
    quiet_libraries()
    with process_group("cpu") as ranks:
        job = resolve(load("train", config["overrides"]))
        plain = resolve(replace(job.config, dedup=False))
        ours, baseline = Epochs(job, ranks), FlatEpochs(plain, ranks, Path(config["flat"]))
        samples = job.manifest.num_samples
        flat_samples = baseline.num_samples * ranks.world_size
        waited: dict[str, list[float]] = {"ours": [], "baseline": []}

        def run(name: str, side: Epochs, num_samples: int) -> float:
            seconds = side.run()
            waited[name].append(side.waited)
            return seconds / num_samples

        sides = (lambda: run("ours", ours, samples), lambda: run("baseline", baseline, flat_samples))
        pairs = measure.alternate(*sides, config["pairs"] + 1)[1:]
        ours.loader.close()
        baseline.loader.close()
        if ranks.is_first:
            Path(config["out"]).write_text(json.dumps({"pairs": pairs, "waited": waited}))


def whole_tables(num_samples: int) -> list[str]:
    """Overrides that give each table a row for each id that the logs may hold, so that neither side hashes any."""
    from recd_dist.job.config import load

    tables = load("etl", ["data=rm1", f"data.synthetic.num_samples={num_samples}"]).data.synthetic["tables"]
    return [f"data.tables.{name}={{num_embeddings: {size}, hashed: false}}" for name, size in tables.items()]


def main() -> None:
    parser = measure.build_parser(__doc__)
    parser.add_argument("--dir", type=Path, default=Path(".bench"), help="raw logs and tables, kept (default .bench)")
    parser.add_argument("--rounds", type=int, help="default 7, quick 3")
    parser.add_argument("--samples", type=int, help="default 50000, quick 20000")
    parser.add_argument("--rank", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        rank_main(options.rank)
        return
    samples = options.samples or (20_000 if options.quick else 50_000)
    step.ensure_table(CASE, options.dir, samples)
    raw = raw_logs(options.dir, samples)
    flat = flat_reader.write_time_ordered(raw, options.dir / "reader" / f"{raw.path.name}-flat-zstd.parquet", "zstd:3")
    wanted = [*step.overrides(CASE, options.dir, samples), *CASE.train, *whole_tables(samples)]
    found = measure.run_ranks(
        __file__, {"pairs": options.rounds or (3 if options.quick else 7), "flat": str(flat)}, wanted
    )
    pairs = [(a, b) for a, b in found["pairs"]]
    medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
    measure.report(
        [
            measure.speed_up(
                "path.rm1",
                pairs,
                BASELINE,
                f"{CASE.words}; {samples:,} samples, whole epochs, 2 gloo ranks of one thread, reading included",
                ours_samples_per_s=round(1 / medians[0]),
                baseline_samples_per_s=round(1 / medians[1]),
                ours_waits_for_reader=f"{statistics.median(found['waited']['ours'][1:]):.1%}",
                baseline_waits_for_reader=f"{statistics.median(found['waited']['baseline'][1:]):.1%}",
            )
        ],
        options,
    )


if __name__ == "__main__":
    main()
