#!/usr/bin/env bash
# pyarrow: casting views of lists (list_view) to plain lists loses the last list.
# Versions: pyarrow 26.0.1.
#
# Parquet files whose Arrow schema says list_view are read as such, and whoever wants plain lists casts them. One would
# guess that `array.cast(pa.list_(...))` holds the same lists. The last one is not there: the new array has one offset too
# few, so that its end is whatever lies behind the buffer. No error is raised, len() is right, and `validate(full=True)`
# alone tells. Where the last list is empty the result is right by chance. Lists made from `flatten()` and
# `list_value_length` are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/views.py" <<'PY'
import pyarrow as pa

print("pyarrow", pa.__version__)
for view, plain in ((pa.list_view, pa.list_), (pa.large_list_view, pa.large_list)):
    array = pa.array([[1], [2, 3], [4, 5, 6]], view(pa.int64()))
    cast = array.cast(plain(pa.int64()))
    first, last = cast[:2].to_pylist() == array[:2].to_pylist(), cast[2].as_py() == array[2].as_py()
    print(f"  {array.type}: {len(cast)} lists, the first two right: {first}, the last one: {last}")
    try:
        cast.validate(full=True)
    except pa.ArrowInvalid as error:
        print("  validate:", error)
PY
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyarrow==26.0.1
"$folder/venv/bin/python" "$folder/views.py" 2>/dev/null | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
pyarrow 26.0.1
  list_view<item: int64>: 3 lists, the first two right: True, the last one: False
  validate: Offsets buffer size (bytes): 12 isn't large enough for length: 3 and offset: 0
  large_list_view<item: int64>: 3 lists, the first two right: True, the last one: False
  validate: Offsets buffer size (bytes): 24 isn't large enough for length: 3 and offset: 0
EXPECTED
