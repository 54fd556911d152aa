"""Defaults that the reader and the options of a job share, without loading torch."""

SHUFFLE_WINDOW = 8
"""Row groups whose sessions are shuffled among each other."""

PREFETCH = 4
"""Batches that each worker reads ahead."""

COMPRESSIONS = ("none", "lz4", "zstd")
"""How servers may compress the bodies of batches."""

SERVER_PORT = 8815
"""Where ``recd reader`` listens unless it is told otherwise."""
