"""Where in four beats the notes begin, and how hard they are struck: what the groove network learns to say.

A step is a quarter of a counted beat in every piece, a sixteenth note in 4/4, so that grooves can be compared
and a plug-in can play them. Music in three, or whose beats are divided in three, has none on this grid.
"""

import numpy as np
from numpy.typing import NDArray

from etude.emotion.performance import Performance

STEPS, BEATS = 16, 4  # a bar of four, or two of two
ON_STEP = 1 / 16  # of a beat: what lies closer to a step is on it; a third of a beat is 1/12 away
MOST_BESIDE = 0.25  # share of notes beside all steps, above which a piece is not divided like this
ACCENT_VELOCITY = 32  # so far above or below the mean velocity lie the accents 1 and 0
NO_ACCENT = 0.5


def groove_of(performance: Performance) -> NDArray[np.float32] | None:
    """[32]: for each of 16 steps how often a note begins there in four beats, then the steps' accents.

    An accent says how much louder than the mean note those of a step are: 0.5 is no louder, 1 louder by 32
    of velocity; 0.5 where none begins. Drums count. Four beats in which nothing begins do not count. None
    where the bars are not known or have other than 2 or 4 beats, or where beats are not divided in four.
    """
    if not performance.measured or performance.beats_per_bar not in (2, 4) or not len(performance.pitch):
        return None
    exact = performance.onset_beats * (STEPS / BEATS)
    place = np.rint(exact).astype(np.int64)
    if (np.abs(exact - place) > ON_STEP * STEPS / BEATS).mean() > MOST_BESIDE:
        return None
    four, step = np.divmod(place, STEPS)
    struck = np.unique(np.stack([four, step]), axis=1)[1]
    density = np.bincount(struck, minlength=STEPS) / len(np.unique(four))
    n_notes = np.bincount(step, minlength=STEPS)
    louder = performance.velocity - performance.velocity.mean()
    mean = np.bincount(step, weights=louder, minlength=STEPS) / np.maximum(n_notes, 1)
    accent = (NO_ACCENT + mean / (2 * ACCENT_VELOCITY)).clip(0, 1)
    return np.concatenate([density, accent]).astype(np.float32)
