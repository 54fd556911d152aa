"""An index of vectors for neighbours by inner product, by FAISS, and how much of the exact answer it finds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recd_dist.errors import ConfigError, nearest

KINDS = ("flat", "hnsw", "ivf")
"""All vectors, a graph of neighbours, or lists around centres."""

_LINKS, _BUILD = 48, 400  # hnsw: links of a vector, and candidates while building
_LEAST_IN_LIST = 39  # ivf: vectors of a list, at least, that FAISS wants to find its centre
_LEAST_EFFORT = {"hnsw": 64, "ivf": 1}  # candidates of a search, and lists that are searched
_MOST_EFFORT = 4096
TARGET = 0.95
"""The recall for whose sake a search makes more effort."""


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
        index.hnsw.efConstruction = _BUILD
    elif kind == "ivf":
        lists = max(min(round(4 * num**0.5), num // _LEAST_IN_LIST), 1)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
    else:
        index = faiss.IndexFlatIP(width)
    index.add(vectors)
    return index


def write_index(index: Any, path: Path) -> None:
    """Writes an index as ``faiss.read_index`` takes it."""
    _faiss().write_index(index, str(path))


def tune_index(
    kind: str, index: Any, vectors: NDArray[np.float32], queries: NDArray[np.float32], top: Sequence[int]
) -> dict[str, Any]:
    """Sets how much effort a search makes, as little as finds enough, and measures what it finds then.

    Args:
        kind: one of ``KINDS``.
        index: the index of the vectors, which keeps the setting when it is written.
        vectors: float32 [N, D].
        queries: float32 [Q, D]; every second one chooses the effort, the others are measured.
        top: the numbers K of neighbours; those above N are left out, but N counts where all are.

    Returns:
        ``recall`` by K, the number of queries, and the setting under its name in FAISS.
    """
    known = [k for k in dict.fromkeys(top) if k <= len(vectors)] or [len(vectors)]
    exact = build_index("flat", vectors).search(queries, max(known))[1]
    chooses = np.arange(len(queries)) % 2 == (0 if len(queries) > 1 else 1)
    setting: dict[str, int] = {}
    if kind in _LEAST_EFFORT:
        owner, name = (index.hnsw, "efSearch") if kind == "hnsw" else (index, "nprobe")
        most = min(_MOST_EFFORT, len(vectors) if kind == "hnsw" else index.nlist)
        effort = min(_LEAST_EFFORT[kind], most)
        while True:
            setattr(owner, name, effort)
            found = _recall(index, queries[chooses], exact[chooses], known)
            if effort == most or min(found.values()) >= TARGET:
                break
            effort = min(2 * effort, most)
        setting = {name: effort}
    recall = _recall(index, queries[~chooses], exact[~chooses], known)
    return {"recall": recall, "num_queries": int((~chooses).sum()), **setting}


def _recall(index: Any, queries: NDArray[np.float32], exact: NDArray[np.int64], top: Sequence[int]) -> dict[str, float]:
    """The share of the exact neighbours that an index finds, by their number."""
    if not len(queries):
        return {str(k): 1.0 for k in top}
    found, shares = index.search(queries, max(top))[1], {}
    for k in top:
        hits = [len(np.intersect1d(a[:k], b[:k])) for a, b in zip(exact, found, strict=True)]
        shares[str(k)] = round(float(np.mean(hits)) / k, 6)
    return shares


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError("index: FAISS is not installed; pip install 'recd-dist[index]'") from error
    return faiss
