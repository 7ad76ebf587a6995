"""A short piece in an emotion, written by the five models and a few rules that join their numbers.

The models say which pitches, chords, accents and manner of playing go with an emotion. The rules do the
rest: a chord every half bar, a bass, a melody that moves in small steps and likes the notes of its chord. It
shows what the models have learned, and is no more of a composer than that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from etude.emotion.chords import CHORD_TONES, CHORDS
from etude.emotion.expression import expression_values
from etude.emotion.groove import ACCENT_VELOCITY, STEPS
from etude.emotion.thesaurus import thesaurus
from etude.emotion.vad import VAD
from etude.emotion.write_midi import Sound, write_midi
from etude.inference.emotion_models import Character, EmotionModels

BEATS = 4  # in a bar
CHORD_BEATS = 2
BASS, CHORD_LOW, MELODY_LOW, MELODY_HIGH = 36, 50, 60, 88  # MIDI numbers
MELODY_PROGRAM, CHORD_PROGRAM, BASS_PROGRAM = 73, 0, 43  # General MIDI from 0: flute, piano, double bass
STEP_S = 3.0  # semitones that a melody moves as a rule
IN_CHORD = 4.0  # how much rather it takes a note of the chord
MOST_STEPS = 0.7  # of a bar's 16 on which a melody may begin a note


@dataclass(frozen=True)
class Composition:
    """A piece, and what it was made of."""

    midi: bytes
    duration_s: float
    tempo_bpm: float
    chords: tuple[str, ...]


def compose(models: EmotionModels, vad: VAD, *, bars: int, seed: int, tonic: int = 0) -> Composition:
    """Write `bars` bars of 4/4; `tonic` is a pitch class, 0 for C. The same seed is the same piece."""
    generator = np.random.default_rng(seed)
    character = models.character(vad)
    manner = expression_values(character.expression)
    node = thesaurus().nodes[int(thesaurus().nearest(np.array([vad]))[0, 0])]
    chords = _chords(models, vad, bars * BEATS // CHORD_BEATS, generator)
    tempo = float(np.clip(manner["tempo"], 45, 190))
    sounds = [
        *_accompaniment(chords, tonic, manner),
        *_melody(character, chords, tonic, bars, manner, generator),
    ]
    end, last = float(bars * BEATS), CHORDS.index("I" if node.mode == "major" else "Im")
    loudness = _velocity(manner, 0.5)
    sounds += [Sound(end, 2.0, pitch, loudness, CHORD_PROGRAM) for pitch in _voicing(last, tonic)]
    return Composition(
        write_midi(sounds, tempo), (end + 3) * 60 / tempo, tempo, tuple(CHORDS[chord] for chord in chords)
    )


def _chords(models: EmotionModels, vad: VAD, n: int, generator: np.random.Generator) -> list[int]:
    """A progression, each chord drawn from what harmony says after those before it."""
    chords: list[int] = []
    for _ in range(n):
        likely = models.next_chord(vad, chords).astype(np.float64) ** 1.5  # the unlikely ones less often
        chords.append(int(generator.choice(len(CHORDS), p=likely / likely.sum())))
    return chords


def _accompaniment(chords: Sequence[int], tonic: int, manner: dict[str, float]) -> list[Sound]:
    sounds = []
    for place, chord in enumerate(chords):
        beat, softly = float(place * CHORD_BEATS), round(0.8 * _velocity(manner, 0.5))
        length = CHORD_BEATS * manner["articulation"]
        sounds += [Sound(beat, length, pitch, softly, CHORD_PROGRAM) for pitch in _voicing(chord, tonic)]
        root = (_tones(chord)[0] + tonic) % 12
        sounds.append(Sound(beat, length, BASS + (root - BASS) % 12, softly, BASS_PROGRAM))
    return sounds


def _melody(
    character: Character,
    chords: Sequence[int],
    tonic: int,
    bars: int,
    manner: dict[str, float],
    generator: np.random.Generator,
) -> list[Sound]:
    density, accent = character.groove[:STEPS], character.groove[STEPS:]
    density = density * min(1.0, MOST_STEPS * STEPS / max(float(density.sum()), 1e-9))
    step_beats = BEATS / STEPS
    starts = [
        (bar * STEPS + step, step)
        for bar in range(bars)
        for step in range(STEPS)
        if generator.random() < density[step] or (bar == 0 and step == 0)
    ]
    pitches = np.arange(MELODY_LOW, MELODY_HIGH)
    # As the model learned: the tonic is the C that is nearest.
    likely = character.melody[pitches - (tonic if tonic <= 6 else tonic - 12)].astype(np.float64)
    likely = np.maximum(likely, 1e-6)
    sounds, before = [], float(pitches @ likely / likely.sum())
    for (start, step), (end, _) in zip(starts, [*starts[1:], (bars * STEPS, 0)], strict=True):
        beat = start * step_beats
        inside = np.isin((pitches - tonic) % 12, _tones(chords[int(beat // CHORD_BEATS)]))
        weight = likely * np.where(inside, IN_CHORD, 1.0) * np.exp(-np.abs(pitches - before) / STEP_S)
        pitch = int(generator.choice(pitches, p=weight / weight.sum()))
        length = min((end - start) * step_beats, 2.0) * manner["articulation"]
        velocity = _velocity(manner, float(accent[step]))
        sounds.append(Sound(beat, length, pitch, velocity, MELODY_PROGRAM))
        before = pitch
    return sounds


def _voicing(chord: int, tonic: int) -> list[int]:
    """The chord's notes in the octave above `CHORD_LOW`."""
    return sorted(CHORD_LOW + (degree + tonic - CHORD_LOW) % 12 for degree in _tones(chord))


def _tones(chord: int) -> tuple[int, ...]:
    """Semitones above the tonic of a chord's notes, the root first."""
    return CHORD_TONES[CHORDS[chord]]


def _velocity(manner: dict[str, float], accent: float) -> int:
    """MIDI velocity of a note whose step has this accent, 0 to 1."""
    loudness = manner["loudness"] + 2 * ACCENT_VELOCITY * (accent - 0.5)
    return int(np.clip(round(loudness), 20, 127))
