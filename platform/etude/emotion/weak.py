"""Feelings guessed from notes, where nobody has listened: labels that are weak and are called so.

Seven cues are measured, each against what is ordinary, and added up. That cues add up, nearly in a straight
line and without interplay, is what Eerola, Friberg & Bresin found (Frontiers in Psychology 4:487, 2013), with
mode first, then tempo, register and dynamics. The signs in `RULE` follow experiments and reviews:
- valence: major (Hevner 1935), consonant (Hevner 1936), fast and high (Hevner 1937)
- arousal: fast, loud (Ilie & Thompson 2006, energy), many notes (Gabrielsson & Lindström 2010, activity)
- dominance: loud (Gabrielsson & Lindström 2010, power), low (Huron, Kinney & Precoda 2006), consonant, as
  what sounds majestic is (Hevner 1936)
- intensity: what makes music tense, which is to be loud and fast (Ilie & Thompson 2006), dissonant (Hevner
  1936) and of changing loudness, which suggests fear (Gabrielsson & Lindström 2010)
The sizes are Étude's own, an assumption: no listener was asked.

What the rule cannot know: timbre, words, articulation, how harmony moves, what changes within a piece, and
irony. Anger, fear, sadness and disgust are told apart by speed and power alone. A MIDI file that states no
tempo counts as 120 beats a minute, and one for drums alone has neither mode nor register.

Of the demo library's first 200 pieces, a third of them minor, 86 lie nearest to joy, 60 to surprise, 26 to
disgust, 13 to anger, 8 to sad and 7 to fear; arousal, dominance and intensity have spreads of 0.23, valence
of 0.51, and the highest correlation among the four is 0.50, of arousal and intensity.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from etude.emotion.key import Key
from etude.emotion.performance import Performance
from etude.emotion.vad import VAD, checked

# What is ordinary and how far it commonly varies: round figures near the mean and the spread over the demo
# library's first 200 pieces; for the mode, halfway between major and minor.
ORDINARY = {
    "major": (0.0, 0.2),  # correlation with the best major key less that with the best minor key
    "speed": (6.7, 0.4),  # octaves: log2 of beats a minute, 104
    "density": (1.7, 0.8),  # octaves: log2 of moments a second at which notes begin, 3.2
    "loudness": (88.0, 13.0),  # MIDI velocity
    "contrast": (6.0, 3.0),  # MIDI velocity, standard deviation
    "height": (65.0, 5.5),  # MIDI pitch, weighted by length
    "roughness": (0.07, 0.07),  # share of what sounds together that is dissonant
}
RULE = {
    "valence": {"major": 0.7, "speed": 0.15, "height": 0.1, "roughness": -0.2},
    "arousal": {"speed": 0.35, "density": 0.35, "loudness": 0.2},
    "dominance": {"loudness": 0.5, "height": -0.35, "roughness": -0.3},
    "intensity": {"loudness": 0.3, "speed": 0.25, "roughness": 0.45, "contrast": 0.15},
}
TOGETHER_S = 0.03  # notes that begin within this time begin at one moment
_BEND = 2.0  # spreads that no cue exceeds, so that one alone cannot rule
_INSTANTS = 400  # at which what sounds together is looked at
# How dissonant two pitch classes are by the smaller interval between them, 1 to 6 semitones: the semitone and
# the tritone wholly, the whole tone by half.
_ROUGH = np.array([1.0, 0.5, 0.0, 0.0, 0.0, 1.0])


def weak_vad(performance: Performance, key: Key) -> VAD:
    """What a performance seems to express, by `RULE`; always strictly inside the ranges."""
    cues = bent(cues_of(performance, key))
    drive = {name: sum(share * cues[cue] for cue, share in rule.items()) for name, rule in RULE.items()}
    valence, *rest = (float(np.tanh(drive[name])) for name in VAD._fields)
    return checked(VAD(valence, *((1 + x) / 2 for x in rest)), "the weak label")


def bent(cues: Mapping[str, float]) -> dict[str, float]:
    """Every cue of `ORDINARY` in spreads from what is ordinary, inside -2..2; 0 for one that is missing."""
    return {
        name: float(_BEND * np.tanh((cues[name] - middle) / spread / _BEND)) if name in cues else 0.0
        for name, (middle, spread) in ORDINARY.items()
    }


def cues_of(performance: Performance, key: Key) -> dict[str, float]:
    """The cues of `ORDINARY`, in its units; those that need pitches are missing if only drums play."""
    moments = 1 + np.count_nonzero(np.diff(performance.onset_s) > TOGETHER_S)
    found = {
        "speed": float(np.log2(performance.tempo_bpm)),
        "density": float(np.log2(moments / performance.duration_s)),
        "loudness": float(performance.velocity.mean()),
        "contrast": float(performance.velocity.std()),
    }
    notes = performance.pitched
    if not len(notes.pitch):
        return found
    return found | {
        "major": -key.minorness,
        "height": float(np.average(notes.pitch, weights=notes.length_s)),
        "roughness": roughness(notes),
    }


def roughness(notes: Performance) -> float:
    """The dissonant share of all pairs of pitch classes that sound at once; 0 for a single line."""
    end_s = notes.onset_s + notes.length_s
    at_s = np.linspace(notes.onset_s[0], end_s.max(), _INSTANTS, endpoint=False)
    pitch_class = notes.pitch % 12
    sounding = [_sounding(notes.onset_s[w], end_s[w], at_s) for w in (pitch_class == c for c in range(12))]
    there_12I = np.array(sounding, dtype=np.float64)
    pairs = np.array([(there_12I * np.roll(there_12I, step, axis=0)).sum() for step in range(1, 7)])
    pairs[5] /= 2  # a tritone is found from both its ends
    return float(_ROUGH @ pairs / pairs.sum()) if pairs.any() else 0.0


def _sounding(
    start_s: NDArray[np.float64], end_s: NDArray[np.float64], at_s: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether any of the notes sounds at each instant."""
    begun = np.searchsorted(np.sort(start_s), at_s, side="right")
    ended = np.searchsorted(np.sort(end_s), at_s, side="right")
    return np.asarray(begun > ended)
