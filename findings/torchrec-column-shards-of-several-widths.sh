#!/usr/bin/env bash
# TorchRec: column-wise shards of different widths, as column_wise(size_per_rank=[8, 4]) asks for them.
# Versions: torch 2.13.0, torchrec 1.8.0, fbgemm-gpu-cpu 1.8.0, CPU, gloo, two ranks.
#
# One would guess that what a module saves it can load again. Seen: the module trains with such shards and gives its state
# dict; loading that very state dict works on the rank whose shard is the table's first, and fails on the other one, whose
# 4 columns are viewed with the width of the first shard, 8. On a table of 7 rows the shape is impossible; on one of 8
# rows it is not, and the load says that sizes do not match. A job finds out when it resumes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/env/bin/pip" install --quiet --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0
"$folder/env/bin/pip" install --quiet 'tensordict>=0.7' iopath pyre-extensions torchmetrics==1.0.3 tqdm psutil
cat >"$folder/shards.py" <<'PY'
import os
import sys
import warnings

warnings.filterwarnings("ignore")
import torch
import torch.distributed as dist
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.sharding_plan import column_wise, construct_module_sharding_plan
from torchrec.distributed.types import ShardingEnv, ShardingPlan
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{os.environ['MEETING']}", rank=rank, world_size=2)


def sharded(num_rows: int) -> DistributedModelParallel:
    config = EmbeddingBagConfig(name="t", embedding_dim=12, num_embeddings=num_rows, feature_names=["f"])
    module = EmbeddingBagCollection(tables=[config])
    columns = {"t": column_wise(size_per_rank=[8, 4])}
    own = construct_module_sharding_plan(
        module, columns, EmbeddingBagCollectionSharder(), local_size=2, world_size=2, device_type="cpu"
    )
    return DistributedModelParallel(
        torch.nn.Sequential(module), env=ShardingEnv.from_process_group(dist.GroupMember.WORLD),
        plan=ShardingPlan({"0": own}), device=torch.device("cpu"), sharders=[EmbeddingBagCollectionSharder()],
    )


for num_rows in (7, 8):
    model = sharded(num_rows)
    batch = KeyedJaggedTensor(["f"], torch.tensor([1, 2, 3]), lengths=torch.tensor([2, 1]))
    model(batch).values().sum().backward()
    try:
        model.load_state_dict(model.state_dict())
        said = "loaded"
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1].strip()
    print(f"{num_rows} rows, rank {rank}: trained, {said}", flush=True)
PY
for rank in 0 1; do
  MEETING="$folder/meeting" "$folder/env/bin/python" "$folder/shards.py" "$rank" >"$folder/$rank" 2>"$folder/errors.$rank" &
done
wait
cat "$folder/0" "$folder/1" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
7 rows, rank 0: trained, loaded
8 rows, rank 0: trained, loaded
7 rows, rank 1: trained, shape '[-1, 8]' is invalid for input of size 28
8 rows, rank 1: trained, size mismatch for embedding_bags.t.weight: copying a param with shape torch.Size([4, 8]) from checkpoint, the shape in current model is torch.Size([8, 4]).
EXPECTED
