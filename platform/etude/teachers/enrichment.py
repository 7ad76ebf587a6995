"""One vector from a track's windows: how they are on average, how they vary, and where they go.

It is computed when the windows are read, so that both variants come from one pass of the heavy model.

Published (facts/projection_and_emotion.md, a, "Enrichment"): mean, spread and slope under one norm. There the
slope, a mean of differences, is only the last window minus the first; the mean, much the longest, drowns the
two others; and in a library whose tracks are one window each, two thirds of every vector are zeros.
Corrected: the slope is a line through all windows, every block has the same weight, and blocks that are zero
in a whole library are left out.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from etude.config import Section
from etude.errors import UserError

Block = Literal["mean", "spread", "slope"]
Variant = Literal["corrected", "published"]

BLOCKS: tuple[Block, ...] = ("mean", "spread", "slope")
_IQR = 1.3489795003921634  # interquartile range of a normal distribution of standard deviation 1
_NOTHING = 1e-6  # of the longest window: shorter blocks are rounding of float32


class EnrichmentConfig(Section):
    """Which of the two."""

    variant: Variant = "corrected"


class Enrichment(Section):
    """What `fit` found for a library: plain values, for checkpoints and metadata."""

    variant: Variant
    blocks: tuple[Block, ...]  # what a vector is put together from, in this order
    n_tracks: int  # of the library
    n_single: int  # those of them that are one window
    zero: tuple[Block, ...] = ()  # blocks that are zero in every track of it

    @property
    def id(self) -> str:
        """Names what a vector consists of; only those of the same can be compared."""
        return "-".join([self.variant, *self.blocks])

    def dim(self, width: int) -> int:
        """Length of a vector, of windows that have `width` numbers."""
        return len(self.blocks) * width

    def apply(self, windows_TD: NDArray[np.floating]) -> NDArray[np.float32]:
        """The vector [dim] of windows [n_windows, width] in the order of time.

        It has length 1, or is zero where all of its blocks are. Raises ValueError if there are no windows.
        """
        if self.variant == "published":
            return enrich_published(windows_TD)
        found = _corrected_blocks(windows_TD)
        return _unit(np.concatenate([_unit(found[block]) for block in self.blocks])).astype(np.float32)

    def describe(self) -> str:
        """A sentence: what a vector consists of, and what was left out and why."""
        told = f"{self.variant} enrichment: {_words(self.blocks)} of a track's windows"
        if not self.zero:
            return told
        kept = "left out" if self.variant == "corrected" else "kept as published"
        return (
            f"{told}; {_words(self.zero)} {'is' if len(self.zero) == 1 else 'are'} zero in all "
            f"{self.n_tracks} tracks, {self.n_single} of which are one window: {kept}"
        )


def fit(config: EnrichmentConfig, library: Iterable[NDArray[np.floating]]) -> Enrichment:
    """The enrichment for tracks with windows [n_windows, width], which are looked at one by one.

    Raises UserError if there is no track, or every window of all of them is zero.
    """
    n_tracks = n_single = 0
    zero = set(BLOCKS)
    for windows_TD in library:
        n_tracks += 1
        n_single += len(windows_TD) == 1
        if zero:
            found = _corrected_blocks(windows_TD)
            zero -= {block for block in zero if found[block].any()}
    if not n_tracks or zero == set(BLOCKS):
        raise UserError(
            f"nothing can be learned from the {n_tracks} tracks of this audio space, all vectors are zero: "
            "prepare other music"
        )
    blocks = BLOCKS if config.variant == "published" else tuple(one for one in BLOCKS if one not in zero)
    return Enrichment(
        variant=config.variant,
        blocks=blocks,
        n_tracks=n_tracks,
        n_single=n_single,
        zero=tuple(one for one in BLOCKS if one in zero),
    )


def enrich_published(windows_TD: NDArray[np.floating]) -> NDArray[np.float32]:
    """Upstream's vector [3 x width] of windows [n_windows, width], of length 1 or zero.

    The mean, the interquartile range as a standard deviation, and the mean of the differences from window to
    window (zeros for a single one), under one norm. Raises ValueError if there are no windows.
    """
    exact_TD = _checked(windows_TD)
    slope_D = np.diff(exact_TD, axis=0).mean(axis=0) if len(exact_TD) > 1 else np.zeros(exact_TD.shape[1])
    blocks = [exact_TD.mean(axis=0), _spread(exact_TD), slope_D]
    return _unit(np.concatenate(blocks)).astype(np.float32)


def _corrected_blocks(windows_TD: NDArray[np.floating]) -> dict[Block, NDArray[np.float64]]:
    """The blocks [width] each, before they are brought to one length: zero where there is only rounding.

    The slope is what a line through all windows gains from the first to the last. In seconds it would differ
    by a factor, which the norm takes away again, so no hop is asked for. A last window that ends with the
    audio may be nearer to the one before it than the others are; it counts as a whole step all the same.
    """
    exact_TD = _checked(windows_TD)
    steps = len(exact_TD) - 1
    place_T = (np.arange(steps + 1) - steps / 2) / max(steps, 1)
    slope_D = place_T @ exact_TD / (float(place_T @ place_T) or 1.0)
    least = _NOTHING * float(np.linalg.norm(exact_TD, axis=1).max())
    found: dict[Block, NDArray[np.float64]] = {
        "mean": exact_TD.mean(axis=0), "spread": _spread(exact_TD), "slope": slope_D,
    }  # fmt: skip
    return {name: one if np.linalg.norm(one) > least else np.zeros_like(one) for name, one in found.items()}


def _checked(windows_TD: NDArray[np.floating]) -> NDArray[np.float64]:
    if windows_TD.ndim != 2 or not len(windows_TD):
        raise ValueError(f"windows are [n_windows, width] with at least one, not {list(windows_TD.shape)}")
    return np.asarray(windows_TD, np.float64)


def _spread(exact_TD: NDArray[np.float64]) -> NDArray[np.float64]:
    low_D, high_D = np.quantile(exact_TD, [0.25, 0.75], axis=0)
    return np.asarray((high_D - low_D) / _IQR)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The vector at length 1; one that is zero stays zero."""
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else vector


def _words(blocks: tuple[Block, ...]) -> str:
    *first, last = blocks
    return f"{', '.join(first)} and {last}" if first else last
