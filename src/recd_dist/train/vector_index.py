"""An index of vectors for neighbours by inner product, by FAISS, and how much of the exact answer it finds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recd_dist.errors import ConfigError, nearest

KINDS = ("flat", "hnsw", "ivf")
"""All vectors, a graph of neighbours, or lists around centres."""

_LINKS, _BUILD, _SEARCH = 32, 200, 128  # hnsw: links of a vector, and candidates while building and searching
_LEAST_IN_LIST = 39  # ivf: vectors of a list, at least, that FAISS wants to find its centre
_SEARCHED = 8  # ivf: one of so many lists is searched


def check_index(kind: str) -> None:
    """Refuses a kind of index that there is not, or one that cannot be made here.

    Raises:
        ConfigError: the kind is unknown, or FAISS is not installed.
    """
    if kind not in KINDS:
        raise ConfigError(f"index={kind}: unknown{nearest(kind, KINDS)}; one of {', '.join(KINDS)}")
    _faiss()


def build_index(kind: str, vectors: NDArray[np.float32]) -> Any:
    """An index whose row n is vector n.

    Args:
        kind: one of ``KINDS``.
        vectors: float32 [N, D].
    """
    faiss, (num, width) = _faiss(), vectors.shape
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = _BUILD, _SEARCH
    elif kind == "ivf":
        lists = max(min(round(4 * num**0.5), num // _LEAST_IN_LIST), 1)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.nprobe = max(lists // _SEARCHED, 1)
    else:
        index = faiss.IndexFlatIP(width)
    index.add(vectors)
    return index


def write_index(index: Any, path: Path) -> None:
    """Writes an index as ``faiss.read_index`` takes it."""
    _faiss().write_index(index, str(path))


def measure_recall(
    index: Any, vectors: NDArray[np.float32], queries: NDArray[np.float32], top: Sequence[int]
) -> dict[str, float]:
    """The share of the exact neighbours that an index finds, by the number K of neighbours.

    Args:
        index: the index of the vectors.
        vectors: float32 [N, D].
        queries: float32 [Q, D].
        top: the numbers K; those above N are left out, but N counts where all are.
    """
    known = [k for k in dict.fromkeys(top) if k <= len(vectors)] or [len(vectors)]
    exact = build_index("flat", vectors).search(queries, max(known))[1]
    found = index.search(queries, max(known))[1]
    shares = {}
    for k in known:
        hits = [len(np.intersect1d(a[:k], b[:k])) for a, b in zip(exact, found, strict=True)]
        shares[str(k)] = round(float(np.mean(hits)) / k, 6)
    return shares


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError("index: FAISS is not installed; pip install 'recd-dist[index]'") from error
    return faiss
