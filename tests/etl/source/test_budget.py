"""The memory of a run: what each step may take, whatever the number of cores."""

import pytest

from recd_dist.errors import ConfigError
from recd_dist.etl.raw.duckdb_memory import fitting_threads
from recd_dist.etl.source import budget
from recd_dist.etl.source.budget import Budget

BASE = 380_000_000
LARGE = 1 << 40


@pytest.fixture(autouse=True)
def _large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "usable_memory", lambda: LARGE)
    monkeypatch.setattr(budget, "usable_cores", lambda: 64)


@pytest.mark.parametrize("limit", ["500MB", "600MB", "1GB", "4GB", "16GB", "256GB"])
def test_parts_do_not_depend_on_the_cores_and_all_steps_fit(limit: str) -> None:
    budgets = [Budget.of(limit, threads) for threads in (1, 2, 6, 16, 64, None)]
    assert len({b.shard_bytes for b in budgets}) == 1
    for each in budgets:
        reading = each.engine_bytes + 3 * each.buffer_bytes
        writing = each.num_threads * 2.2 * each.shard_bytes
        assert BASE + max(reading, writing) <= each.limit * 1.001


@pytest.mark.parametrize(
    ("limit", "threads", "shard_mb"), [("500MB", 1, 54), ("1GB", 2, 140), ("4GB", 4, 339), ("16GB", 10, 704)]
)
def test_shards_and_writers_grow_with_the_memory(limit: str, threads: int, shard_mb: int) -> None:
    made = Budget.of(limit)
    assert (made.num_threads, made.shard_bytes // 1_000_000) == (threads, shard_mb)
    assert Budget.of(limit, 1).num_threads == 1


def test_a_container_with_less_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "usable_memory", lambda: 800_000_000)
    assert Budget.of("1GB").limit == 720_000_000
    assert Budget.of("700MB").limit == 700_000_000
    monkeypatch.setattr(budget, "usable_memory", lambda: 512 << 20)
    assert Budget.of("1GB").limit == 500_000_000
    monkeypatch.setattr(budget, "usable_memory", lambda: 400_000_000)
    with pytest.raises(ConfigError, match="memory_limit=1GB: 400 MB are too little; 500MB is the least"):
        Budget.of("1GB")


@pytest.mark.parametrize(("megabytes", "wanted", "threads"), [(60, 64, 1), (310, 64, 2), (310, 1, 1), (8000, 64, 62)])
def test_threads_of_duckdb(megabytes: int, wanted: int, threads: int) -> None:
    assert fitting_threads(megabytes * 1_000_000, wanted) == threads
