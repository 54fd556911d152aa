"""What transforms save on unique rows: claim transform.share.

    python benchmarks/transform.py [--quick] [--json FILE]

Each stored row of a table in the shape of rm1 is transformed once, dense features of a group together, as the reader
does it; the baseline runs the same transforms on the same samples with their own rows, as a loader of flat files would.
Both sides alternate (A B A B ...); what is measured is the CPU time of the one thread that transforms, so that other
programs count little. The speed-up is divided by the dedup factor of what was transformed: 1.0 would mean that work
falls as rows do.
"""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from measure import Result, alternate, build_parser, report
from rm1 import raw_logs

from recd_dist.cli import main as recd
from recd_dist.reader.list_transforms import take_rows
from recd_dist.reader.number_chains import NumberChains
from recd_dist.reader.order import row_groups_of
from recd_dist.reader.table_files import TableFiles
from recd_dist.reader.transform import Transforms
from recd_dist.reader.transform_spec import Spec
from recd_dist.reader.transform_steps import apply_steps
from recd_dist.table.addresses import address_of
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.column import Rows, Windows
from recd_dist.table.schema import SAMPLE, Kind

GOAL = 0.85
PAIRS = 7
PASSES = 10
"""Passes over dense features in a measurement: one takes 0.1 ms, a fifth of it for the first call after other code."""


Pairs = dict[str, list[tuple[Rows, Rows]]]
"""For each feature, and each row group, its stored rows, and a row for each sample."""


def columns(table: ClusteredTable, most: int) -> tuple[Pairs, dict[str, float]]:
    """Row groups of a table's deduplicated features: as they are stored, and a row for each sample.

    Returns:
        For each feature its pairs, and the samples for each stored row of its group.
    """
    schema = table.manifest.schema
    files, found, factors = TableFiles(table, schema), Pairs(), dict[str, float]()
    for row_group in row_groups_of(table.manifest)[:most]:
        decoded = files.read(row_group)
        for feature in (f for f in schema.features if f.group != SAMPLE):
            stored, rows = decoded.columns[feature.name], decoded.row_of_sample[feature.group]
            stored = stored.to_lists() if isinstance(stored, Windows) else stored
            taken = take_rows(stored, rows)
            expanded = taken.to_lists() if isinstance(taken, Windows) else taken
            found.setdefault(feature.name, []).append((stored, expanded))
    for name, pairs in found.items():
        factors[name] = sum(len(e.values) for _, e in pairs) / max(sum(len(s.values) for s, _ in pairs), 1)
    return found, factors


def main() -> None:
    """Measures each transform and prints the table."""
    options = build_parser(__doc__).parse_args()
    with TemporaryDirectory() as directory:
        raw = raw_logs(Path(directory), 40_000 if options.quick else 120_000)
        if recd(["etl", *raw.overrides, f"data.table={directory}/table"]):
            raise SystemExit(1)
        table = ClusteredTable.load(Path(directory) / "table" / "train")
        found, factors = columns(table, 8)
        (Path(directory) / "v.txt").write_text("\n".join(map(str, range(50_000))))
        of_lists = [{"hash": 100_000}], [{"modulus": 100_000}], [{"last_x": 20}], [{"vocabulary": f"{directory}/v.txt"}]
        all_of_them = [{"last_x": 20}, {"vocabulary": f"{directory}/v.txt"}, {"hash": 100_000}]
        results = [measure(table, found, factors, specs, Kind.ids) for specs in (*of_lists, all_of_them)]
        results.append(measure(table, found, factors, [{"clamp": [-3, 3]}, "log", {"bucketize": [0, 1]}], Kind.dense))
    report([result for result in results if result], options)


def measure(
    table: ClusteredTable, found: Pairs, factors: dict[str, float], specs: list[Spec], kind: Kind
) -> Result | None:
    """Runs some transforms on all features of a kind, on unique rows and on every sample's own."""
    schema = table.manifest.schema
    names = [name for name in found if schema[name].kind is kind]
    if not names:
        return None
    transforms = Transforms.parse(schema, dict.fromkeys(names, specs))

    run_numbers = chains_of(
        transforms, found, {g: [n for n in schema.dense_of(g) if n in names] for g in schema.groups}
    )

    def run(side: int) -> float:
        began = time.thread_time()
        if kind is Kind.dense:
            for _ in range(PASSES):
                run_numbers(side)
        else:
            for name in names:
                for pair in found[name]:
                    apply_steps(transforms.steps[name], pair[side])
        return time.thread_time() - began

    run(0), run(1)
    pairs = alternate(lambda: run(0), lambda: run(1), PAIRS)
    stored = sum(len(s.values) for name in names for s, _ in found[name])
    factor = sum(factors[name] * sum(len(s.values) for s, _ in found[name]) for name in names) / stored
    shares = sorted(b / a / factor for a, b in pairs)
    text = " ".join(next(iter(s)) if isinstance(s, dict) else s for s in specs)
    return Result(
        "transform.share",
        round(float(np.median(shares)), 3),
        round(shares[0], 3),
        round(shares[-1], 3),
        "the same transforms on every sample's own row",
        "speed-up / dedup factor",
        f"{text} on {kind}; goal {GOAL}",
        {"transforms": text, "dedup_factor": round(factor, 2), "speed_up": round(float(np.median(shares)) * factor, 2)},
    )


def chains_of(transforms: Transforms, found: Pairs, groups: dict[str, list[str]]) -> Callable[[int], None]:
    """What transforms the dense features of each group together, as the reader does, on either side."""
    calls: list[list[tuple[NumberChains, np.ndarray, np.ndarray]]] = [[], []]
    for names in filter(None, groups.values()):
        chains = NumberChains([transforms.steps[name] for name in names])
        for pairs in zip(*(found[name] for name in names), strict=True):
            for side in (0, 1):
                arrays = [pair[side].values for pair in pairs]
                places = np.array([address_of(array) for array in arrays], np.int64)  # the reader has them
                calls[side].append((chains, places, np.empty((len(arrays[0]), len(names)), np.float32)))

    def run(side: int) -> None:
        for chains, places, out in calls[side]:
            chains.run(places, out)

    return run


if __name__ == "__main__":
    main()
