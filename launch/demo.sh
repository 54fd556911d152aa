#!/usr/bin/env bash
# `make demo`: raw logs -> table -> two ranks of training -> quality on the test split. Each command is shown as typed.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

step() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}

printf 'Commands are in .venv/bin: to type them yourself,  source .venv/bin/activate\n'
step recd etl data=tiny overwrite=true
step recd stats data=tiny
step torchx run -s local_cwd launch/train.py:train -j 1x2 --run runs/demo -- data=tiny batch_size=256 resume=false
step recd evaluate runs/demo
step recd summary runs/demo
printf '\nCurves:  recd board runs/demo   (TensorBoard on http://localhost:6006)\n'
