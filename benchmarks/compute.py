"""What computing on unique rows saves inside the model: claims compute.interaction and compute.attention.

    python benchmarks/compute.py [--quick] [--json FILE] [--threads N]

The baseline runs in the same run and alternates with ours (A B A B ...), on the same samples, expanded, with the same
weights. compute.interaction has two: a well-written model with torch's own functions (one batched product for all
pairs, a gather, one matrix product), and our module, whose gradient of the products is cheaper than torch's.
compute.attention has our modules per sample. Each time is one forward and one backward pass, down to the gradients of
the embeddings. Session sizes are log-normal, 16.3 in the mean.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from recd_dist.model.attention import HistoryLayer, TargetAttention
from recd_dist.model.interaction import DotInteraction
from recd_dist.model.model_inputs import Vectors
from recd_dist.tensors.grouped import GroupedJagged
from recd_dist.tensors.levels import Level, Levels
from recd_dist.tensors.shared import Shared, expand

SAME = "our own modules on expanded rows"

Case = tuple[Callable[[], Tensor], Callable[[], Tensor], list[Tensor]]
"""The two ways to compute, ours and the baseline, and the tensors whose gradients both compute."""


def sessions(batch_size: int, generator: torch.Generator) -> Tensor:
    """The inverse int32 [B] of sessions whose sizes are log-normal with mean 16.3 and median 10."""
    sigma = math.sqrt(2 * math.log(16.3 / 10))
    sizes = torch.exp(math.log(10) + sigma * torch.randn(batch_size, generator=generator)).round().clamp(min=1).long()
    return torch.repeat_interleave(torch.arange(batch_size), sizes)[:batch_size].to(torch.int32)


def find_level(inverse: Tensor) -> Level:
    """The level of these sessions, found anew as for every batch."""
    level = Levels().find(inverse, int(inverse[-1]) + 1)
    if level is None:
        raise RuntimeError("these sessions do not share enough rows")
    return level


def interaction(batch_size: int, session: int, sample: int, dim: int, width: int, plain: bool = True) -> Case:
    """The case of dot products of all pairs and the first layer over them.

    Args:
        batch_size: B.
        session: the number of vectors of a session.
        sample: the number of vectors of a sample.
        dim: the width of a vector.
        width: the outputs of the layer.
        plain: the baseline is written with torch's functions; otherwise it is our module, given expanded vectors.
    """
    generator = torch.Generator().manual_seed(0)
    inverse = sessions(batch_size, generator)
    num_rows = find_level(inverse).num_rows
    names = [f"s{n}" for n in range(session)], [f"c{n}" for n in range(sample)]
    layer = DotInteraction(*names, dim, 0, False, width)
    unique = torch.randn(num_rows, session, dim, generator=generator, requires_grad=True)
    own = torch.randn(batch_size, sample, dim, generator=generator, requires_grad=True)
    full = torch.cat([unique.detach()[inverse.long()], own.detach()], 1).requires_grad_()

    def ours() -> Tensor:
        shared = Vectors(tuple(names[0]), Shared(unique.flatten(1), find_level(inverse)))
        return expand(layer([shared, Vectors(tuple(names[1]), own.flatten(1))], None))

    together = (*names[0], *names[1])
    if plain:
        at = {name: place for place, name in enumerate(together)}
        pairs = sorted((column, sorted(at[name] for name in pair)) for pair, column in layer.column.items())
        taken = torch.tensor([i * len(together) + j for _, (i, j) in pairs])

    def baseline() -> Tensor:
        if plain:
            return layer.layer(torch.bmm(full, full.mT).flatten(1).index_select(1, taken))
        return expand(layer([Vectors(together, full.flatten(1))], None))

    return ours, baseline, [unique, own, full, *layer.parameters()]


def attention(batch_size: int, length: int, dim: int, heads: int, layers: int) -> Case:
    """The case of candidates that attend to the session's history, after ``layers`` transformer layers over it."""
    generator = torch.Generator().manual_seed(0)
    inverse = sessions(batch_size, generator)
    num_rows = int(inverse.max()) + 1
    lengths = torch.randint(length // 2, length + 1, (num_rows,), generator=generator, dtype=torch.int32)
    values = torch.randn(int(lengths.sum()), dim, generator=generator)
    history = GroupedJagged(values.requires_grad_(), lengths, inverse)
    expanded = history.expand()
    full = GroupedJagged(expanded.values.detach().requires_grad_(), expanded.lengths)
    candidates = torch.randn(batch_size, dim, generator=generator, requires_grad=True)
    stack, target = nn.Sequential(*(HistoryLayer(dim, heads) for _ in range(layers))), TargetAttention(dim, heads)

    def ours() -> Tensor:
        shared = replace(history, level=find_level(inverse))
        return expand(target(stack(shared), candidates))

    def baseline() -> Tensor:
        return expand(target(stack(full), candidates))

    return ours, baseline, [values, candidates, full.values, *stack.parameters(), *target.parameters()]


def time_pass(forward: Callable[[], Tensor], leaves: list[Tensor], gradient: Tensor) -> float:
    """Does one forward and one backward pass, from a gradient as a model has it; returns the seconds."""
    for leaf in leaves:
        leaf.grad = None
    start = time.perf_counter()
    forward().backward(gradient)
    return time.perf_counter() - start


def compare(claim: str, case: Case, config: str, rounds: int, baseline_name: str) -> dict[str, object]:
    """Measures the ratios baseline / ours, pair by pair."""
    ours, baseline, leaves = case
    with torch.no_grad():
        gradient = torch.randn_like(expected := baseline())
        torch.testing.assert_close(ours(), expected, rtol=1e-3, atol=1e-3)
    pairs = [tuple(time_pass(way, leaves, gradient) for way in (ours, baseline)) for _ in range(rounds + 1)][1:]
    ratios = [b / a for a, b in pairs]
    return {
        "claim": claim,
        "value": round(statistics.median(ratios), 3),
        "low": round(min(ratios), 3),
        "high": round(max(ratios), 3),
        "baseline": baseline_name,
        "unit": "ratio",
        "config": config,
        "ours_ms": round(1e3 * statistics.median(a for a, _ in pairs), 2),
        "baseline_ms": round(1e3 * statistics.median(b for _, b in pairs), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the results there")
    parser.add_argument("--quick", action="store_true", help="smaller batches, fewer rounds")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size, rounds = (2048, 7) if options.quick else (4096, 15)
    common = f"S=16.3 heavy-tailed, fwd+bwd, {options.threads} threads, torch {torch.__version__}"
    results = []
    for session, sample, dim in ((24, 16, 64), (24, 4, 64), (12, 3, 32)):
        config = f"B={size}, {session} session and {sample} sample vectors, D={dim}, 512 outputs; {common}"
        for plain, name in ((True, "plain torch on expanded rows"), (False, SAME)):
            case = interaction(size, session, sample, dim, 512, plain)
            results.append(compare("compute.interaction", case, config, rounds, name))
    for length, layers in ((64, 0), (64, 1), (188, 0), (100, 1), (200, 1), (500, 1)):
        batch_size = size // 2 if length < 200 else size // 8
        config = f"B={batch_size}, history of {length}, D=32, 2 heads, {layers} history layers; {common}"
        case = attention(batch_size, length, 32, 2, layers)
        results.append(compare("compute.attention", case, config, rounds, SAME))
    for r in results:
        line = f"{r['claim']:20} {r['value']:6.2f} ({r['low']:.2f}-{r['high']:.2f})  {r['ours_ms']:8.1f} ms ours"
        sys.stdout.write(f"{line} {r['baseline_ms']:8.1f} ms {r['baseline']}  {r['config']}\n")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
