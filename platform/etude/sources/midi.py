"""An arranged score as a Standard MIDI file."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

import mido  # type: ignore[import-untyped, unused-ignore]

from etude.emotion.metre import beat_quarters
from etude.emotion.midi_events import DRUM_CHANNEL
from etude.emotion.write_midi import (
    LAST,
    SET_UP,
    TimedMessage,
    melodic_channel,
    midi_bytes,
    note_messages,
)
from etude.sources.arrange import PROGRAMS, Arrangement
from etude.sources.excerpt import Note

TICKS_PER_S = 960  # 480 a quarter at MIDI's default of 120 quarters a minute
KICK = 36  # General MIDI drum key
LOWEST, HIGHEST = 28, 100  # notes beyond are moved by octaves: E1 to E7

Intent = tuple[int, float, float, int, float]  # channel, start and length in seconds, pitch, velocity


class Stroke(NamedTuple):
    """A note as it is played."""

    channel: int
    start: int  # ticks
    end: int
    pitch: int
    velocity: int  # 1 to 127


def to_midi(parts: Sequence[Sequence[Note]], plan: Arrangement) -> bytes:
    """A MIDI file of exactly `plan.duration_s`; `parts` are those of the score that the plan is for."""
    messages: list[TimedMessage] = []
    for number, instrument in enumerate(plan.instruments):
        pan = round(127 * (number + 0.5) / len(plan.instruments))
        messages += _setup(melodic_channel(number), PROGRAMS[instrument], pan, plan)
    if plan.drums:
        messages += _setup(DRUM_CHANNEL, 0, 64, plan)
    for stroke in strokes(parts, plan):
        messages += note_messages(*stroke)
    messages.append((_end_tick(plan), LAST, mido.MetaMessage("end_of_track")))
    return midi_bytes(messages)


def strokes(parts: Sequence[Sequence[Note]], plan: Arrangement) -> Iterator[Stroke]:
    """What every player does, part by part; each stroke is a little louder or softer than was meant."""
    rng = Random(plan.random)
    for channel, start_s, length_s, pitch, velocity in [*_melodic(parts, plan), *_drumming(plan)]:
        start = round(TICKS_PER_S * start_s)
        end = min(_end_tick(plan), round(TICKS_PER_S * (start_s + length_s)))
        if start < end:
            loudness = min(127, max(1, round(velocity + 12 * (rng.random() - 0.5))))
            yield Stroke(channel, start, end, pitch, loudness)


def _melodic(parts: Sequence[Sequence[Note]], plan: Arrangement) -> Iterator[Intent]:
    beat = beat_quarters(plan.metre)
    quarter_s = 60 / plan.tempo / beat
    for number in range(len(plan.instruments)):
        for repeat in range(plan.repeats):
            for note in parts[number]:
                start_s = repeat * plan.period_s + note.onset * quarter_s
                velocity = plan.velocity + (10 if note.onset % beat == 0 else 0)
                length_s = note.length * quarter_s * plan.gate
                yield melodic_channel(number), start_s, length_s, _in_range(note.pitch), velocity


def _drumming(plan: Arrangement) -> Iterator[Intent]:
    if plan.drums is None:
        return
    hat, snare = plan.drums
    beat_s = 60 / plan.tempo
    in_three = plan.metre.startswith(("3", "9"))
    for beat in range(round(plan.repeats * plan.period_s / beat_s)):
        start_s = beat * beat_s
        yield DRUM_CHANNEL, start_s, 0.1, snare if beat % (3 if in_three else 2) else KICK, plan.velocity
        yield DRUM_CHANNEL, start_s, 0.1, hat, plan.velocity - 10
        yield DRUM_CHANNEL, start_s + beat_s / 2, 0.1, hat, plan.velocity - 25


def _end_tick(plan: Arrangement) -> int:
    return round(TICKS_PER_S * plan.duration_s)


def _in_range(pitch: int) -> int:
    while pitch < LOWEST:
        pitch += 12
    while pitch > HIGHEST:
        pitch -= 12
    return pitch


def _volume(plan: Arrangement) -> int:
    """Channel volume at which the 16-bit rendering is neither clipped nor coarse, for any plan.

    Volume and velocity act squared; fitted to the peaks of 60 pieces, after which the loudest of 260
    reached 0.6 of full scale and the median piece 0.23.
    """
    crowd: float = len(plan.instruments) ** 0.35
    return min(127, round(15_500 / (crowd * (plan.velocity + 10))))


def _setup(channel: int, program: int, pan: int, plan: Arrangement) -> list[TimedMessage]:
    controls = {7: _volume(plan), 10: pan, 91: plan.reverb}  # volume, pan, reverb send
    messages = [
        mido.Message("control_change", channel=channel, control=c, value=v) for c, v in controls.items()
    ]
    messages.append(mido.Message("program_change", channel=channel, program=program))
    return [(0, SET_UP, message) for message in messages]
