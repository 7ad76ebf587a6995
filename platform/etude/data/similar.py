"""Tracks that sound alike, by a teacher's vectors."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from etude.evaluation.metrics import unit

BLOCK_BYTES = 64 << 20  # of cosines held at a time
DECIMALS = 6  # float32 leaves no more; beyond them, equal vectors would differ by the order of their sums


def nearest_others(vectors_ND: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """The rows [n, min(k, n - 1)] nearest to each row by cosine, itself left out, nearest first.

    Cosines are compared to six decimals, and equal ones come in the order of their rows. Memory beside the
    vectors is bounded: a block of rows is compared with all at a time. Raises ValueError for a vector that is
    not finite.
    """
    if not np.isfinite(vectors_ND).all():
        raise ValueError("a vector is not finite: nothing can be compared with it")
    unit_ND = unit(vectors_ND).astype(np.float32)
    n = len(unit_ND)
    k = max(0, min(k, n - 1))
    nearest_NK = np.empty((n, k), dtype=np.int64)
    if not k:
        return nearest_NK
    block = max(1, BLOCK_BYTES // (4 * n))
    for start in range(0, n, block):
        cosines_BN = np.round(unit_ND[start : start + block] @ unit_ND.T, DECIMALS)
        for i, cosines_N in enumerate(cosines_BN, start=start):
            cosines_N[i] = -np.inf
            least = np.partition(cosines_N, n - k)[n - k]
            candidates = np.flatnonzero(cosines_N >= least)
            nearest_NK[i] = candidates[np.argsort(-cosines_N[candidates], kind="stable")[:k]]
    return nearest_NK


def similar_tracks(
    track_ids: Sequence[str], vectors_ND: NDArray[np.floating], k: int
) -> dict[str, tuple[str, ...]]:
    """The ids of the k tracks nearest to each track; `vectors_ND` [n, dim] are in the order of the ids."""
    if len(track_ids) != len(vectors_ND):
        raise ValueError(f"{len(track_ids)} tracks have {len(vectors_ND)} vectors: each needs one")
    rows_NK = nearest_others(vectors_ND, k)
    return {
        track_id: tuple(track_ids[i] for i in rows)
        for track_id, rows in zip(track_ids, rows_NK.tolist(), strict=True)
    }
