"""The memory of a whole run, with all its processes: it stays within the limit with any number of threads."""

import sys
from pathlib import Path

import duckdb
import pytest

from recd_dist.table.manifest import Manifest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SAMPLES = 100_000  # 330 MB in memory


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Options for rm1's logs, as they are generated (row groups of 29 MB), and with one row group of 209 MB."""
    folder = tmp_path_factory.mktemp("logs")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        from rm1 import raw_logs

        small = raw_logs(folder, SAMPLES)
    large = folder / "large"
    large.mkdir()
    duckdb.sql(
        f"copy (select * from read_parquet('{small.path}/part-*.parquet')) to '{large}/part-0.parquet' "
        "(row_group_size 122880)"
    )
    return {
        "small": [*small.overrides, "data.source=sql"],
        "large": [*small.overrides[:-1], f"data.path={large}", "data.source=sql"],
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row_groups", "limit", "threads", "num_parts"),
    [
        ("small", "1GB", "6", 3),
        ("small", "1GB", "64", 3),
        ("small", "500MB", "16", 8),
        ("small", "2GB", "null", 2),
        ("large", "1GB", "64", 3),
    ],
)
def test_peak_memory(
    logs: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    row_groups: str,
    limit: str,
    threads: str,
    num_parts: int,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from watched import watch_command

    command = [sys.executable, "-m", "recd_dist.cli", "etl", *logs[row_groups], f"data.table={tmp_path / 'table'}"]
    run = watch_command([*command, f"memory_limit={limit}", f"threads={threads}"], tmp_path, 2)
    assert run.code == 0, run.stderr
    made = Manifest.load(tmp_path / "table" / "train")
    assert made.num_samples == SAMPLES
    assert len(made.parts) == num_parts
    most = {"500MB": 500e6, "1GB": 1e9, "2GB": 2e9}[limit]
    assert run.peak_bytes < most
