"""Which pitches a piece uses: what the melody network learns to say."""

import numpy as np
from numpy.typing import NDArray

from etude.emotion.key import Key
from etude.emotion.performance import Performance
from etude.errors import BadAudio

PITCHES = 128


def melody_of(performance: Performance, key: Key) -> NDArray[np.float32]:
    """[128]: the share of the time that each MIDI pitch sounds, the tonic moved to C; sums to 1.

    The piece is moved down by up to six semitones or up by up to five; a pitch that would leave the range
    stays within it, an octave further. Raises BadAudio if only drums play.
    """
    notes = performance.pitched
    if not len(notes.pitch):
        raise BadAudio("only drums play: there is no melody")
    pitch = notes.pitch + to_c(key)
    pitch = np.where(pitch < 0, pitch + 12, np.where(pitch >= PITCHES, pitch - 12, pitch))
    seconds = np.bincount(pitch, weights=notes.length_s, minlength=PITCHES)
    share: NDArray[np.float32] = (seconds / seconds.sum()).astype(np.float32)
    return share


def to_c(key: Key) -> int:
    """Semitones, -6 to 5, that bring the tonic to C."""
    return -key.tonic if key.tonic <= 6 else 12 - key.tonic
