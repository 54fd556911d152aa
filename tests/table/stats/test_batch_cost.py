"""What rows cost to move."""

from recd_dist.table.stats.batch_cost import Cost, row_cost


def test_a_row_costs_its_ids_lengths_and_vectors() -> None:
    row = row_cost([(1.5, 4), (2.0, 8)])  # mean ids of each feature, and bytes of an id
    assert row == Cost(3.5, 1.5 * 4 + 2.0 * 8 + 2 * 4, 2 * 64 * 4)
    assert row * 2 + Cost(1, 1, 1) == Cost(8.0, 61.0, 1025.0)
    assert row_cost([]) == Cost(0, 0, 0)
