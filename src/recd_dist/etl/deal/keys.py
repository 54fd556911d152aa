"""The keys of samples: their columns, and what a source says about them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recd_dist.etl.source.inspection import ORDER_KEY, REQUEST, SAMPLE_KEY, SESSION, TEST, TIMESTAMP
from recd_dist.etl.source.source import Source

I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

HASH, SIZE = "__hash", "__size"
"""Columns that preparing adds: a 64-bit hash of a sample's content (int64), and its bytes in memory (int32)."""

KEY_COLUMNS = (SESSION, REQUEST, TIMESTAMP, ORDER_KEY, SAMPLE_KEY, HASH, SIZE, TEST)
"""The columns from which alone the order and the parts of the table are decided."""


@dataclass(frozen=True)
class Rules:
    """What a source says about its keys.

    Attributes:
        gap_us: the time in microseconds after which the next sample of a session key begins another session. None: the
            session key is the session.
        drop_duplicates: whether a sample is left out that has the sample key of an earlier one or, where the source
            names no sample keys, equals an earlier one in every value.
        fail_on_duplicates: whether the first such sample ends the run.
        share: the share of the sessions that is taken; 1.0 takes all of them.
        partition: ``day``, ``hour`` or an empty string for no partitions.
        test_share: the share of the sessions, the last in time, that is the test split. None: a predicate says which
            samples are test samples, or there is no test split.
        max_session_samples: the number of samples after which a session is cut.
        existing: the partitions that the table has already; new samples of these partitions are late.
        late: what happens to late samples: ``error``, ``keep`` or ``drop``.
    """

    gap_us: int | None = None
    drop_duplicates: bool = False
    fail_on_duplicates: bool = False
    share: float = 1.0
    partition: str = ""
    test_share: float | None = None
    max_session_samples: int = 65536
    existing: frozenset[str] = frozenset()
    late: str = "error"

    @staticmethod
    def of(source: Source, max_session_samples: int, existing: frozenset[str] = frozenset()) -> "Rules":
        """The rules of a source.

        Args:
            source: describes keys and policies.
            max_session_samples: the number of samples after which a session is cut.
            existing: the partitions that the table has already.
        """
        duplicates = source.policy.duplicates
        return Rules(
            gap_us=source.gap_us,
            drop_duplicates=duplicates == "drop",
            fail_on_duplicates=duplicates == "error",
            share=source.sample if source.gap_us is not None else 1.0,  # other sessions are chosen as they are read
            partition=source.partition,
            test_share=source.split if isinstance(source.split, float) else None,
            max_session_samples=max_session_samples,
            existing=existing,
            late=source.policy.late,
        )
