"""Fewer dimensions for a space that a vector database refuses: the directions in which a library lies.

A query has to be compared with the library's vectors only, so nothing is lost by leaving out of it what is
at right angles to all of them. Where a library has no more tracks than there are directions, its ranking of
any query, a text's that lies far outside as well, is therefore the exact one. Beyond that the directions are
those of its largest variance, and a cosine is off by at most the product of what the track and the query
have outside of them. A random projection knows nothing of the library and needs many times the dimensions:
benchmarks/README.md, "Reduction".
"""

import hashlib
import os
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PASSES = 2  # over the library: a third found no further neighbour with 384 directions for 1,500 tracks
ROWS = 512  # at a time: 157 MB of 76,800 numbers
_NO_PROGRESS: Callable[[int, int, float], None] = lambda done, total, audio_s: None  # noqa: E731


@dataclass(frozen=True, eq=False)
class Reduction:
    """Orthonormal directions [D, d] of a space; `fit_reduction` finds them.

    Reduced vectors have d + 1 numbers. The last is how much of a track lies outside of the directions, and
    is 0 for a query: so both have length 1, and their cosine is that of the track with the part of the query
    inside, exactly.
    """

    basis_Dd: NDArray[np.float32]

    @property
    def dim(self) -> int:
        """Of the reduced vectors."""
        return int(self.basis_Dd.shape[1]) + 1

    @property
    def sha256(self) -> str:
        """Of the directions: vectors that were reduced by others cannot be compared."""
        return digest(self.basis_Dd)

    def tracks(self, vectors_ND: NDArray[np.floating]) -> NDArray[np.float32]:
        """A library's vectors [n, D] as [n, d + 1] of length 1."""
        reduced = np.empty((len(vectors_ND), self.dim), np.float32)
        for rows in _blocks(len(vectors_ND)):
            inside = _unit(vectors_ND[rows]) @ self.basis_Dd
            reduced[rows, :-1] = inside
            reduced[rows, -1] = np.sqrt(np.maximum(1.0 - (inside**2).sum(axis=1), 0.0))
        return reduced

    def queries(self, vectors_ND: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Queries [n, D] as [n, d + 1] of length 1, and the share [n] of each that lies inside.

        A cosine of reduced vectors times the share is the cosine of the whole ones. A query that lies
        outside altogether becomes zeros.
        """
        inside = _unit(vectors_ND) @ self.basis_Dd
        shares = np.linalg.norm(inside, axis=1)
        reduced = np.zeros((len(inside), self.dim), np.float32)
        reduced[:, :-1] = inside / np.maximum(shares, 1e-12)[:, None]
        return reduced, shares

    def save(self, path: Path) -> None:
        """Write the directions with their sha256; the file is there whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                np.savez(file, basis_Dd=self.basis_Dd, sha256=np.array(self.sha256))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def read_reduction(path: Path) -> Reduction | None:
    """The directions in a file that `Reduction.save` wrote, None if it is none, or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            reduction, sha256 = Reduction(arrays["basis_Dd"]), str(arrays["sha256"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return reduction if reduction.sha256 == sha256 else None


def fit_reduction(
    vectors_ND: NDArray[np.floating],
    to: int,
    seed: int = 0,
    progress: Callable[[int, int, float], None] = _NO_PROGRESS,
) -> Reduction:
    """The `to` directions of largest variance about zero of a library's vectors [n, D], of length 1 each.

    Subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4), which starts from as many tracks as
    directions are wanted, drawn by `seed`: up to that number of tracks they are all, and the directions
    span every one. The same seed gives the same up to rounding. Memory: three arrays [D, to] of float32, so
    944 MB for 1,024 of 76,800, of which one is kept; the vectors, which may lie on disk, are read in blocks
    of rows. Time grows with n x D x `to`.
    """
    n, dim = vectors_ND.shape
    drawn = np.sort(np.random.default_rng(seed).permutation(n)[: min(to, dim)])
    start_Dd = np.empty((dim, len(drawn)), np.float32, order="F")
    for rows in _blocks(len(drawn)):
        start_Dd[:, rows] = _unit(vectors_ND[drawn[rows]]).T
    basis_Dd = _orthonormal(start_Dd)
    passes = PASSES if n > len(drawn) else 0
    for done in range(passes):
        grown_Dd = np.zeros_like(basis_Dd, order="F")
        for rows in _blocks(n):
            part = _unit(vectors_ND[rows])
            grown_Dd += part.T @ (part @ basis_Dd)
            progress(done * n + rows.stop, passes * n, 0.0)
        basis_Dd = _orthonormal(grown_Dd)
    return Reduction(basis_Dd)


def recall_lost(
    vectors_ND: NDArray[np.floating], queries_QD: NDArray[np.floating], reduction: Reduction, k: int = 10
) -> float:
    """The share of the k nearest of whole vectors [n, D] that a search among the reduced ones misses.

    It is the mean over queries [q, D]; with fewer than k vectors, 0.
    """
    k = min(k, len(vectors_ND))
    queries = _unit(queries_QD)
    exact = np.concatenate([queries @ _unit(vectors_ND[rows]).T for rows in _blocks(len(vectors_ND))], axis=1)
    reduced = reduction.queries(queries_QD)[0] @ reduction.tracks(vectors_ND).T
    nearest = [np.argsort(-cosines, axis=1, kind="stable")[:, :k] for cosines in (exact, reduced)]
    found = [len(np.intersect1d(a, b)) / k for a, b in zip(*nearest, strict=True)]
    return 1.0 - float(np.mean(found))


def digest(rows_ND: NDArray[np.floating]) -> str:
    """The sha256 of an array [n, d], its kind of numbers and its shape."""
    content = hashlib.sha256(f"{rows_ND.dtype} {rows_ND.shape}".encode())
    for rows in _blocks(len(rows_ND)):
        content.update(rows_ND[rows].tobytes())
    return content.hexdigest()


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + ROWS, n)) for start in range(0, n, ROWS))


def _unit(vectors_ND: NDArray[np.floating]) -> NDArray[np.float32]:
    # In float32, unlike etude.evaluation.metrics.unit, but for the sums: a block in float64 is a large one.
    rows = np.asarray(vectors_ND, np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    unit_ND: NDArray[np.float32] = rows / np.maximum(lengths, 1e-12).astype(np.float32)[:, None]
    return unit_ND


def _orthonormal(columns_Dd: NDArray[np.float32]) -> NDArray[np.float32]:
    """Orthonormal columns that span these, which are overwritten if they lie in Fortran's order."""
    from scipy.linalg import qr  # keeps to float32, where NumPy's takes twice the memory

    q, _ = qr(columns_Dd, mode="economic", overwrite_a=True, check_finite=False)
    return np.asarray(q)
