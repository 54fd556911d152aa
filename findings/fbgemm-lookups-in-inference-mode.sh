#!/usr/bin/env bash
# fbgemm: a training table that is looked up under torch.inference_mode, on CPU.
# Versions: torch 2.13.0, fbgemm-gpu-cpu 1.8.0.
#
# One would guess that inference_mode is no_grad, only faster, as everywhere in torch. Seen: the lookup of a training
# table (which TorchRec's modules are, in evaluation mode too) is registered for autograd's dispatch alone. Under no_grad
# it runs, under inference_mode torch reports that the operator does not exist for CPU, which sends people to look for
# another build.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/env/bin/pip" install --quiet --no-deps fbgemm-gpu-cpu==1.8.0
cat >"$folder/lookups.py" <<'PY'
import warnings

warnings.filterwarnings("ignore")
import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)

table = SplitTableBatchedEmbeddingBagsCodegen([(10, 4, EmbeddingLocation.HOST, ComputeDevice.CPU)]).eval()
for mode in (torch.no_grad, torch.inference_mode):
    try:
        with mode():
            print(f"{mode.__name__}: {tuple(table(torch.tensor([1, 2]), torch.tensor([0, 1, 2])).shape)}")
    except NotImplementedError as error:
        print(f"{mode.__name__}: NotImplementedError, {str(error)[:14]}, {'from the ' + chr(39) + 'CPU' in str(error)}")
PY
"$folder/env/bin/python" "$folder/lookups.py" 2>/dev/null | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
no_grad: (2, 4)
inference_mode: NotImplementedError, Could not run , True
EXPECTED
