#!/usr/bin/env bash
# DuckDB: where isnan(x) over a Parquet file that pyarrow wrote, as people clean their logs by.
# Versions: duckdb 2.0.0 and 1.5.0, pyarrow 26.0.1.
#
# One would guess that `where isnan(x)` finds the NaN of a column and `where not isnan(x)` leaves it out. Parquet's
# statistics of a column (min, max) pass over NaN by the format's rules. DuckDB 2.0.0 takes them for a promise that there
# is none: `where isnan(x)` gives 0 rows of 1, and `where not isnan(x)` gives all 10, the NaN with them. The same function
# in `count(*) filter (...)` is right, so a count beside the query does not show it. DuckDB 1.5.0 is right with isnan, but
# both prune `x > 100` by these statistics, though NaN is above every number in DuckDB's order. isfinite(x) is right in
# all cases.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/nan.py" <<'PY'
import sys

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

file = f"{sys.argv[1]}/a.parquet"
column = np.arange(10.0)
column[3] = np.nan
pq.write_table(pa.table({"x": column}), file)
print("duckdb", duckdb.__version__)
for test in ("isnan(x)", "not isnan(x)", "x > 100", "isfinite(x)"):
    ((kept,),) = duckdb.sql(f"select count(*) from '{file}' where {test}").fetchall()
    ((counted,),) = duckdb.sql(f"select count(*) filter (where {test}) from '{file}'").fetchall()
    print(f"  {test}: where {kept}, filter {counted}")
PY
for version in 2.0.0 1.5.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet duckdb=="$version" pyarrow==26.0.1 numpy
    "$folder/$version/bin/python" "$folder/nan.py" "$folder"
done 2>/dev/null | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
duckdb 2.0.0
  isnan(x): where 0, filter 1
  not isnan(x): where 10, filter 9
  x > 100: where 0, filter 1
  isfinite(x): where 9, filter 9
duckdb 1.5.0
  isnan(x): where 1, filter 1
  not isnan(x): where 9, filter 9
  x > 100: where 0, filter 1
  isfinite(x): where 9, filter 9
EXPECTED
