"""How a score is played: an ensemble, a tempo and dynamics, chosen by a seeded rule.

The ensembles are few and differ clearly. A hundred pieces show each of them often enough for a student to
know it again in music that it has not heard; sixty instruments in free combinations did not: after 16 epochs
a student had learned its training pieces and nothing that held for others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from etude.emotion.metre import beat_quarters
from etude.sources.scores import Score

RULE = "3"  # goes into every track's id: raise it when the same score would sound different
TAIL_S = 1.5  # the last notes ring out
MAX_PARTS = 12  # MIDI has 15 channels beside the drums

# General MIDI 1 sound set, programs counted from 0.
PROGRAMS = {
    "piano": 0, "electric piano": 4, "church organ": 19, "nylon guitar": 24, "steel guitar": 25,
    "distortion guitar": 30, "slap bass": 36, "violin": 40, "viola": 41, "cello": 42, "choir aahs": 52,
    "trumpet": 56, "trombone": 57, "tuba": 58, "french horn": 60, "oboe": 68, "bassoon": 70, "clarinet": 71,
    "flute": 73,
}  # fmt: skip


@dataclass(frozen=True)
class Ensemble:
    """Who plays the parts of a score, from the highest down, and whether a drummer joins."""

    instruments: tuple[str, ...]  # keys of PROGRAMS, used in turn
    drums: bool = False


ENSEMBLES = (
    Ensemble(("piano",)),
    Ensemble(("church organ",)),
    Ensemble(("nylon guitar", "steel guitar")),
    Ensemble(("violin", "violin", "viola", "cello")),
    Ensemble(("choir aahs",)),
    Ensemble(("trumpet", "french horn", "trombone", "tuba")),
    Ensemble(("flute", "oboe", "clarinet", "bassoon")),
    Ensemble(("distortion guitar", "electric piano", "distortion guitar", "slap bass"), drums=True),
)
HATS = (42, 46, 51, 54, 69)  # General MIDI drum keys: closed and open hi-hat, ride, tambourine, cabasa
SNARES = (38, 37, 39, 76)  # snare, side stick, clap, wood block
T = TypeVar("T")


@dataclass(frozen=True)
class Arrangement:
    """How a score is played; lengths in seconds, velocities as in MIDI, 1 to 127."""

    instruments: tuple[str, ...]  # one for each part, keys of PROGRAMS
    tempo: int  # beats a minute
    drums: tuple[int, int] | None  # keys for the hat and the snare
    velocity: int
    gate: float  # sounding share of a note's length: 0.5 detached, 1 tied over
    reverb: int  # send level, 0 to 127
    metre: str
    repeats: int
    period_s: float  # from one repeat to the next
    duration_s: float
    random: str  # seeds the small differences from note to note


def arrange(score: Score, seed: int, max_duration_s: float) -> Arrangement:
    """The arrangement of a score, the same on every machine; it needs the table's row only.

    A piece that is over before two thirds of `max_duration_s` is played again.
    """
    random = f"{RULE}/{seed}/{score.uri}"
    rng = Random(random)
    tempo = 60 + int(101 * rng.random())
    period_s = score.quarters / beat_quarters(score.metre) * 60 / tempo
    repeats = max(1, math.ceil(2 / 3 * max_duration_s / period_s))
    ensemble = pick(rng, ENSEMBLES)
    n_parts = min(score.parts, MAX_PARTS)
    return Arrangement(
        instruments=tuple(ensemble.instruments[i % len(ensemble.instruments)] for i in range(n_parts)),
        tempo=tempo,
        drums=(pick(rng, HATS), pick(rng, SNARES)) if ensemble.drums else None,
        velocity=60 + int(45 * rng.random()),
        gate=0.7 + 0.3 * rng.random(),
        reverb=int(64 * rng.random()),
        metre=score.metre,
        repeats=repeats,
        period_s=period_s,
        duration_s=round(min(max_duration_s, repeats * period_s + TAIL_S), 3),
        random=random,
    )


def pick(rng: Random, choices: Sequence[T]) -> T:
    """One of the choices; only Random.random() keeps its sequence from one Python to the next."""
    return choices[int(len(choices) * rng.random())]
