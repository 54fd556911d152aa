"""The numbers of a reader as text: a table with bars, and hints for what dominates."""

from collections.abc import Iterator

from rich.console import Group
from rich.text import Text

from recd_dist.job.job import Job
from recd_dist.reader.stages import STAGES, WORK
from recd_dist.screen.numbers import count, milliseconds, size
from recd_dist.screen.plain_table import PlainTable
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.stats.disk import open_file
from recd_dist.train.reader_bench import ReaderSpeed

_BAR = 30  # letters of the longest bar
_FEW = 1.2  # a dedup factor below which a group is hardly worth it
_STEPS_MS = (1, 3, 10, 30, 100)
_MEANING = {
    "io": "bytes from disk or store",
    "decode": "Parquet to Arrow",
    "convert": "Arrow to columns",
    "transform": "transforms, hashing, checks",
    "collate": "batches of unique rows",
    "queue": "waited for room: nobody was faster",
}


def render(speed: ReaderSpeed, name: str, num_workers: int, codec: str | None, cores: int) -> Group:
    """What was measured, and hints.

    Args:
        speed: what was measured.
        name: the table.
        num_workers: reading processes.
        codec: the compression of the table's files; None where it is not known.
        cores: cores of this machine.
    """
    per_s, mean = speed.num_batches / speed.elapsed_s, speed.num_samples / max(speed.num_batches, 1)
    tensors, files = (size(each / speed.elapsed_s) for each in (speed.batch_bytes, speed.table_bytes))
    lines = [
        f"{name}: {count(speed.samples_per_s)} samples/s, {per_s:.1f} batches/s of {mean:.0f} samples",
        f"{tensors}/s of tensors, from {files}/s of the table's files, all columns counted",
        f"first batch after {speed.first_batch_s:.2f} s; then {speed.elapsed_s:.1f} s, {count(speed.num_samples)} "
        f"samples, {speed.epochs} epochs begun",
        f"dedup factors seen: {', '.join(f'{g} {f:.2f}' for g, f in speed.dedup_factor.items()) or 'no group'}",
    ]
    hints = [Text(f"- {hint}") for hint in _hints(speed, num_workers, codec, cores)]
    return Group(*map(Text, lines), Text(), _stages(speed), _waits(speed), *([Text("hints", "bold"), *hints, Text()]))


def _stages(speed: ReaderSpeed) -> PlainTable:
    """Time by stage, with a bar for the share of each in the work."""
    table = PlainTable("time by stage, all threads and workers", ("stage", "ms a\nbatch", "share of\nwork", "", "what"))
    table.left = ("", "what")
    for stage in STAGES:
        each_ms = 1e3 * speed.stage_s[stage] / max(speed.num_batches, 1)
        share = speed.stage_shares.get(stage)
        shown = ("-", "") if share is None else (f"{100 * share:.0f}%", "█" * round(_BAR * share))
        table.add_row(stage, milliseconds(each_ms), *shown, _MEANING[stage])
    return table


def _waits(speed: ReaderSpeed) -> PlainTable:
    """What share of training would wait, for steps of several lengths."""
    table = PlainTable("training would wait for the reader", ("step, ms", "share of time"))
    steps = sorted({*_STEPS_MS, *([speed.step_ms] if speed.step_ms else [])})
    for step_ms in steps:
        table.add_row(f"{step_ms:g}", f"{100 * speed.wait_share(step_ms):.0f}%")
    table.caption = (
        f"Steps of {speed.batch_ms:.1f} ms and more hide the reader, if it has cores that the step does not use. "
        "--step-ms N adds yours (`speed/step_ms` on the dashboard)."
    )
    return table


def _hints(speed: ReaderSpeed, num_workers: int, codec: str | None, cores: int) -> Iterator[str]:
    """What would make it faster, for what dominates."""
    shares = speed.stage_shares
    first = max(WORK, key=lambda stage: shares[stage])
    if speed.step_ms is not None and not speed.wait_share(speed.step_ms):
        yield f"at {speed.step_ms:g} ms a step training waits for nothing: there is nothing to gain here"
    yield f"{first} takes most of the work ({100 * shares[first]:.0f}%)" + _REMEDIES[first]
    if first == "decode" and codec not in (None, "LZ4", "LZ4_RAW", "UNCOMPRESSED"):
        yield f"the table has {str(codec).lower()}: `recd etl ... compression=lz4 overwrite=true` decodes faster"
    if num_workers == 0 and cores > 1:
        yield f"one thread decodes, one makes batches; reader.num_workers=2 takes two processes (of {cores} cores)"
    if num_workers > 0 and num_workers >= cores:
        yield f"reader.num_workers={num_workers} on {cores} cores: they take the cores of the trainer"
    for group, factor in speed.dedup_factor.items():
        if factor < _FEW:
            yield (
                f"group '{group}' hardly repeats in a batch ({factor:.2f}): a larger batch_size, or "
                f"plan.expand=[{group}]; `recd stats` shows why"
            )
    for what, num in speed.skipped.items():
        yield f"{what}: {num:,} so far, dropped or set to 0"


_REMEDIES = {
    "io": ": a nearer or faster disk; several workers read at once",
    "decode": (
        ": leave out features that the model does not need (data.drop); row groups of `recd etl ... "
        "row_group_samples=32768 overwrite=true`, read with reader.window=2, are fewer and larger pieces"
    ),
    "convert": ": features with weights or of 64 bits are copied; leave out what the model does not need (data.drop)",
    "transform": ": `recd stats` shows what each transform does; what every run needs belongs into the SQL of the ETL",
    "collate": ": larger batches take less of it for each sample",
}


def codec_of(job: Job) -> str | None:
    """The compression of the first column of a table's samples; None of files that the ETL did not write."""
    table = job.table
    if not isinstance(table, ClusteredTable) or not table.manifest.parts:
        return None
    with open_file(table.path, table.manifest.parts[0].samples) as file:
        metadata = file.metadata
    return str(metadata.row_group(0).column(0).compression) if metadata.num_row_groups else None
