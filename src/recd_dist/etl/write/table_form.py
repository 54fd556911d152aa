"""What every part of a table has in common."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.source.source_options import NEWEST
from recd_dist.table.schema import Schema


@dataclass(frozen=True)
class TableForm:
    """What every part of a table has in common.

    Attributes:
        schema: the schema of the table. It is final: single ids that can be missing are lists, automatic groups have
            names, and each history is marked that is stored as windows.
        types: the stored type of each feature.
        lookups: for each group with its own query the rows of that query.
        row_group_samples: the number of samples that a row group should have.
        compression: ``zstd``, ``lz4``, or one level of these, such as ``zstd:6``.
        readable_by: the engines that can read the table, ``newest`` or ``any``.
        encodings: the chosen encoding of each directory and column (by its leaf). For a directory that is absent, each
            part tries the encodings on its own first rows.
    """

    schema: Schema
    types: dict[str, pa.DataType]
    lookups: dict[str, Lookup]
    row_group_samples: int
    compression: str
    readable_by: str = NEWEST
    encodings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
