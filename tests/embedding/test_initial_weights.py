"""Initial weights: a rectangle of a table has the same numbers in every plan, with dedup on and off."""

import torch

from recd_dist.embedding.initial_weights import BLOCK_SIZE, draw_weights, initialize_tables
from recd_dist.embedding.tables import Embeddings, table_weights
from recd_dist.table.schema import Feature, Kind, Schema, Table

SCHEMA = Schema((Feature("a", Kind.ids, "user", "a"), Feature("b", Kind.ids, "sample", "b")))


def test_a_rectangle_is_cut_out_of_the_whole() -> None:
    rows, dim = 3 * BLOCK_SIZE // 16 + 7, 16  # three blocks and a rest
    whole = draw_weights(3, "item", rows, dim, (0, rows), (0, dim))
    edge = BLOCK_SIZE // 16
    for first, last in [(0, 5), (edge - 2, edge + 3), (edge, 2 * edge), (rows - 1, rows), (4, 4)]:
        part = draw_weights(3, "item", rows, dim, (first, last), (4, 12))
        assert torch.equal(part, whole[first:last, 4:12])


def test_seed_and_name_matter() -> None:
    def part(seed: int, table: str) -> torch.Tensor:
        return draw_weights(seed, table, 100, 4, (0, 100), (0, 4))

    assert torch.equal(part(1, "item"), part(1, "item"))
    assert not torch.equal(part(1, "item"), part(2, "item"))
    assert not torch.equal(part(1, "item"), part(1, "shop"))


def test_blocks_differ_and_fill_the_bounds() -> None:
    whole = draw_weights(0, "t", 40000, 4, (0, 40000), (0, 4))
    assert not torch.equal(whole[:16384], whole[16384:32768])
    assert -0.005 <= float(whole.min()) < -0.00499
    assert 0.00499 < float(whole.max()) <= 0.005
    assert abs(float(whole.mean())) < 1e-4


def test_on_and_off_start_equal() -> None:
    tables = {"a": Table("a", 50, 4), "b": Table("b", 9, 8)}
    on, off = Embeddings(SCHEMA, tables), Embeddings(SCHEMA, tables, dedup=False, sequence_features=["a"])
    for module in (on, off):
        initialize_tables(module, 7)
    a, b = table_weights(on), table_weights(off)
    assert set(a) == set(b) == {"a", "b"}
    assert all(torch.equal(a[n], b[n]) for n in a)
