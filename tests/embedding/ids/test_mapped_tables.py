"""What mapping leaves as it is; tests/dist/test_mapped_tables.py has the mapping itself, over ranks."""

import torch

from recd_dist.embedding.ids.mapped_tables import MappedTables
from recd_dist.embedding.ids.row_owners import RowOwners
from recd_dist.table.schema import SAMPLE, Feature, IdRules, Kind, Schema, Table
from recd_dist.tensors.ikjt import IKJT, GroupLayout

LATE = 1_764_000_000_000
"""A time in milliseconds, which takes more than 32 bits."""


def test_times_beside_mapped_ids_keep_all_their_bits() -> None:
    looked_up = Schema((Feature("item", Kind.id, SAMPLE, "item"),))
    sizes = {"item": Table("item", 64, 4, mapped=IdRules(1)), "now": Table("now", LATE + 2, 4)}
    tables = MappedTables(looked_up, sizes, RowOwners(None))
    tables.begin()
    batch = IKJT(
        groups=(GroupLayout("past", ("seen",), 1), GroupLayout(SAMPLE, ("item", "now"), 2)),
        batch_size=2,
        values=torch.tensor([LATE, -7, 8, LATE, LATE + 1]),
        lengths=torch.ones(5, dtype=torch.int32),
        inverse=torch.zeros(2, dtype=torch.int32),
        value_offsets=(0, 1, 3, 5),
    )

    mapped = tables.give(batch, 1).sparse

    assert mapped.values_of("now").tolist() == [LATE, LATE + 1]
    assert mapped.values_of("seen").tolist() == [LATE]
    assert max(mapped.values_of("item").tolist()) < 64
