"""Conversion: claims convert.int32, convert.int64 and convert.hash.

    python benchmarks/convert.py [--quick] [--rounds N] [--markdown] [--json FILE]

The loop that finds the equal neighbours of clustered rows (reader/equal_rows.py) against a copy of the same bytes into
a buffer that is used again. 6.4 million ids in lists of 1 to 399, of which each comes 8 times in a row: every row is
compared to its end, but for the first of each 8. One thread on one core, by turns. ``convert.hash`` also looks for
equal rows that are no neighbours, in the same rows in any order, against the same copy.
"""

import os
import time
from collections.abc import Callable

import measure
import numpy as np

from recd_dist.reader.equal_rows import find_equal_rows, flag_changed_rows
from recd_dist.table.column import Column, offsets_of

REPEATS = 8


def clustered_rows(num_ids: int, dtype: type, shuffled: bool = False) -> Column:
    """Lists of ids, each of which comes 8 times in a row, or anywhere."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 400, num_ids // (200 * REPEATS))
    rows = [rng.integers(0, 2**31, length) for length in lengths]
    order = np.repeat(np.arange(len(rows)), REPEATS)
    if shuffled:
        rng.shuffle(order)
    values = np.concatenate([rows[i] for i in order]).astype(dtype)
    return Column(values, offsets_of(lengths[order]).astype(np.int32))


def seconds_of(act: Callable[[], object]) -> float:
    """How long something takes."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def measure_claim(claim: str, column: Column, act: Callable[[], object], num_rounds: int) -> measure.Result:
    """The loop against a copy of the bytes that it reads."""
    buffer = np.empty_like(column.values)
    act(), np.copyto(buffer, column.values)
    sides = (lambda: seconds_of(act), lambda: seconds_of(lambda: np.copyto(buffer, column.values)))
    pairs = measure.alternate(*sides, num_rounds)
    gigabytes = column.values.nbytes / 1e9
    ours, copy = (sorted(pair[n] for pair in pairs)[len(pairs) // 2] for n in (0, 1))
    words = f"{len(column.values):,} ids of {column.values.itemsize} bytes in {len(column):,} lists"
    rates = {"ours_gb_per_s": round(gigabytes / ours, 1), "copy_gb_per_s": round(gigabytes / copy, 1)}
    return measure.speed_up(claim, pairs, "a copy of the same bytes into a buffer that is used again", words, **rates)


def main() -> None:
    """Measures and prints."""
    parser = measure.build_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    num_ids, results = 1_600_000 if options.quick else 6_400_000, []
    for name, dtype in (("int32", np.int32), ("int64", np.int64)):
        column = clustered_rows(num_ids, dtype)
        changed = flag_changed_rows([column])
        if int(changed.sum()) != len(column) // REPEATS:
            raise SystemExit("not every repeat was found")
        results.append(
            measure_claim(f"convert.{name}", column, lambda c=column: flag_changed_rows([c]), options.rounds)
        )
    column = clustered_rows(num_ids, np.int32, shuffled=True)
    if len(find_equal_rows([column], by_hash=True)[1]) != len(column) // REPEATS:
        raise SystemExit("not every repeat was found by hash")
    act = lambda: find_equal_rows([column], by_hash=True)  # noqa: E731
    results.append(measure_claim("convert.hash", column, act, options.rounds))
    measure.report(results, options)


if __name__ == "__main__":
    main()
