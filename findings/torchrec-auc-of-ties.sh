#!/usr/bin/env bash
# TorchRec: AUC of scores of which several are equal, as of a new model, of int8 or rounded scores.
# Versions: torch 2.13.0, torchrec 1.8.0, fbgemm-gpu-cpu 1.8.0, torchmetrics 1.0.3, CPU.
#
# One would guess that equal scores count one half, as in the definition of AUC, in scikit-learn and in torchmetrics,
# TorchRec's own dependency. Seen: torchrec.metrics.auc sorts and takes the order of equal scores as it comes. Four equal
# scores have an AUC of 1.0 when the clicked samples come first in the batch, of 0.0 when they come last. So AUC on the
# dashboard depends on the order of the log, most where scores are coarse, and a model that predicts a constant can look
# perfect. NE and calibration are not affected.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/env/bin/pip" install --quiet --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0
"$folder/env/bin/pip" install --quiet 'tensordict>=0.7' iopath pyre-extensions torchmetrics==1.0.3 tqdm psutil
cat >"$folder/ties.py" <<'PY'
import warnings

warnings.filterwarnings("ignore")
import torch
from torchmetrics.functional.classification import binary_auroc
from torchrec.metrics.auc import compute_auc

SCORES = torch.full((4,), 0.3)
for clicked in ([1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1]):
    labels = torch.tensor([clicked])
    value = compute_auc(1, [SCORES[None]], [labels.float()], [torch.ones(1, 4)]).item()
    print(f"clicked {clicked}: TorchRec {value}, torchmetrics {binary_auroc(SCORES, labels[0]).item()}")
PY
"$folder/env/bin/python" "$folder/ties.py" 2>/dev/null | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
clicked [1, 1, 0, 0]: TorchRec 1.0, torchmetrics 0.5
clicked [0, 0, 1, 1]: TorchRec 0.0, torchmetrics 0.5
clicked [1, 0, 0, 1]: TorchRec 0.5, torchmetrics 0.5
EXPECTED
