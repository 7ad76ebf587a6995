"""How a track's mel is stored: every frame that neighbouring segments share stands once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etude.audio.recipe import FeatureRecipe


@dataclass(frozen=True)
class Layout:
    """Where the frames of a track stand; a pure function of its length and the recipe.

    1. The `n_shared` frames on the grid of the whole track, from the first frame that does not reach over
       the start of the first segment to the last that does not reach over the end of the last grid segment.
    2. For each of the `n_grid` segments on the grid, its `n_left` first and its `n_right` last frames, which
       see the segment's own samples reflected at its end and so belong to it alone.
    3. The tail segment whole, if the track is longer than one segment and ends off the grid.
    """

    n_frames: int  # of a segment
    frames_per_hop: int
    n_left: int
    n_right: int
    n_grid: int
    n_segments: int
    has_tail: bool

    @property
    def n_shared(self) -> int:
        """Frames in part 1."""
        return (self.n_grid - 1) * self.frames_per_hop + self.n_frames - self.n_left - self.n_right

    @property
    def n_edges(self) -> int:
        """Frames in part 2."""
        return self.n_grid * (self.n_left + self.n_right)

    @property
    def n_stored(self) -> int:
        """Frames in all."""
        return self.n_shared + self.n_edges + self.has_tail * self.n_frames

    def places(self, i: int) -> list[tuple[slice, slice]]:
        """Segment i in pieces: which frames of the segment stand in which frames of the track.

        Raises IndexError beyond the last segment.
        """
        if not 0 <= i < self.n_segments:
            raise IndexError(f"segment {i} of a track of {self.n_segments}")
        if i == self.n_grid and self.has_tail:
            return [(slice(0, self.n_frames), slice(self.n_shared + self.n_edges, self.n_stored))]
        i = min(i, self.n_grid - 1)  # a tail on the grid repeats the segment before it
        shared = i * self.frames_per_hop
        edge = self.n_shared + i * (self.n_left + self.n_right)
        end = self.n_frames - self.n_right
        return [
            (slice(0, self.n_left), slice(edge, edge + self.n_left)),
            (slice(self.n_left, end), slice(shared, shared + end - self.n_left)),
            (slice(end, self.n_frames), slice(edge + self.n_left, edge + self.n_left + self.n_right)),
        ]


def layout_of(n_samples: int, recipe: FeatureRecipe) -> Layout:
    """The layout of a track of `n_samples` at the recipe's rate.

    Raises ValueError if the hop between segments is not a whole number of frames.
    """
    if recipe.hop_samples % recipe.hop_length:
        raise ValueError(
            f"hop_samples ({recipe.hop_samples}) must be a multiple of hop_length ({recipe.hop_length}), "
            "or neighbouring segments share no frames"
        )
    half = recipe.n_fft // 2
    beyond = max(n_samples - recipe.segment_samples, 0)
    n_grid = 1 + beyond // recipe.hop_samples
    return Layout(
        n_frames=recipe.n_frames,
        frames_per_hop=recipe.frames_per_hop,
        n_left=-(-half // recipe.hop_length),
        n_right=recipe.n_frames - 1 - (recipe.segment_samples - half) // recipe.hop_length,
        n_grid=n_grid,
        n_segments=n_grid + (beyond > 0),
        has_tail=beyond % recipe.hop_samples > 0,
    )


@dataclass(frozen=True, eq=False)
class TrackMel:
    """A track's log-mel: frames [n_stored, n_mels] in dB, laid out as `Layout` says.

    The frames may be float32, as computed, or float16, as stored, and may be a memory-mapped array: nothing
    is copied until a segment is asked for. Raises ValueError if their shape is not the layout's.
    """

    frames: NDArray[np.float32] | NDArray[np.float16]
    n_samples: int
    recipe: FeatureRecipe

    def __post_init__(self) -> None:
        expected = (self.layout.n_stored, self.recipe.n_mels)
        if self.frames.shape != expected:
            raise ValueError(
                f"a track of {self.n_samples} samples has mel frames of shape {expected}, "
                f"not {self.frames.shape}; was it made with another recipe?"
            )

    @property
    def layout(self) -> Layout:
        """Where the frames stand."""
        return layout_of(self.n_samples, self.recipe)

    def __len__(self) -> int:
        return self.layout.n_segments

    def segment(self, i: int) -> NDArray[np.float32]:
        """The mel [n_mels, n_frames] of segment i, as if computed from that segment alone.

        Raises IndexError beyond the last segment.
        """
        mel = np.empty((self.recipe.n_mels, self.recipe.n_frames), np.float32)
        for in_segment, in_track in self.layout.places(i):
            mel[:, in_segment] = self.frames[in_track].T
        return mel

    def segments(self) -> NDArray[np.float32]:
        """All segments [n_segments, n_mels, n_frames]."""
        return np.stack([self.segment(i) for i in range(len(self))])
