"""Standard MIDI files: what is read from good ones, and the one sentence for each bad one."""

import io
import struct
import tracemalloc

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.emotion import midi_events
from etude.emotion.midi_file import read_midi
from etude.emotion.performance import ARRAYS, Performance
from etude.emotion.write_midi import Sound, write_midi
from etude.errors import BadAudio

END = b"\x00\xff\x2f\x00"
NOTE = b"\x00\x90\x3c\x40\x60\x80\x3c\x40"  # a fifth of a quarter: 96 of 480 ticks
GOOD = write_midi(
    [Sound(0, 1, 60, 80), Sound(1, 2, 64, 90, 40), Sound(2, 0.5, 38, 70, drum=True)], 100, "3/4"
)


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack(">L", len(content)) + content


def midi(*tracks: bytes, kind: int = 1, division: int = 480, n_tracks: int | None = None) -> bytes:
    """A file with these tracks, each given without its end."""
    header = struct.pack(">HHH", kind, len(tracks) if n_tracks is None else n_tracks, division)
    return chunk(b"MThd", header) + b"".join(chunk(b"MTrk", track + END) for track in tracks)


def of_messages(*tracks: list[mido.Message], ticks_per_beat: int = 480) -> bytes:
    file = mido.MidiFile(type=1, ticks_per_beat=ticks_per_beat)
    file.tracks.extend(mido.MidiTrack(track) for track in tracks)
    stream = io.BytesIO()
    file.save(file=stream)
    return stream.getvalue()


def note(pitch: int, wait: int, length: int, velocity: int = 64, channel: int = 0) -> list[mido.Message]:
    return [
        mido.Message("note_on", note=pitch, time=wait, velocity=velocity, channel=channel),
        mido.Message("note_off", note=pitch, time=length, channel=channel),
    ]


def tempo(quarters_a_minute: float, wait: int = 0) -> mido.MetaMessage:
    return mido.MetaMessage("set_tempo", tempo=round(60e6 / quarters_a_minute), time=wait)


def metre(beats: int, unit: int, wait: int = 0) -> mido.MetaMessage:
    return mido.MetaMessage("time_signature", numerator=beats, denominator=unit, time=wait)


def test_changes_of_tempo_in_another_track_count() -> None:
    conductor = [tempo(60), tempo(120, wait=960)]
    read = read_midi(of_messages(conductor, [*note(60, 480, 480), *note(62, 0, 480), *note(64, 480, 480)]))
    assert read.onset_s.tolist() == [1, 2, 3]
    assert read.length_s.tolist() == [1, 0.5, 0.5]
    assert read.onset_beats.tolist() == [1, 2, 4]
    assert read.length_beats.tolist() == [1, 1, 1]
    assert read.tempo_bpm == pytest.approx(60 * 4 / 2.5)
    assert (read.beats_per_bar, read.measured) == (4, False)


def test_beats_are_those_of_the_metre() -> None:
    read = read_midi(of_messages([metre(6, 8), tempo(90), *note(60, 720, 720), *note(60, 0, 360)]))
    assert read.onset_beats.tolist() == [1, 2]
    assert read.length_beats.tolist() == [1, 0.5]
    assert read.tempo_bpm == pytest.approx(60)
    assert (read.beats_per_bar, read.measured) == (2, True)


def test_the_longest_metre_sets_the_bar_and_every_change_begins_one() -> None:
    bars = [metre(3, 4), *note(60, 0, 480), metre(4, 4, wait=2400), *note(62, 0, 480), *note(64, 1440, 4800)]
    read = read_midi(of_messages(bars))
    assert read.beats_per_bar == 4
    assert read.onset_beats.tolist() == [0, 8, 12]


def test_a_first_metre_of_less_than_a_bar_is_a_pickup() -> None:
    read = read_midi(of_messages([metre(1, 4), *note(67, 0, 480), metre(4, 4), *note(60, 0, 9600)]))
    assert read.onset_beats.tolist() == [3, 4]


def test_the_tenth_channel_is_drums() -> None:
    read = read_midi(of_messages(note(60, 0, 480), note(36, 0, 480, channel=9)))
    assert list(zip(read.pitch.tolist(), read.drum.tolist(), strict=True)) == [(36, True), (60, False)]


def test_a_key_struck_again_ends_its_earlier_note_and_what_never_ends_is_left_out() -> None:
    track = [
        mido.Message("note_on", note=60, velocity=50),
        mido.Message("note_on", note=60, velocity=60, time=480),
        mido.Message("note_on", note=60, velocity=0, time=480),
        mido.Message("note_on", note=72, velocity=60, time=480),
    ]
    read = read_midi(of_messages(track))
    assert read.velocity.tolist() == [50, 60]
    assert read.length_beats.tolist() == [1, 1]


def test_what_does_not_matter_is_passed_over() -> None:
    wrong_key = b"\x00\xff\x59\x02\x10\x00"
    sysex, text = b"\x00\xf0\x03\x01\x02\xf7", b"\x00\xff\x01\x02hi"
    data = midi(wrong_key + sysex + text + NOTE) + b"rubbish"
    assert read_midi(data).pitch.tolist() == [60]
    assert read_midi(data[:14] + chunk(b"XFIH", b"abc") + data[14:]).pitch.tolist() == [60]


BAD = {
    "empty": (b"", "not a MIDI file"),
    "text": (b"X:1\nT:A tune\nK:C\n", "not a MIDI file"),
    "cut header": (b"MThd\x00\x00\x00\x06\x00\x01", "ends within its header"),
    "type 2": (midi(NOTE, kind=2), "type 2"),
    "film frames": (midi(NOTE, division=0xE728), "SMPTE"),
    "no ticks": (midi(NOTE, division=0), "no ticks"),
    "no tracks": (midi(), "0 of the 0 tracks"),
    "tracks are missing": (midi(NOTE, n_tracks=3), "1 of the 3 tracks"),
    "cut track": (midi(NOTE)[:-3], "cut off"),
    "cut event": (chunk(b"MThd", struct.pack(">HHH", 1, 1, 480)) + chunk(b"MTrk", b"\x00\x90\x3c"), "middle"),
    "no notes": (midi(b"\x00\xc0\x01"), "no note"),
    "no end": (midi(b"\x00\x90\x3c\x40"), "no note that ends"),
    "no running status": (midi(b"\x00\x3c\x40"), "no event begins with the byte 0x3c"),
    "not for files": (midi(b"\x00\xf8"), "0xf8"),
    "high data": (midi(b"\x00\x90\xbc\x40"), "above 127"),
    "zero tempo": (midi(b"\x00\xff\x51\x03\x00\x00\x00" + NOTE), "tempo of no length"),
    "zero metre": (midi(b"\x00\xff\x58\x04\x00\x02\x18\x08" + NOTE), "time signature"),
    "endless number": (midi(b"\xff" * 1_000_000), "more than 4 bytes"),
    "days": (midi(b"\xff\xff\xff\x7f" + NOTE[1:]), "absurdly long"),
    "a billion beats": (
        midi(b"\x00\xff\x51\x03\x00\x00\x01\xff\xff\xff\x7f" + NOTE[1:], division=1),
        "absurdly long",
    ),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD)
def test_a_bad_file_gets_one_clear_sentence(data: bytes, reason: str) -> None:
    with pytest.raises(BadAudio, match=reason) as caught:
        read_midi(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 120


@pytest.mark.parametrize(
    "data",
    [
        midi(b"\x00\xc0\x01" + b"\x00\x01" * 10_000_000),
        midi(b"\x00\x90\x3c\x40" + b"\x00\x3c\x40\x01\x3c\x00" * 1_000_000),
        midi(*[b"\x00\xf0\x00" * 300_000] * 2),
    ],
    ids=["ten million", "notes", "over tracks"],
)
def test_too_many_events_are_refused(data: bytes) -> None:
    with pytest.raises(BadAudio, match="more than 500,000 events"):
        read_midi(data)


def test_what_is_refused_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(midi_events, "MAX_EVENTS", 1000)
    data = midi(b"\x00\x90\x3c\x40" + b"\x00\x3c\x40\x01\x3c\x00" * 1_000_000)
    tracemalloc.start()
    with pytest.raises(BadAudio, match="more than 1,000 events"):
        read_midi(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(data) + 1e6  # one track's bytes, and no million of notes


def check(read: Performance) -> None:
    """What every user of a performance relies on."""
    n = len(read.pitch)
    assert n > 0 and all(len(getattr(read, name)) == n for name in ARRAYS)
    assert all(np.isfinite(getattr(read, name)).all() for name in ARRAYS)
    assert (np.diff(read.onset_s) >= 0).all() and read.onset_s[0] >= 0
    assert (read.length_s > 0).all() and (read.length_beats > 0).all() and (read.onset_beats >= 0).all()
    assert ((read.pitch >= 0) & (read.pitch <= 127) & (read.velocity >= 1) & (read.velocity <= 127)).all()
    assert np.isfinite(read.tempo_bpm) and read.tempo_bpm > 0 and read.beats_per_bar > 0


@settings(max_examples=300)
@given(
    data=st.binary(max_size=200),
    kind=st.sampled_from(["bytes", "track", "changed"]),
    at=st.integers(0, len(GOOD) - 1),
)
def test_any_bytes_give_a_performance_or_a_reason(data: bytes, kind: str, at: int) -> None:
    if kind == "track":
        data = midi(data + NOTE)
    elif kind == "changed":
        data = GOOD[:at] + data[:3] + GOOD[at + len(data[1:3]) :]
    try:
        check(read_midi(data))
    except BadAudio as error:
        assert str(error)


messages = st.lists(
    st.tuples(st.integers(0, 2000), st.integers(1, 500), st.integers(0, 127), st.integers(1, 127)),
    min_size=1,
    max_size=10,
)
tempi = st.lists(st.tuples(st.integers(0, 3000), st.integers(20, 300)), max_size=5)


@settings(max_examples=60)
@given(tracks=st.lists(messages, min_size=1, max_size=3), tempi=tempi, division=st.integers(24, 960))
def test_the_times_are_those_that_mido_finds(
    tracks: list[list[tuple[int, int, int, int]]], tempi: list[tuple[int, int]], division: int
) -> None:
    played = [
        [m for wait, length, pitch, v in track for m in note(pitch, wait, length, v)] for track in tracks
    ]
    data = of_messages([tempo(bpm, wait) for wait, bpm in tempi], *played, ticks_per_beat=division)
    now, expected = 0.0, []
    for message in mido.MidiFile(file=io.BytesIO(data)):
        now += message.time
        if message.type == "note_on":
            expected.append((message.note, message.velocity, now))
    read = read_midi(data)
    found = zip(read.pitch.tolist(), read.velocity.tolist(), read.onset_s.tolist(), strict=True)
    assert np.array(sorted(found)) == pytest.approx(np.array(sorted(expected)), abs=1e-9)
