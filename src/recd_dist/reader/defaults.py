"""Defaults that the reader and the options of a job share, without loading torch."""

SHUFFLE_WINDOW = 8
"""Row groups whose sessions are shuffled among each other."""

PREFETCH = 4
"""Batches that each worker reads ahead."""
