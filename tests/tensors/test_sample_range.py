"""Neighbouring samples of a batch, in literals and against the expanded batch."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.batches import expand_batch, heavy_tailed_inverse, random_batch, schema_of

from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged
from recd_dist.tensors.sample_range import take_samples

SCHEMA = schema_of(user="u1:id u2:ids ud:dense", page="p1:ids", sample="c:id x:ids d:dense")


def test_rows_and_lists_that_the_samples_have() -> None:
    inverse = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2], dtype=torch.int32)
    rows = Grouped(torch.tensor([[1.0], [2.0], [3.0]]), inverse)
    lists = GroupedJagged(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 0, 1], dtype=torch.int32), inverse)
    embedded, dense = take_samples(Embedded({}, {"h": lists}), {"user": rows}, 4, 8)
    assert dense["user"].values.tolist() == [[2.0], [3.0]]
    assert dense["user"].inverse.tolist() == [0, 0, 1, 1]
    assert embedded.sequences["h"].lengths.tolist() == [0, 1]
    assert embedded.sequences["h"].values.tolist() == [[3.0]]


@settings(max_examples=25)
@given(st.integers(1, 30), st.integers(0, 30), st.booleans(), st.integers(0, 99))
def test_it_is_a_part_of_the_expanded_batch(size: int, start: int, shuffled: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    inverses = {}
    for group in SCHEMA.dedup_groups:
        inverse = heavy_tailed_inverse(size, generator)
        inverses[group] = inverse[torch.randperm(size, generator=generator)] if shuffled else inverse
    embedded, dense, _ = random_batch(SCHEMA, inverses, size, 2, ("u2", "x"), seed=seed)
    start = start % size
    part, whole = (expand_batch(SCHEMA, *b) for b in (take_samples(embedded, dense, start, size), (embedded, dense)))
    assert torch.equal(part[0].pooled["sample"].values, whole[0].pooled["sample"].values[start:])
    assert torch.equal(part[1]["sample"].values, whole[1]["sample"].values[start:])
    for name, lists in part[0].sequences.items():
        padded, mask = lists.pad(6)
        wanted, wanted_mask = whole[0].sequences[name].pad(6)
        assert torch.equal(mask, wanted_mask[start:])
        assert torch.equal(padded, wanted[start:])
