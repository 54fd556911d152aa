"""What samples cost: as a config gives it, and as measured times tell."""

import numpy as np
import pytest

from recd_dist.errors import ConfigError
from recd_dist.reader.work import PARTS, CountedList, GivenWork, Work, fit_work, to_work


def test_given_costs_are_taken_and_the_others_are_nothing():
    assert Work.of(GivenWork(sample=2, id=0.5)) == Work(sample=2, id=0.5, look=0, pair=0)
    assert Work.of(GivenWork()) is None
    assert to_work(Work(1, 2, 3, 4).to_json()) == Work(1, 2, 3, 4)
    assert to_work(None) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"id": -1.0}, r"reader\.work\.id=-1\.0: must be a number, at least 0"),
        ({"pair": float("nan")}, r"reader\.work\.pair=nan"),
        ({"look": float("inf")}, r"reader\.work\.look=inf"),
        ({"sample": 3.0}, r"only samples cost something.*add reader\.work\.id=\.\.\., or take reader\.batches=samples"),
        ({"sample": 0.0, "id": 0.0}, "only samples cost something"),
    ],
)
def test_nonsense_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        Work.of(GivenWork(**given))


def test_rows_and_looks():
    work, lengths = Work(sample=7, id=2, look=3, pair=10), np.array([0, 1, 4])
    assert work.of_rows(lengths, is_history=True).tolist() == [0, 12, 168]
    assert work.of_rows(lengths, is_history=False).tolist() == [0, 2, 8]
    assert work.of_looks(lengths, is_history=True).tolist() == [0, 3, 12]
    assert work.of_looks(lengths, is_history=False).tolist() == [0, 0, 0]
    assert CountedList("clicks", longest=3).count(lengths).tolist() == [0, 1, 3]


def parts_of(batches: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(100, 1000, batches) for name in PARTS}


def test_costs_are_found_again_beside_a_constant():
    parts, true = parts_of(9), Work(sample=20.0, id=3.0, look=0.0, pair=0.25)
    seconds = 1e-3 + sum(1e-6 * getattr(true, name) * parts[name] for name in PARTS)
    assert fit_work(parts, seconds) == true


def test_no_cost_is_negative_whatever_the_times():
    for seed in range(20):
        work = fit_work(parts_of(9, seed), np.random.default_rng(seed).uniform(0.01, 0.02, 9))
        assert all(value >= 0 for value in work.to_json().values())


def test_a_part_that_never_changes_cannot_be_told_from_a_constant():
    parts = parts_of(9) | {"look": np.zeros(9), "pair": np.full(9, 4.0)}
    assert fit_work(parts, 1e-3 + 5e-6 * parts["id"]) == Work(id=5.0)


def test_the_text_gives_the_same_costs_again():
    assert str(Work(12, 0.31)) == "reader.work.sample=12 reader.work.id=0.31 reader.work.look=0 reader.work.pair=0"
