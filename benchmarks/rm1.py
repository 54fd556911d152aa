"""Raw logs of the rm1 preset, made once into a directory and used again: the data of the storage and ETL claims.

The preset is ours, modelled on RecD's words; its own models are not public.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq

from recd_dist.etl.source.source import Source
from recd_dist.job.config import EtlConfig, load
from recd_dist.synthetic.logs import generate
from recd_dist.synthetic.spec import SyntheticSpec

SAMPLES_PER_USER = 33
"""As the preset has it at 400,000 samples."""


@dataclass(frozen=True)
class Raw:
    """Raw logs.

    Attributes:
        overrides: of recd etl, which make them the source; ``data.table`` is not among them.
        source: the same for Python, all samples in one table.
        path: their directory.
        num_samples: rows.
        disk_bytes: of their Parquet files.
        arrow_bytes: of their rows in memory, uncompressed; reckoned from some of them.
    """

    overrides: list[str]
    source: Source
    path: Path
    num_samples: int
    disk_bytes: int
    arrow_bytes: int


def raw_logs(directory: Path, num_samples: int, preset: str = "rm1") -> Raw:
    """Makes the raw logs unless they are there.

    Args:
        directory: where they are kept.
        num_samples: rows.
        preset: of configs/data.
    """
    path = directory / "raw" / f"{preset}-{num_samples}"
    overrides = [
        f"data={preset}",
        "data.split=null",
        f"data.synthetic.num_samples={num_samples}",
        f"data.synthetic.num_users={max(100, num_samples // SAMPLES_PER_USER)}",
        f"data.path={path}",
    ]
    config: EtlConfig = load("etl", overrides)
    path.parent.mkdir(parents=True, exist_ok=True)
    generate(SyntheticSpec.from_dict(config.data.synthetic), path, seed=config.seed, progress=False)
    files = files_of(path)
    looked_at = [pq.ParquetFile(file).read_row_group(0) for file in files[:4]]
    per_sample = sum(rows.nbytes for rows in looked_at) / sum(rows.num_rows for rows in looked_at)
    elsewhere = ("source", "table", "tables", "synthetic")
    source = Source.from_dict({k: v for k, v in asdict(config.data).items() if k not in elsewhere})
    disk_bytes = sum(file.stat().st_size for file in files)
    return Raw(overrides, source, path, num_samples, disk_bytes, round(per_sample * num_samples))


def files_of(raw: Path) -> list[Path]:
    """The files of raw logs, in time order."""
    return sorted(raw.glob("part-*.parquet"))
