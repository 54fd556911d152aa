"""Reading without training: counts that are exact, times by a clock of the test's own, and hints that fit."""

from dataclasses import replace
from itertools import count

import pytest
from rich.console import Console

from recd_dist.errors import ConfigError
from recd_dist.reader.stages import STAGES, WORK
from recd_dist.train.reader_bench import ReaderSpeed, measure_reader
from recd_dist.train.reader_bench_text import codec_of, render

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def speed(**changes) -> ReaderSpeed:
    stages = dict.fromkeys(STAGES, 0.1) | {"decode": 1.6}
    return replace(
        ReaderSpeed(0.5, 2.0, 100, 50_000, 10**6, 3, 2**30, 2**28, {"user": 4.5}, stages, {}), **changes
    )  # fmt: skip


def text(*arguments) -> str:
    console = Console(width=120, no_color=True)
    with console.capture() as captured:
        console.print(render(*arguments))
    return captured.get()


def test_it_reads_epoch_after_epoch_and_counts_what_it_reads(checked) -> None:
    job = checked("batch_size=300")
    ticks = count()
    found = measure_reader(job, 60, step_ms=1000, clock=lambda: float(next(ticks)))
    assert (found.num_batches, found.elapsed_s, found.step_ms) == (59, 60, 1000)
    assert found.num_samples <= 59 * 300
    assert found.epochs > 1
    assert found.batch_bytes > found.num_ids * 4
    assert found.table_bytes == round(job.manifest.num_bytes * found.num_samples / job.manifest.num_samples)
    assert found.dedup_factor["history"] > 1
    assert all(found.stage_s[stage] > 0 for stage in ("decode", "convert", "collate"))
    assert found.wait_share(508) == pytest.approx(1 - 508 / (60_000 / 59))
    assert found.wait_share(2000) == 0
    assert sum(found.stage_shares.values()) == pytest.approx(1)
    assert {"samples_per_s", "batch_ms", "stage_shares", "wait_share"} <= set(found.to_json())
    assert codec_of(job) == "ZSTD"


def test_batches_by_work_are_refused(checked) -> None:
    with pytest.raises(ConfigError, match=r"reader\.batches=work: .* add reader\.batches=samples"):
        measure_reader(checked("reader.batches=work"), 1)


def test_the_table_has_bars_and_waits() -> None:
    shown = text(speed(step_ms=5.0), "mine/train", 0, "ZSTD", 4)
    lines = {line.split()[0]: line for line in shown.splitlines() if line.split()}
    assert "mine/train: 25.0k samples/s, 50.0 batches/s of 500 samples" in shown
    assert "512 MiB/s of tensors, from 128 MiB/s of the table's files" in shown
    assert "80%  ████████████████████████  " in lines["decode"]
    assert lines["queue"].split()[2] == "-"
    assert lines["5"].split() == ["5", "75%"]  # a batch takes 20 ms
    assert lines["30"].split() == ["30", "0%"]


@pytest.mark.parametrize(
    ("changes", "num_workers", "codec", "said"),
    [
        ({}, 0, "ZSTD", "the table has zstd: `recd etl ... compression=lz4 overwrite=true`"),
        ({}, 0, "ZSTD", "reader.num_workers=2"),
        ({}, 4, "LZ4", "reader.num_workers=4 on 4 cores"),
        ({"step_ms": 40.0}, 0, "LZ4", "at 40 ms a step training waits for nothing"),
        ({"dedup_factor": {"user": 1.01}}, 2, "LZ4", "group 'user' hardly repeats in a batch (1.01)"),
        ({"skipped": {"city: not in its vocabulary": 1200}}, 2, "LZ4", "city: not in its vocabulary: 1,200 so far"),
        *(
            ({"stage_s": dict.fromkeys(STAGES, 0.1) | {stage: 9.0}}, 2, None, f"{stage} takes most of the work")
            for stage in WORK
        ),
    ],
)
def test_hints_name_the_remedy(changes, num_workers, codec, said) -> None:
    assert said in text(speed(**changes), "mine/train", num_workers, codec, 4)


def test_no_hint_about_compression_that_is_fast_already() -> None:
    assert "compression=lz4" not in text(speed(), "mine/train", 0, "LZ4", 4)
