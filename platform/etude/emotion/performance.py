"""What sounds when a piece is played: its notes in seconds and in beats, with tempo and metre."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

ON_GRID = 1 / 16  # of a beat: what begins closer to a beat, or to another note, begins with it


@dataclass(frozen=True, eq=False)
class Performance:
    """The notes of a piece, sorted by onset; one entry a note in each array.

    Bars begin where `onset_beats` is a multiple of `beats_per_bar`; the beat is the one that is counted,
    a dotted quarter in 6/8. After a change of metre, or a repeat of a piece whose length is not a whole
    number of bars, the count goes on with the next bar, so that beats may be left out between two notes.
    """

    onset_s: NDArray[np.float64]
    length_s: NDArray[np.float64]
    onset_beats: NDArray[np.float64]
    length_beats: NDArray[np.float64]
    pitch: NDArray[np.int64]  # MIDI number, 60 = middle C; a key of General MIDI's drum map for drums
    velocity: NDArray[np.int64]  # 1 to 127
    drum: NDArray[np.bool_]
    tempo_bpm: float  # counted beats a minute, each tempo weighted by how long it lasts
    beats_per_bar: float
    measured: bool  # False: bars are only assumed

    @property
    def pitched(self) -> "Performance":
        """The same without the drums; it may have no note."""
        return self.chosen(~self.drum)

    @property
    def duration_s(self) -> float:
        """From the first onset to the last end."""
        return float((self.onset_s + self.length_s).max() - self.onset_s[0]) if len(self.pitch) else 0.0

    def chosen(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "Performance":
        """The notes that a mask or a list of places chooses, in that order."""
        return Performance(
            **{name: getattr(self, name)[which] for name in ARRAYS},
            tempo_bpm=self.tempo_bpm,
            beats_per_bar=self.beats_per_bar,
            measured=self.measured,
        )

    def sorted(self) -> "Performance":
        """The same notes by onset, then by pitch."""
        return self.chosen(np.lexsort((self.velocity, self.length_s, self.pitch, self.onset_s)))

    def on_beat(self) -> NDArray[np.bool_]:
        """[n]: which notes begin on a counted beat."""
        return np.abs(self.onset_beats - np.rint(self.onset_beats)) < ON_GRID


ARRAYS = tuple(field.name for field in fields(Performance))[:7]  # what there is one of for each note
