"""Notes as a Standard MIDI file of type 0."""

import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import mido  # type: ignore[import-untyped, unused-ignore]

from etude.emotion.metre import DEFAULT_METRE, beat_quarters
from etude.emotion.midi_events import DRUM_CHANNEL

TICKS_PER_QUARTER = 480
MAX_PROGRAMS = 15  # channels beside the drums
SET_UP, NOTE_OFF, NOTE_ON, LAST = range(4)  # what comes first of messages at one tick

TimedMessage = tuple[int, int, mido.Message]  # tick, rank within the tick, message


class Sound(NamedTuple):
    """One note to be written, in counted beats: dotted quarters in 6/8."""

    onset_beats: float
    length_beats: float
    pitch: int  # 0 to 127
    velocity: int  # 1 to 127
    program: int = 0  # General MIDI, counted from 0: 0 is the piano; ignored for drums
    drum: bool = False


def write_midi(sounds: Sequence[Sound], tempo_bpm: float, metre: str = DEFAULT_METRE) -> bytes:
    """A MIDI file with these notes at this tempo, in counted beats a minute; the first bar begins at beat 0.

    Times are rounded to 1/480 of a quarter, and no note becomes shorter than that. A note is cut where the
    same key of the same program is struck again, as every player of the file would. Raises ValueError for
    more than 15 programs.
    """
    beat = beat_quarters(metre)
    beats, unit = map(int, metre.split("/"))
    tempo = round(60e6 / (tempo_bpm * beat))
    messages: list[TimedMessage] = [
        (0, SET_UP, mido.MetaMessage("set_tempo", tempo=tempo)),
        (0, SET_UP, mido.MetaMessage("time_signature", numerator=beats, denominator=unit)),
    ]
    programs = sorted({sound.program for sound in sounds if not sound.drum})
    if len(programs) > MAX_PROGRAMS:
        raise ValueError(f"{len(programs)} programs in one MIDI file: it has channels for {MAX_PROGRAMS}")
    channels = {program: melodic_channel(number) for number, program in enumerate(programs)}
    for program, channel in channels.items():
        messages.append((0, SET_UP, mido.Message("program_change", channel=channel, program=program)))
    next_start: dict[tuple[int, int], int] = {}  # channel and pitch -> where the note after this one begins
    for sound in sorted(sounds, reverse=True):
        channel = DRUM_CHANNEL if sound.drum else channels[sound.program]
        start = round(sound.onset_beats * beat * TICKS_PER_QUARTER)
        end = max(start + 1, round((sound.onset_beats + sound.length_beats) * beat * TICKS_PER_QUARTER))
        end = min(end, next_start.get((channel, sound.pitch), end))
        next_start[channel, sound.pitch] = start
        if start < end:
            messages += note_messages(channel, start, end, sound.pitch, sound.velocity)
    end_tick = max(tick for tick, _, _ in messages)
    return midi_bytes([*messages, (end_tick, LAST, mido.MetaMessage("end_of_track"))])


def melodic_channel(number: int) -> int:
    """The n-th MIDI channel that is not the drums'."""
    return number + (number >= DRUM_CHANNEL)


def note_messages(channel: int, start: int, end: int, pitch: int, velocity: int) -> list[TimedMessage]:
    """The beginning and the end of a note; times in ticks."""
    return [
        (start, NOTE_ON, mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)),
        (end, NOTE_OFF, mido.Message("note_off", channel=channel, note=pitch)),
    ]


def midi_bytes(messages: Iterable[TimedMessage]) -> bytes:
    """A file of type 0 with 480 ticks a quarter; the messages may come in any order."""
    track = mido.MidiTrack()
    now = 0
    for tick, _, message in sorted(messages, key=lambda message: message[:2]):
        track.append(message.copy(time=tick - now))
        now = tick
    file = mido.MidiFile(type=0, ticks_per_beat=TICKS_PER_QUARTER)
    file.tracks.append(track)
    stream = io.BytesIO()
    file.save(file=stream)
    return stream.getvalue()
