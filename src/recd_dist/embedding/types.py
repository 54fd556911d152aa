"""Sharding types by their short names; no torch, so that a job is checked without it."""

TYPES = {
    "TW": "table_wise",
    "RW": "row_wise",
    "CW": "column_wise",
    "TWCW": "table_column_wise",
    "TWRW": "table_row_wise",
    "GRID": "grid_shard",
    "DP": "data_parallel",
}
"""Sharding types offered, by short name, in TorchRec's spelling."""
