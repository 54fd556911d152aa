"""Raw logs of the rm1 preset, the data of the storage and ETL claims; made once and used again.

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
"""The preset has as many at 400,000 samples."""


@dataclass(frozen=True)
class Raw:
    """Raw logs.

    Attributes:
        overrides: the overrides that make the logs the source of recd etl; ``data.table`` is not among them.
        source: the source for Python, with all samples in one table.
        path: the directory of the logs.
        num_samples: the number of rows.
        disk_bytes: the size of the Parquet files.
        arrow_bytes: the size of the rows in memory, uncompressed, estimated from some of them.
    """

    overrides: list[str]
    source: Source
    path: Path
    num_samples: int
    disk_bytes: int
    arrow_bytes: int


def raw_logs(directory: Path, num_samples: int, preset: str = "rm1") -> Raw:
    """The raw logs, which are made unless they exist.

    Args:
        directory: where the logs are kept.
        num_samples: the number of rows.
        preset: the name of the data config, a file of configs/data.
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
    row_groups = [pq.ParquetFile(file).read_row_group(0) for file in files[:4]]
    per_sample = sum(rows.nbytes for rows in row_groups) / sum(rows.num_rows for rows in row_groups)
    source = Source.from_dict(asdict(config.data))
    disk_bytes = sum(file.stat().st_size for file in files)
    return Raw(overrides, source, path, num_samples, disk_bytes, round(per_sample * num_samples))


def files_of(raw: Path) -> list[Path]:
    """The files of raw logs, in time order."""
    return sorted(raw.glob("part-*.parquet"))
