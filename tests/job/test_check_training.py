"""What is wrong with optimizers, schedules and precision is one error before a rank starts."""

from pathlib import Path

import pytest

from recd_dist.errors import ConfigError
from recd_dist.job import preflight
from recd_dist.job.config import load


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.dense.weight_decay=-1"], r"optim.dense.weight_decay=-1.0: must be at least 0, and finite"),
        (["optim.dense.weight_decay=nan"], r"optim.dense.weight_decay=nan: must be at least 0, and finite"),
        (["optim.tables.eps=0"], r"optim.tables.eps=0.0: must be above 0, and finite"),
        (["optim.tables.lr=inf"], r"optim.tables.lr=inf: must be above 0, and finite"),
        (["optim.dense.lr=0"], r"optim.dense.lr=0.0: must be above 0"),
        (["optim.tables.weight_decay=0.1"], r"optim.tables.weight_decay=0.1: .* use optim.dense.weight_decay, or 0"),
        (["optim.clip_norm=0"], r"optim.clip_norm=0.0: must be above 0, or null"),
        (["optim.ema=1"], r"optim.ema=1.0: .* such as 0.999; must be above 0 and below 1, or null"),
        (["optim.dense.schedule.warmup_steps=-1"], r"warmup_steps=-1: must be at least 0"),
        (["optim.dense.schedule.decay=cosin"], r"optim.dense.schedule.decay=cosin: unknown.*did you mean 'cosine'"),
        (
            ["optim.tables.schedule.decay=linear", "batch_size=100"],
            r"Add optim.tables.schedule.decay_steps=\d\d, which are those of an epoch",
        ),
        (["optim.dense.schedule.decay_steps=9"], r"decay_steps=9: decay=none has no end"),
        (["optim.dense.schedule.decay=inverse_root"], r"add optim.dense.schedule.warmup_steps=1000"),
        (["optim.dense.schedule.end=1.5"], r"end=1.5: must be at least 0 and at most 1"),
        (["optim.dense.schedule.decay=exponential", "optim.dense.schedule.decay_steps=9"], r"end=0.0: must be above 0"),
        (
            ["optim.dense.schedule.warmup_steps=9", "optim.dense.schedule.decay_from=3"],
            r"decay_from=3: the rate rises until step 9",
        ),
        (["precision=fp16"], r"precision=fp16: unknown.*'bf16'"),
        (["micro_batches=0"], r"micro_batches=0: must be from 1 to batch_size, which is 1024"),
        (["micro_batches=2", "model.batch_norm=true"], r"each part would be normalised by itself.*choose one of them"),
    ],
)
def test_what_is_wrong(tiny: list[str], tmp_path: Path, overrides: list[str], message: str) -> None:
    config = load("train", [*tiny, f"run_dir={tmp_path}", *overrides])
    with pytest.raises(ConfigError, match=message):
        preflight.check(config)


def test_what_is_right(tiny: list[str], tmp_path: Path) -> None:
    right = ["optim.dense.schedule.decay=cosine", "optim.dense.schedule.decay_steps=9", "optim.clip_norm=1"]
    preflight.check(load("train", [*tiny, f"run_dir={tmp_path}", *right, "optim.ema=0.99"]))
