#!/usr/bin/env bash
# pyarrow: fractions in a Python list, as JSON gives them, where an integer type is asked for.
# Versions: pyarrow 26.0.1, numpy 2.4.6.
#
# One would guess that pa.array([1.5], pa.int64()) refuses the fraction: cast(), a numpy array of the same numbers, and
# truth values are refused, and so are numbers beyond 64 bits. Seen: of a Python list the fraction is cut off without a
# word, in lists of lists, too. A service that reads requests this way looks up the row of another id.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet pyarrow==26.0.1 numpy==2.4.6
cat >"$folder/fractions.py" <<'PY'
import numpy as np
import pyarrow as pa


def show(name, make):
    try:
        print(f"{name}: {make().to_pylist()}")
    except pa.ArrowException as error:
        print(f"{name}: {type(error).__name__}")


show("list", lambda: pa.array([1.5, -2.9], pa.int64()))
show("list of lists", lambda: pa.array([[1.5], [2.0]], pa.list_(pa.int64())))
show("numpy", lambda: pa.array(np.array([1.5, -2.9]), pa.int64()))
show("cast", lambda: pa.array([1.5, -2.9]).cast(pa.int64()))
show("truth", lambda: pa.array([True], pa.int64()))
show("too large", lambda: pa.array([1e30], pa.int64()))
PY
"$folder/env/bin/python" "$folder/fractions.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
list: [1, -2]
list of lists: [[1], [2]]
numpy: ArrowInvalid
cast: ArrowInvalid
truth: ArrowTypeError
too large: ArrowInvalid
EXPECTED
