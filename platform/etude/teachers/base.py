"""What every teacher offers: frozen vectors for a student to learn from."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from etude.audio.decode import Audio
from etude.audio.segment import Segments
from etude.sources.base import Track


@dataclass(frozen=True)
class Targets:
    """One track as its teacher hears it."""

    segments: NDArray[np.float32]  # [n_segments, dim]
    track: NDArray[np.float32]  # [dim]


class Frozen(Protocol):
    """A frozen model. Loading is its constructor's work, which raises UserError if files are missing."""

    @property
    def id(self) -> str:
        """Name and hash of the weights: it names what is kept of its vectors."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def normalized(self) -> bool:
        """True if the vectors have length 1, so that a student's must too."""
        ...

    @property
    def license(self) -> str:
        """Licence of the weights, for the model card."""
        ...


class Teacher(Frozen, Protocol):
    """A frozen model of music."""

    @property
    def anchors(self) -> NDArray[np.float32] | None:
        """Directions [n, dim] of length 1 that have a meaning in the teacher's space, or None without any."""
        ...

    def embed(self, audio: Audio, segments: Segments, track: Track) -> Targets:
        """Targets for every segment and for the whole track, as the teacher's own users compute them.

        `track` is for teachers that know vectors by name instead of listening. Raises BadAudio if the audio,
        or the vector that is known, cannot serve.
        """
        ...
