"""How a score is played: instruments, tempo and dynamics, chosen by a rule.

A student can only learn differences that it hears, so the rule aims at variety: every General MIDI family,
slow and fast, loud and soft, high and low, dry and wet, with drums, drones and doublings now and then.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from etude.sources.scores import Score, beat_quarters

RULE = "1"  # goes into every track's id: raise it when the same score would sound different
TAIL_S = 1.5  # the last notes ring out
MAX_LAYERS = 12  # MIDI has 15 channels beside the drums

# General MIDI 1 sound set, programs counted from 0.
FAMILIES = {
    "keyboard": {"piano": 0, "bright piano": 1, "honky-tonk piano": 3, "electric piano": 4, "harpsichord": 6},
    "mallets": {"celesta": 8, "music box": 10, "vibraphone": 11, "marimba": 12, "dulcimer": 15},
    "organ": {"drawbar organ": 16, "church organ": 19, "reed organ": 20, "accordion": 21, "harmonica": 22},
    "guitar": {"nylon guitar": 24, "steel guitar": 25, "jazz guitar": 26, "clean guitar": 27},
    "rock": {"overdriven guitar": 29, "distortion guitar": 30, "slap bass": 36, "drawbar organ": 16},
    "strings": {"violin": 40, "viola": 41, "cello": 42, "string ensemble": 48, "tremolo strings": 44},
    "plucked": {"pizzicato strings": 45, "harp": 46, "banjo": 105, "koto": 107, "sitar": 104, "kalimba": 108},
    "voices": {"choir aahs": 52, "voice oohs": 53, "synth voice": 54},
    "brass": {"trumpet": 56, "trombone": 57, "tuba": 58, "french horn": 60, "brass section": 61},
    "reeds": {"soprano sax": 64, "tenor sax": 66, "oboe": 68, "bassoon": 70, "clarinet": 71},
    "pipes": {"piccolo": 72, "flute": 73, "recorder": 74, "pan flute": 75, "ocarina": 79, "bagpipe": 109},
    "synth": {"square lead": 80, "saw lead": 81, "fifths lead": 86, "synth strings": 50, "synth brass": 62},
    "pads": {"new age pad": 88, "warm pad": 89, "halo pad": 94, "sweep pad": 95},
}
PROGRAMS = {name: program for family in FAMILIES.values() for name, program in family.items()}
HATS = (42, 46, 51, 54, 69)  # General MIDI drum keys: closed and open hi-hat, ride, tambourine, cabasa
SNARES = (38, 37, 39, 76)  # snare, side stick, clap, wood block
T = TypeVar("T")


@dataclass(frozen=True)
class Layer:
    """One instrument and what it plays."""

    instrument: str  # a key of PROGRAMS
    part: int | None  # of the score; None: a drone on tonic and fifth
    octaves: int = 0


@dataclass(frozen=True)
class Arrangement:
    """How a score is played; lengths in seconds, velocities as in MIDI, 1 to 127."""

    layers: tuple[Layer, ...]
    tempo: int  # beats a minute
    drums: tuple[int, int] | None  # keys for the hat and the snare
    velocity: int
    gate: float  # sounding share of a note's length: 0.5 detached, 1 tied over
    reverb: int  # 0 to 127
    metre: str
    key: str
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
    return Arrangement(
        layers=_layers(rng, score.parts),
        tempo=tempo,
        drums=(pick(rng, HATS), pick(rng, SNARES)) if rng.random() < 0.25 else None,
        velocity=45 + int(60 * rng.random()),
        gate=0.5 + 0.5 * rng.random(),
        reverb=int(128 * rng.random()),
        metre=score.metre,
        key=score.key,
        repeats=repeats,
        period_s=period_s,
        duration_s=round(min(max_duration_s, repeats * period_s + TAIL_S), 3),
        random=random,
    )


def pick(rng: Random, choices: Sequence[T]) -> T:
    """One of the choices; only Random.random() keeps its sequence from one Python to the next."""
    return choices[int(len(choices) * rng.random())]


def _layers(rng: Random, parts: int) -> tuple[Layer, ...]:
    """Parts for one instrument, for one family, or each for its own; thin textures get company."""
    family = list(FAMILIES[pick(rng, list(FAMILIES))])
    style = pick(rng, ("solo", "family", "mixed", "mixed"))
    register = pick(rng, (-1, 0, 0, 0, 1))
    one = pick(rng, family)
    choices = {"solo": [one], "family": family, "mixed": list(PROGRAMS)}[style]
    layers = [Layer(pick(rng, choices), part, register) for part in range(min(parts, MAX_LAYERS))]
    if parts <= 2 and rng.random() < 0.5:
        layers.append(Layer(pick(rng, list(PROGRAMS)), 0, register + pick(rng, (-1, 1))))
    if parts <= 2 and rng.random() < 0.4:
        layers.append(Layer(pick(rng, list(PROGRAMS)), None))
    return tuple(layers)
