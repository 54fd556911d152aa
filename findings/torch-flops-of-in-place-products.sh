#!/usr/bin/env bash
# torch: FlopCounterMode, by which the share of a device's peak that a training step reaches (MFU) is computed.
# Versions: torch 2.13.0, CPU.
#
# One would guess that it counts a matrix product however its result is stored. Seen: addmm and baddbmm are counted, also
# with out=, but addmm_ and baddbmm_, which add the product to what is there, count 0. So a model made faster by adding
# products in place, here half of a layer's forward pass, reports fewer FLOPs, and an MFU that falls while the step becomes
# faster. The backward pass is counted either way, which hides it: a step of the layer has 3 products by one way of
# writing and 2 by the other. A custom_mapping for the two functions makes them count.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy
cat >"$folder/flops.py" <<'PY'
import torch
from torch.utils.flop_counter import FlopCounterMode

rows = torch.ones(8, 16, requires_grad=True)
weight = torch.ones(16, 4, requires_grad=True)
stacks = rows.expand(3, 8, 16), weight.expand(3, 16, 4)
PRODUCT = 2 * 8 * 16 * 4


def count(function, **options):
    with FlopCounterMode(display=False, **options) as counter:
        function()
    return counter.get_total_flops() // PRODUCT


print("torch", torch.__version__.partition("+")[0])
print("addmm:", count(lambda: torch.addmm(torch.zeros(8, 4), rows, weight)))
print("addmm_:", count(lambda: torch.zeros(8, 4).addmm_(rows, weight)))
print("baddbmm:", count(lambda: torch.baddbmm(torch.zeros(3, 8, 4), *stacks)))
print("baddbmm_:", count(lambda: torch.zeros(3, 8, 4).baddbmm_(*stacks)))
print("addmm and backward:", count(lambda: torch.addmm(torch.zeros(8, 4), rows, weight).sum().backward()))
print("addmm_ and backward:", count(lambda: torch.zeros(8, 4).addmm_(rows, weight).sum().backward()))
mapping = {torch.ops.aten.addmm_: lambda _, left, right, out_shape=None: 2 * left[0] * left[1] * right[1]}
print("addmm_ with a mapping:", count(lambda: torch.zeros(8, 4).addmm_(rows, weight), custom_mapping=mapping))
PY
"$folder/env/bin/python" "$folder/flops.py" 2>/dev/null | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
torch 2.13.0
addmm: 1
addmm_: 0
baddbmm: 3
baddbmm_: 0
addmm and backward: 3
addmm_ and backward: 2
addmm_ with a mapping: 1
EXPECTED
