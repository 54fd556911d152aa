"""Exactly once, counted."""

from pathlib import Path

import numpy as np
import pytest

from recd_dist.errors import DataError
from recd_dist.train.seen_records import EpochCount, SeenRecords, count_trained


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def file(run_dir: Path, attempt: int) -> Path:
    return sorted((run_dir / "seen").iterdir())[attempt] / "rank-00000.bin"


def test_one_attempt(tmp_path: Path) -> None:
    with SeenRecords(tmp_path, start_step=0) as seen:
        seen.append(0, 1, ids(0, 2))
        seen.append(0, 2, ids(1, 2))
        seen.append(1, 3, ids(0, 1, 2, 3))
    assert count_trained(tmp_path, 4) == [EpochCount(0, 4, 1, 2, 1), EpochCount(1, 4, 0, 4, 0)]
    assert [c.is_exact for c in count_trained(tmp_path, 4)] == [False, True]


def test_a_later_attempt_undoes_the_steps_beyond_its_start(tmp_path: Path) -> None:
    """Killed at step 3, resumed from the checkpoint of step 1 twice, the first of them killed at once."""
    with SeenRecords(tmp_path, start_step=0) as seen:
        for step, batch in enumerate((ids(0, 1), ids(2, 3), ids(4, 5)), start=1):
            seen.append(0, step, batch)
    with SeenRecords(tmp_path, start_step=1) as seen:
        seen.append(0, 2, ids(4, 5))
    with SeenRecords(tmp_path, start_step=1) as seen:
        seen.append(0, 2, ids(5, 4))
        seen.append(0, 3, ids(3, 2))
    assert count_trained(tmp_path, 6) == [EpochCount(0, 6, 0, 6, 0)]


def test_an_attempt_from_before_an_earlier_resume(tmp_path: Path) -> None:
    """0..4, resumed from 3, then again from 1 (the checkpoint of step 3 was lost)."""
    with SeenRecords(tmp_path, start_step=0) as seen:
        for step in (1, 2, 3, 4):
            seen.append(0, step, ids(step - 1))
    with SeenRecords(tmp_path, start_step=3) as seen:
        seen.append(0, 4, ids(3))
    with SeenRecords(tmp_path, start_step=1) as seen:
        for step in (2, 3, 4):
            seen.append(0, step, ids(5 - step))
    assert count_trained(tmp_path, 4) == [EpochCount(0, 4, 0, 4, 0)]


@pytest.mark.parametrize("num_bytes_kept", range(0, 56, 5))
def test_torn_record_ends_its_file(tmp_path: Path, num_bytes_kept: int) -> None:
    """Header and two ids are 56 bytes: any shorter tail is dropped."""
    with SeenRecords(tmp_path, start_step=0) as seen:
        seen.append(0, 1, ids(0, 1))
        seen.append(0, 2, ids(2, 3))
    path = file(tmp_path, 0)
    path.write_bytes(path.read_bytes()[: 56 + num_bytes_kept])
    assert count_trained(tmp_path, 4) == [EpochCount(0, 4, 2, 2, 0)]


def test_damaged_ids_do_not_count(tmp_path: Path) -> None:
    with SeenRecords(tmp_path, start_step=0) as seen:
        seen.append(0, 1, ids(0, 1))
        seen.append(0, 2, ids(2, 3))
    data = bytearray(file(tmp_path, 0).read_bytes())
    data[-8] = 0
    file(tmp_path, 0).write_bytes(data)
    assert count_trained(tmp_path, 4) == [EpochCount(0, 4, 2, 2, 0)]


def test_flushed_records_are_there_before_close(tmp_path: Path) -> None:
    seen = SeenRecords(tmp_path, start_step=0, flush_every=2)
    seen.append(0, 1, ids(0))
    assert count_trained(tmp_path, 4) == []
    seen.append(0, 2, ids(1))
    assert count_trained(tmp_path, 4) == [EpochCount(0, 4, 2, 2, 0)]
    seen.append(0, 3, ids(2))
    seen.flush()
    assert count_trained(tmp_path, 4) == [EpochCount(0, 4, 1, 3, 0)]
    seen.close()


def test_wrong_table(tmp_path: Path) -> None:
    with SeenRecords(tmp_path, start_step=0) as seen:
        seen.append(0, 7, ids(0, 9))
    with pytest.raises(DataError, match=r"step 7: sample ids 0\.\.9 leave the table of 4 samples"):
        count_trained(tmp_path, 4)
    with pytest.raises(DataError, match="no records of trained samples"):
        count_trained(tmp_path / "elsewhere", 4)
