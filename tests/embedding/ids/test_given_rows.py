"""Rows of ids: the compiled lists and index against a plain model of dicts, whatever ids come."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recd_dist.embedding.ids.given_rows import GivenRows
from recd_dist.embedding.ids.id_loops import find_zones
from recd_dist.embedding.ids.kept_ids import KeptIds
from recd_dist.embedding.ids.zones import MAX_ZONES, UNKNOWN, Zones, count_zones
from recd_dist.table.schema import EVICTIONS, IdRules

LOW, HIGH = np.iinfo(np.int64).min, np.iinfo(np.int64).max
IDS = st.one_of(st.sampled_from([LOW, LOW + 1, -1, 0, 1, HIGH - 1, HIGH]), st.integers(-12, 12), st.integers(LOW, HIGH))
STEPS = st.lists(st.dictionaries(IDS, st.integers(1, 3), max_size=9), max_size=25)
RULES = st.builds(
    lambda admit, evict, age: IdRules(admit, evict, age if evict == "age" else None),
    st.integers(1, 4),
    st.sampled_from(EVICTIONS),
    st.integers(1, 4),
)


def zone_of(number: int, num_zones: int) -> int:
    zone = np.empty(1, np.int64)
    find_zones(np.array([number]), num_zones, zone)
    return int(zone[0])


@dataclass
class Model:
    """What docs/ids.md says, in dicts; every choice is made by looking through all of them."""

    zones: Zones
    rules: IdRules
    rows: dict[int, tuple[int, int]] = field(default_factory=dict)  # row -> id, step
    waiting: dict[int, tuple[int, int]] = field(default_factory=dict)  # id -> lookups, step

    def is_live(self, seen: int, step: int) -> bool:
        return self.rules.max_age is None or step - seen <= self.rules.max_age

    def step(self, ids: dict[int, int], step: int) -> tuple[dict[int, int], set[int]]:
        """The rows of the ids, and the rows that were taken from others."""
        found = {i: row for row, (i, seen) in self.rows.items() if i in ids and self.is_live(seen, step)}
        for i, row in found.items():
            self.rows[row] = i, step
        taken: set[int] = set()
        for i in sorted(ids):
            if i in found:
                continue
            lookups, seen = self.waiting.get(i, (0, step))
            total = ids[i] + (lookups if self.is_live(seen, step) else 0)
            zone = zone_of(i, self.zones.num_zones)
            if total >= self.rules.admit_after and (row := self.free_row(zone, step)) is not None:
                taken |= {row} & self.rows.keys()
                self.rows[row], found[i] = (i, step), row
                self.waiting.pop(i, None)
            elif self.rules.admit_after > 1:
                self.wait(i, total, zone, step, ids)
        return {i: found.get(i, UNKNOWN) for i in ids}, taken

    def free_row(self, zone: int, step: int) -> int | None:
        of_zone = range(int(self.zones.firsts[zone]), int(self.zones.firsts[zone + 1]))
        if unused := [row for row in of_zone if row not in self.rows]:
            return unused[0]
        seen, _, row = min((self.rows[row][1], self.rows[row][0], row) for row in of_zone)
        if seen == step or (self.rules.evict != "lru" and self.is_live(seen, step)):
            return None
        return row

    def wait(self, i: int, total: int, zone: int, step: int, now: dict[int, int]) -> None:
        if i not in self.waiting:
            beside = [j for j in self.waiting if zone_of(j, self.zones.num_zones) == zone]
            if len(beside) == self.zones.firsts[zone + 1] - self.zones.firsts[zone]:
                old = [(self.waiting[j][1], j) for j in beside if j not in now]
                if not old:
                    return
                del self.waiting[min(old)[1]]
        self.waiting[i] = total, step


def content(kept: KeptIds) -> tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]]:
    """Rows and waiting ids, as the model has them."""
    rows = {
        row: (int(kept.row_ids[n]), int(kept.row_seen[n])) for n, row in enumerate(kept.rows) if kept.row_seen[n] >= 0
    }
    places = range(len(kept.waiting_ids))
    waiting = {
        int(kept.waiting_ids[n]): (int(kept.waiting_counts[n]), int(kept.waiting_seen[n]))
        for n in places
        if kept.waiting_seen[n] >= 0
    }
    return rows, waiting


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 12), st.sampled_from([1, 2, 4]), RULES, STEPS, st.integers(0, 25))
@example(4, 1, IdRules(1, "age", 1), [{1: 1, 2: 1, 3: 1}, {}, {}, {2: 1}, {3: 1, 4: 1, 5: 1}], 3)
def test_rows_are_those_of_the_model(
    num_rows: int, num_zones: int, rules: IdRules, steps: list[dict[int, int]], resumed: int
) -> None:
    """Also when the structure is built anew from what is kept, at any step."""
    zones = Zones(num_rows * num_zones + 1, num_zones)
    model, kept = Model(zones, rules), KeptIds(zones, rules)
    rows = GivenRows(kept)
    for number, ids in enumerate(steps, 1):
        wanted, taken = model.step(ids, number)
        ordered = np.array(sorted(ids), np.int64)
        came = rows.give(ordered, np.array([ids[int(i)] for i in ordered], np.int64), number)
        assert dict(zip(ordered.tolist(), came.rows.tolist(), strict=True)) == wanted
        assert sorted(came.reset.tolist()) == sorted(taken)
        kept.apply(came.change)
        assert content(kept) == (model.rows, model.waiting)
        live = {i: row for row, (i, seen) in model.rows.items() if model.is_live(seen, number)}
        known = np.array([*live, 99], np.int64)
        assert kept.finder(number).find(known).tolist() == [*live.values(), live.get(99, UNKNOWN)]
        if number == resumed:
            rows = GivenRows(kept)


def test_an_id_takes_the_row_of_the_one_not_seen_for_longest() -> None:
    kept = KeptIds(Zones(4, 1), IdRules())
    rows = GivenRows(kept)

    def step(number: int, *ids: int) -> tuple[list[int], list[int]]:
        came = rows.give(np.array(ids), np.ones(len(ids), np.int64), number)
        return came.rows.tolist(), came.reset.tolist()

    assert step(1, 10, 20, 30) == ([1, 2, 3], [])
    assert step(2, 10, 30) == ([1, 3], [])
    assert step(3, 10, 40) == ([1, 2], [2])  # 20 was not seen for longest
    assert step(4, 10, 20, 40, 50, 60) == ([1, 3, 2, 0, 0], [3])  # no id of a step loses its row in it


@pytest.mark.parametrize(("evict", "rows"), [("never", [UNKNOWN, 1, 2]), ("lru", [2, 1, 2])])
def test_a_full_table(evict: str, rows: list[int]) -> None:
    handed = GivenRows(KeptIds(Zones(3, 1), IdRules(1, evict)))
    one = np.ones(1, np.int64)
    found = [int(handed.give(np.array([i]), one, step).rows[0]) for step, i in enumerate([1, 2, 1, 3, 1, 2], 1)]
    assert found == [1, 2, 1, *rows]


def test_an_id_is_forgotten_after_its_age() -> None:
    kept = KeptIds(Zones(4, 1), IdRules(2, "age", 3))
    handed = GivenRows(kept)

    def step(number: int, **lookups: int) -> list[int]:
        ids = np.array(sorted(int(name[1:]) for name in lookups), np.int64)
        came = handed.give(ids, np.array([lookups[f"i{i}"] for i in ids], np.int64), number)
        kept.apply(came.change)
        return came.rows.tolist()

    assert step(1, i7=2) == [1]
    assert step(4, i8=1) == [UNKNOWN]  # it waits
    assert kept.finder(4).find(np.array([7])).tolist() == [1]
    assert kept.finder(5).find(np.array([7])).tolist() == [UNKNOWN]
    assert step(5, i7=1) == [UNKNOWN]  # it begins anew, its old row is for others
    assert step(6, i7=1, i8=1) == [2, 3]
    assert step(7, i9=2) == [1]
    assert step(11, i8=1) == [UNKNOWN]


def test_zones_are_whole_on_any_number_of_ranks() -> None:
    assert [count_zones(n) for n in (2, 1025, 2049, 4097, 100_000, 10**9)] == [1, 1, 2, 4, 64, MAX_ZONES]
    for world_size in (1, 2, 3, 7, 64):
        zones = [Zones(5000, count_zones(5000), rank, world_size) for rank in range(world_size)]
        assert [row for each in zones for row in each.rows_of(each.rank)] == list(range(5000))
        assert [zone for each in zones for zone in each.mine] == list(range(4))
