#!/usr/bin/env bash
# TorchRec: a batch with weights, looked up in an EmbeddingBagCollection made with is_weighted=False.
# Versions: torch 2.13.0, torchrec 1.8.0, fbgemm-gpu-cpu 1.8.0, CPU, gloo, one rank.
#
# One would guess that a model gives the same numbers before and after sharding, or an error. Seen: the unsharded module
# passes over the weights (sum of rows 1 and 2 of the table: 3.0); the same module, sharded, multiplies by them (30.0 with
# weights of 10). Whoever shards a model whose batches carry weights trains something else, without a word.
# And with is_weighted=True and mean pooling: unsharded it is refused, sharded it divides by the number of ids, not by the
# sum of their weights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/env/bin/pip" install --quiet --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0
"$folder/env/bin/pip" install --quiet 'tensordict>=0.7' iopath pyre-extensions torchmetrics==1.0.3 tqdm psutil
cat >"$folder/weights.py" <<'PY'
import os
import warnings

warnings.filterwarnings("ignore")
import torch
import torch.distributed as dist
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.types import ShardingEnv
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

dist.init_process_group("gloo", init_method=f"file://{os.environ['MEETING']}", rank=0, world_size=1)
BATCH = KeyedJaggedTensor(["f"], torch.tensor([1, 2]), torch.tensor([10.0, 10.0]), lengths=torch.tensor([2]))


def bags(pooling: PoolingType, is_weighted: bool) -> EmbeddingBagCollection:
    config = EmbeddingBagConfig(
        name="t", embedding_dim=4, num_embeddings=3, feature_names=["f"], pooling=pooling,
        init_fn=lambda weight: weight.data.copy_(torch.arange(3.0)[:, None].expand(3, 4)),
    )
    return EmbeddingBagCollection(tables=[config], is_weighted=is_weighted)


def sharded(module: EmbeddingBagCollection) -> torch.nn.Module:
    model = DistributedModelParallel(
        torch.nn.Sequential(module), env=ShardingEnv.from_process_group(dist.GroupMember.WORLD),
        device=torch.device("cpu"), sharders=[EmbeddingBagCollectionSharder()],
    )
    for weight in model.state_dict().values():
        parts = [s.tensor for s in weight.local_shards()] if hasattr(weight, "local_shards") else [weight]
        for part in parts:
            part.copy_(torch.arange(3.0)[:, None].expand(3, 4))
    return model


def value(module: torch.nn.Module) -> float:
    with torch.no_grad():
        out = module(BATCH)
        out = out.wait() if hasattr(out, "wait") else out
        return out.values()[0, 0].item()


print("sum, unweighted tables, unsharded:", value(bags(PoolingType.SUM, False)))
print("sum, unweighted tables, sharded:  ", value(sharded(bags(PoolingType.SUM, False))))
try:
    print("mean, weighted tables, unsharded: ", value(bags(PoolingType.MEAN, True)))
except NotImplementedError:
    print("mean, weighted tables, unsharded:  refused")
print("mean, weighted tables, sharded:   ", value(sharded(bags(PoolingType.MEAN, True))))
PY
MEETING="$folder/meeting" "$folder/env/bin/python" "$folder/weights.py" 2>/dev/null | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
sum, unweighted tables, unsharded: 3.0
sum, unweighted tables, sharded:   30.0
mean, weighted tables, unsharded:  refused
mean, weighted tables, sharded:    15.0
EXPECTED
