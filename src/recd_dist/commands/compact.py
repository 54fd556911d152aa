"""``recd compact``: small parts of a table become few large ones."""

import argparse
import sys

from recd_dist.commands.command import Command
from recd_dist.screen.console import console
from recd_dist.table.location import location
from recd_dist.table.manifest import Manifest, splits_of


def run(options: argparse.Namespace) -> int:
    """Merges small parts, and says what came of it."""
    config = COMMAND.load_config(options)
    from recd_dist.etl.compaction import compact
    from recd_dist.etl.etl_run import Options

    root = location(config.data.table)
    before = {split: Manifest.load(root / split) for split in splits_of(root)}
    how = Options(config.row_group_samples, config.compression, config.memory_limit, config.threads)
    for split, manifest in compact(root, how).items():
        console(sys.stdout).print(
            f"{root}/{split}: {_parts(before[split])}, "
            f"{'none to merge' if manifest == before[split] else f'now {len(manifest.parts)}'}; "
            f"{manifest.num_samples:,} samples, {manifest.num_bytes / 2**20:.1f} MiB",
            highlight=False,
            soft_wrap=True,
        )
    return 0


def _parts(manifest: Manifest) -> str:
    return "1 part" if len(manifest.parts) == 1 else f"{len(manifest.parts)} parts"


COMMAND = Command(
    name="compact",
    summary="small parts of a table that was added to often -> few large ones",
    details="Samples and their order inside a session stay; readers see the old parts until the new ones stand.",
    examples=("recd compact data=mine", "recd compact data.table=tables/mine row_group_samples=16384"),
    run=run,
    config="etl",
)
