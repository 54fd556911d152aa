"""A mapped table that grows: every id finds a row of its zone in it; where there are too few, the newest do."""

import numpy as np
import pytest

from recd_dist.embedding.ids.grown_tables import deal_anew
from recd_dist.embedding.ids.id_loops import find_zones
from recd_dist.embedding.ids.kept_ids import NEVER
from recd_dist.embedding.ids.zones import Zones, count_zones


def stored(num_embeddings: int, num_ids: int, waiting: int = 0) -> dict[str, np.ndarray]:
    """A table of one zone: ids 7, 14, ... in the rows from 1 on, seen at the steps 1, 2, ...; others are free."""
    assert count_zones(num_embeddings) == 1
    arrays = {"row_ids": np.zeros(num_embeddings, np.int64), "row_seen": np.full(num_embeddings, NEVER)}
    numbers = np.arange(1, num_ids + 1)
    arrays["row_ids"][1 : num_ids + 1], arrays["row_seen"][1 : num_ids + 1] = 7 * numbers, numbers
    if waiting:
        for name in ("waiting_ids", "waiting_seen", "waiting_counts"):
            arrays[name] = np.full(num_embeddings, NEVER if name == "waiting_seen" else 0)
            arrays[name][:waiting] = -5 - np.arange(waiting) if name == "waiting_ids" else np.arange(waiting)
    return arrays


@pytest.mark.parametrize("num_embeddings", [1500, 2100, 4200, 9000])
def test_every_id_keeps_a_row_of_its_zone(num_embeddings: int) -> None:
    before = stored(1100, 900, waiting=40)
    dealt = deal_anew(before, num_embeddings)
    zones = Zones(num_embeddings, count_zones(num_embeddings))

    assert dealt.num_lost == 0
    assert dealt.rows[0] == 0
    assert (dealt.rows[901:] == -1).all()
    assert len(set(dealt.rows[:901].tolist())) == 901
    for name in ("row_ids", "row_seen"):
        np.testing.assert_array_equal(dealt.arrays[name][dealt.rows[1:901]], before[name][1:901])
    assert (dealt.arrays["row_seen"] != NEVER).sum() == 900
    for ids, seen in (("row_ids", "row_seen"), ("waiting_ids", "waiting_seen")):
        rows = np.flatnonzero(dealt.arrays[seen] != NEVER)
        zone = np.empty(len(rows), np.int64)
        find_zones(dealt.arrays[ids][rows], zones.num_zones, zone)
        np.testing.assert_array_equal(np.searchsorted(zones.firsts, rows, "right") - 1, zone)
        for number in range(zones.num_zones):  # rows are handed out in the order of their numbers
            of_zone = rows[zone == number]
            np.testing.assert_array_equal(of_zone, zones.firsts[number] + np.arange(len(of_zone)))
    counts = dict(zip(before["waiting_ids"][:40].tolist(), before["waiting_counts"][:40].tolist(), strict=True))
    waiting = dealt.arrays["waiting_seen"] != NEVER
    assert waiting.sum() == 40
    of_waiting = (dealt.arrays[name][waiting].tolist() for name in ("waiting_ids", "waiting_counts"))
    assert dict(zip(*of_waiting, strict=True)) == counts


def test_a_zone_that_is_too_small_loses_the_ids_that_were_not_seen_for_longest() -> None:
    before = stored(2048, 2047)  # full
    dealt = deal_anew(before, 2049)  # two zones of 1,024 rows
    lost = np.flatnonzero(dealt.rows[1:] < 0) + 1
    assert dealt.num_lost == len(lost) > 0
    zone = np.empty(2047, np.int64)
    find_zones(before["row_ids"][1:], 2, zone)
    (full,) = set(zone[lost - 1].tolist())
    kept = np.setdiff1d(np.flatnonzero(zone == full) + 1, lost)
    assert len(kept) == 1024
    assert before["row_seen"][lost].max() < before["row_seen"][kept].min()
