"""Random batches in two forms, grouped with inverses and expanded, and the comparison of a model on both."""

import torch

from recd_dist.table.schema import SAMPLE, Feature, Kind, Schema
from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged


def heavy_tailed_inverse(batch_size: int, generator: torch.Generator, mean: float = 4.0) -> torch.Tensor:
    """The inverse of sessions of heavy-tailed size, whose samples are neighbours: int32 [B], rows counted from 0."""
    changed = torch.rand(batch_size, generator=generator) < 1 / mean
    changed[: batch_size // 3] = False
    return (torch.cumsum(changed, 0) - int(changed[0]) if batch_size else torch.zeros(0)).to(torch.int32)


def random_batch(
    schema: Schema,
    inverses: dict[str, torch.Tensor],
    batch_size: int,
    dim: int,
    sequences: tuple[str, ...] = (),
    max_length: int = 6,
    seed: int = 0,
) -> tuple[Embedded, dict[str, Grouped], list[torch.Tensor]]:
    """A batch with dedup on, in float64, and its leaves, which require gradients."""
    generator = torch.Generator().manual_seed(seed)
    leaves: list[torch.Tensor] = []

    def leaf(*shape: int) -> torch.Tensor:
        leaves.append(torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_())
        return leaves[-1]

    pooled, lists, dense = {}, {}, {}
    for group in schema.groups:
        inverse = inverses.get(group)
        rows = batch_size if inverse is None else (int(inverse.max()) + 1 if len(inverse) else 0)
        keys = tuple(k for k in schema.sparse_of(group) if k not in sequences)
        if keys:
            pooled[group] = Grouped(leaf(rows, dim * len(keys)), inverse, keys, (dim,) * len(keys))
        if names := schema.dense_of(group):
            dense[group] = Grouped(leaf(rows, len(names)), inverse)
        for key in (k for k in schema.sparse_of(group) if k in sequences):
            lengths = torch.randint(0, max_length + 1, (rows,), generator=generator, dtype=torch.int32)
            lengths[:1] = 0
            lists[key] = GroupedJagged(leaf(int(lengths.sum()), dim), lengths, inverse)
    return Embedded(pooled, lists), dense, leaves


def expand_batch(schema: Schema, embedded: Embedded, dense: dict[str, Grouped]) -> tuple[Embedded, dict[str, Grouped]]:
    """The same samples as `dedup=off` has them: in one group, features in schema order."""
    parts = {k: x.expand().split(x.dims, 1)[n] for x in embedded.pooled.values() for n, k in enumerate(x.keys)}
    keys = tuple(f.name for f in schema.sparse if f.name in parts)
    pooled = {}
    if keys:
        values = torch.cat([parts[k] for k in keys], 1)
        pooled[SAMPLE] = Grouped(values, None, keys, tuple(parts[k].shape[1] for k in keys))
    columns = [dense[g].expand() for g in schema.groups if g in dense]
    plain = {SAMPLE: Grouped(torch.cat(columns, 1))} if columns else {}
    return Embedded(pooled, {f: s.expand() for f, s in embedded.sequences.items()}), plain


def schema_of(**groups: str) -> Schema:
    """A schema from arguments `group="name:kind[:table] ..."`."""
    features = []
    for group, text in groups.items():
        for word in text.split():
            name, kind, *table = word.split(":")
            features.append(Feature(name, Kind(kind), group, None if kind == "dense" else (table or [name])[0]))
    return Schema(tuple(features))


def assert_on_equals_off(model: torch.nn.Module, schema: Schema, embedded: Embedded, dense: dict, leaves: list) -> None:
    """Logits are equal, and so are the gradients of all inputs and parameters, none of which is all zero."""
    weights = [*leaves, *model.parameters()]
    on = model(embedded, dense)
    off = model(*expand_batch(schema, embedded, dense))
    upstream = torch.randn(on.shape, generator=torch.Generator().manual_seed(1), dtype=on.dtype)
    torch.testing.assert_close(on, off, rtol=1e-12, atol=1e-12)
    grads_on = torch.autograd.grad(on, weights, upstream, allow_unused=True)
    grads_off = torch.autograd.grad(off, weights, upstream, allow_unused=True)
    for leaf, one, other in zip(weights, grads_on, grads_off, strict=True):
        if not leaf.numel():
            continue
        assert one is not None
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
