"""Defaults of the reader that the options of a job share; this module loads no torch."""

SHUFFLE_WINDOW = 8
"""Row groups whose sessions are shuffled among each other."""

PREFETCH = 4
"""Batches that each worker reads ahead."""
