"""From the bytes of a Standard MIDI file to its notes, tempi and metres, all counted in ticks.

Files from the web are broken in many ways. mido, which writes ours, has no limits when it reads: a delta time
of 200 kB took it 17 s, it needs 20 microseconds an event, however many there are, and a wrong key signature
costs the whole file. So the few kinds of event that matter here are read by hand, up to `MAX_EVENTS`.
Format: Standard MIDI Files 1.0, MIDI Manufacturers Association, RP-001.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from etude.errors import BadAudio

MAX_EVENTS = 500_000  # six hours at ten notes a second
MAX_NUMBER_BYTES = 4  # of a variable-length number, as the format says
MAX_UNIT_POWER = 6  # 1/64 is the shortest unit of a metre
DRUM_CHANNEL = 9  # as General MIDI has it
TRACK_END, TEMPO, METRE, OTHER = 0x2F, 0x51, 0x58, 0x7F  # meta events; 0x7F is one of some sequencer's own
DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}  # by the status byte's upper half


class MidiNote(NamedTuple):
    """A note that was begun and ended, in ticks."""

    start: int
    end: int
    pitch: int
    velocity: int
    drum: bool


@dataclass
class MidiEvents:
    """What a file holds; tempi and metres in the order in which they stand, track after track."""

    ticks_per_quarter: int
    notes: list[MidiNote] = field(default_factory=list)
    tempi: list[tuple[int, int]] = field(default_factory=list)  # tick, microseconds a quarter
    metres: list[tuple[int, str]] = field(default_factory=list)  # tick, such as 6/8
    n_unended: int = 0  # notes that the file never ends: they are left out


class _Event(NamedTuple):
    tick: int
    status: int  # of a channel message, or the kind of a meta event, below 0x80
    data: bytes


def read_events(data: bytes) -> MidiEvents:
    """The notes, tempi and metres of a file of type 0 or 1.

    A note ends at its note-off, or where the same key of its channel is struck again. Raises BadAudio if the
    file is broken, of another type, timed by film frames, or has more than `MAX_EVENTS` events.
    """
    events = MidiEvents(_ticks_per_quarter(data))
    n_read = 0
    for track in _tracks(data):
        sounding: dict[tuple[int, int], _Event] = {}  # channel and pitch -> its note-on
        try:
            for event in _events(track):
                n_read += 1
                if n_read > MAX_EVENTS:
                    raise BadAudio(f"the MIDI file has more than {MAX_EVENTS:,} events")
                if event.status >= 0x80:
                    _play(event, sounding, events.notes)
                elif event.status == TEMPO:
                    events.tempi.append((event.tick, _tempo(event.data)))
                elif event.status == METRE:
                    events.metres.append((event.tick, _metre(event.data)))
        except IndexError:
            raise BadAudio("the MIDI file is broken: a track ends in the middle of an event") from None
        events.n_unended += len(sounding)
    return events


def _ticks_per_quarter(data: bytes) -> int:
    """What the header says of time. Raises BadAudio for what is no MIDI file, or of a kind not read here."""
    if data[:4] != b"MThd":
        raise BadAudio("not a MIDI file: it does not begin with MThd")
    if len(data) < 14:
        raise BadAudio("the MIDI file is broken: it ends within its header")
    kind, _, division = struct.unpack(">HHH", data[8:14])
    if kind > 1:
        raise BadAudio(f"a MIDI file of type {kind}, whose tracks are no single piece: only 0 and 1 are read")
    if division & 0x8000:
        raise BadAudio("a MIDI file timed by film frames (SMPTE), which says nothing of beats")
    if division == 0:
        raise BadAudio("the MIDI file is broken: its header says that a quarter has no ticks")
    return int(division)


def _tracks(data: bytes) -> Iterator[bytes]:
    """The bytes of every track; other chunks and what follows the last track are passed over."""
    size, n_tracks = struct.unpack(">L", data[4:8])[0], struct.unpack(">H", data[10:12])[0]
    at, found, passed_over = 8 + size, 0, 0
    while found < n_tracks and at + 8 <= len(data):
        name, size = struct.unpack(">4sL", data[at : at + 8])
        at += 8
        if at + size > len(data):
            raise BadAudio("the MIDI file is cut off: a track is longer than what is left of the file")
        if name == b"MTrk":
            found += 1
            yield data[at : at + size]
        elif (passed_over := passed_over + 1) > MAX_EVENTS:
            break
        at += size
    if found < n_tracks or not n_tracks:
        raise BadAudio(f"the MIDI file is broken: it has {found} of the {n_tracks} tracks in its header")


def _events(track: bytes) -> Iterator[_Event]:
    """Every event of a track; IndexError where it ends within one."""
    at = tick = status = 0
    while at < len(track):
        delta, at = _number(track, at)
        tick += delta
        first = track[at]
        if first in (0xF0, 0xF7):  # system exclusive
            length, at = _number(track, at + 1)
            at = _end(track, at, length)
            yield _Event(tick, OTHER, b"")
        elif first == 0xFF:
            kind = track[at + 1]
            length, start = _number(track, at + 2)
            at = _end(track, start, length)
            if kind == TRACK_END:
                return
            yield _Event(tick, kind if kind < 0x80 else OTHER, track[start:at])
        else:
            if first >= 0x80:
                status, at = first, at + 1
            if status >> 4 not in DATA_BYTES:
                raise BadAudio(f"the MIDI file is broken: no event begins with the byte 0x{first:02x}")
            start, at = at, _end(track, at, DATA_BYTES[status >> 4])
            message = track[start:at]
            if max(message) > 0x7F:
                raise BadAudio("the MIDI file is broken: a byte of data is above 127")
            yield _Event(tick, status, message)


def _number(track: bytes, at: int) -> tuple[int, int]:
    """A variable-length number and where the next byte stands."""
    value = 0
    for place in range(at, at + MAX_NUMBER_BYTES):
        value = value << 7 | track[place] & 0x7F
        if track[place] < 0x80:
            return value, place + 1
    raise BadAudio("the MIDI file is broken: a time or a length takes more than 4 bytes")


def _end(track: bytes, at: int, length: int) -> int:
    if at + length > len(track):
        raise IndexError
    return at + length


def _play(event: _Event, sounding: dict[tuple[int, int], _Event], notes: list[MidiNote]) -> None:
    """Let a channel message begin or end a note."""
    kind, channel = event.status >> 4, event.status & 0xF
    if kind not in (0x8, 0x9):
        return
    key = channel, event.data[0]
    begun = sounding.pop(key, None)
    if begun and begun.tick < event.tick:
        pitch, velocity = begun.data
        notes.append(MidiNote(begun.tick, event.tick, pitch, velocity, channel == DRUM_CHANNEL))
    if kind == 0x9 and event.data[1]:  # a velocity of 0 ends a note
        sounding[key] = event


def _tempo(data: bytes) -> int:
    tempo = int.from_bytes(data, "big")
    if len(data) != 3 or tempo == 0:
        raise BadAudio("the MIDI file is broken: a tempo of no length")
    return tempo


def _metre(data: bytes) -> str:
    if len(data) < 2 or data[0] == 0 or data[1] > MAX_UNIT_POWER:
        raise BadAudio("the MIDI file is broken: a time signature that cannot be")
    return f"{data[0]}/{2 ** data[1]}"
