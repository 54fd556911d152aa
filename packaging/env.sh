#!/usr/bin/env bash
# Makes or renews an environment of this checkout, .venv or .venv-newest. `make env` calls it. Variables: PYTHON,
# VERSIONS (nothing: the release line of constraints.txt; newest), VARIANT (cpu|cuda), TORCH_INDEX.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'make env: %s\n' "$1" >&2; exit 1; }

export VERSIONS=${VERSIONS:-} # packaging/fbgemm-gpu-cpu-shim reads it
VENV=.venv${VERSIONS:+-$VERSIONS}
CHANGES=constraints${VERSIONS:+-$VERSIONS}.txt
[ -f "$CHANGES" ] || fail "VERSIONS=$VERSIONS is unknown; choose newest, or leave it out"
PINS=$VENV/constraints.txt
READY=$VENV/.ready # exists once all is installed, and holds the variant
[ -n "${VARIANT:-}" ] || { [ -s $READY ] && read -r VARIANT <$READY; } || VARIANT=cpu
NEEDED_GIB=4 # measured: 1.6 GB installed with a CPU build of torch, 5.7 GB with a CUDA build, and pip's cache
CUDA_GIB=10
LOG=$VENV/install.log

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if is_new_enough "$candidate"; then printf '%s\n' "$candidate"; return; fi
    done
    [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON does not run, or is older than 3.11 ($("$PYTHON" -V 2>&1 | head -n 1))."
    fail "no Python 3.11 or newer found (tried python3.13 python3.12 python3.11 python3). Install one, or name it: make env PYTHON=/path/to/python3"
}

make_venv() {
    local python free_kib
    python=$(find_python)
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python has no venv module. On Debian or Ubuntu: apt install python3-venv"
    free_kib=$(df -Pk . | awk 'NR == 2 { print $4 }')
    [ "$free_kib" -ge $((NEEDED_GIB * 1024 * 1024)) ] ||
        fail "$((free_kib / 1024)) MiB free here, the environment needs $NEEDED_GIB GiB. Make room, or clone to another disk."
    [ "$free_kib" -ge $((CUDA_GIB * 1024 * 1024)) ] ||
        echo "make env: $((free_kib / 1024 / 1024)) GiB free: enough for a CPU build of torch, a CUDA build needs $CUDA_GIB GiB (TORCH_INDEX=URL chooses)"
    echo "make env: new $VENV with $("$python" -V), variant $VARIANT"
    "$python" -m venv --clear $VENV
}

install() {
    $VENV/bin/python -m pip install --disable-pip-version-check --constraint "$PINS" "$@" >>"$LOG" 2>&1 || {
        grep -E '^ *(ERROR|error|OSError)' "$LOG" | tail -n 5 >&2 || tail -n 5 "$LOG" >&2
        fail "pip failed; its log is $LOG. Another index for torch: make env TORCH_INDEX=URL"
    }
}

case $VARIANT in
    cpu) packages=(./packaging/fbgemm-gpu-cpu-shim --editable ".[cpu${VERSIONS:+-$VERSIONS},dev]") ;;
    cuda) packages=(--editable ".[cuda${VERSIONS:+-$VERSIONS},dev]") ;;
    *) fail "VARIANT=$VARIANT is unknown; choose cpu or cuda" ;;
esac

is_new_enough $VENV/bin/python || make_venv
: >"$LOG"
# The pins of the line, then those of constraints.txt that it leaves as they are.
awk -F== '!/^#/ && !seen[$1]++' "$CHANGES" constraints.txt >"$PINS"
echo "make env: installing, 2-4 minutes (1.6 GB where pip finds a CPU build of torch, 5.7 GB with a CUDA build)"
if [ -n "${TORCH_INDEX:-}" ]; then install --no-deps --index-url "$TORCH_INDEX" torch; fi
install "${packages[@]}"
$VENV/bin/python -m pip check >>"$LOG" || fail "the installed versions do not fit together: $(tail -n 1 "$LOG")"
# Loops that every run would otherwise wait for at its first batch; where they cannot be kept, each process compiles them.
$VENV/bin/python -c "from recd_dist.train.prepared import prepare; from recd_dist.reader.load_loops import load_direct_loops; prepare(); load_direct_loops()" >>"$LOG" 2>&1 || true
echo "$VARIANT" >$READY
echo "make env: ready"
