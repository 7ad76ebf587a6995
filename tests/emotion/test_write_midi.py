"""Notes written to a MIDI file are the notes that are read from it."""

import io

import mido
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.emotion.metre import beats_per_bar
from etude.emotion.midi_file import read_midi
from etude.emotion.write_midi import MAX_PROGRAMS, Sound, write_midi

one_sound = st.tuples(
    st.integers(0, 8),  # sixteenths of silence before it, for its key of its program
    st.integers(1, 16),  # its length in sixteenths
    st.integers(0, 127),
    st.integers(1, 127),
    st.sampled_from([0, 40, 127]),
    st.booleans(),
)


@settings(max_examples=80)
@given(
    plan=st.lists(one_sound, min_size=1, max_size=20),
    tempo_bpm=st.floats(30, 300),
    metre=st.sampled_from(["4/4", "3/4", "6/8", "2/2", "7/8"]),
)
def test_what_is_written_is_read(
    plan: list[tuple[int, int, int, int, int, bool]], tempo_bpm: float, metre: str
) -> None:
    sounds, ends = [], dict[tuple[int, int, bool], int]()
    for silence, length, pitch, velocity, program, drum in plan:
        key = (0 if drum else program), pitch, drum
        start = ends.get(key, 0) + silence
        ends[key] = start + length
        sounds.append(Sound(start / 4, length / 4, pitch, velocity, program, drum))
    read = read_midi(write_midi(sounds, tempo_bpm, metre))
    written = sorted((s.onset_beats, s.length_beats, s.pitch, s.velocity, s.drum) for s in sounds)
    columns = (read.onset_beats, read.length_beats, read.pitch, read.velocity, read.drum)
    found = sorted(zip(*(column.tolist() for column in columns), strict=True))
    assert len(found) == len(written)
    for one, other in zip(found, written, strict=True):
        assert one == pytest.approx(other)
    assert read.tempo_bpm == pytest.approx(tempo_bpm, rel=1e-5)
    assert read.onset_s == pytest.approx(read.onset_beats * 60 / tempo_bpm, rel=1e-4)
    assert (read.beats_per_bar, read.measured) == (beats_per_bar(metre), True)


def test_a_note_is_cut_where_its_key_is_struck_again() -> None:
    read = read_midi(write_midi([Sound(0, 4, 60, 80), Sound(1, 1, 60, 90), Sound(0, 4, 60, 70, 40)], 60))
    assert sorted(zip(read.velocity.tolist(), read.length_beats.tolist(), strict=True)) == [
        (70, 4),
        (80, 1),
        (90, 1),
    ]


def test_programs_keep_clear_of_the_drums() -> None:
    sounds = [Sound(0, 1, 60, 80, program) for program in range(MAX_PROGRAMS)]
    file = mido.MidiFile(file=io.BytesIO(write_midi([*sounds, Sound(0, 1, 36, 80, drum=True)], 60)))
    programs = {m.channel: m.program for m in file if m.type == "program_change"}
    assert len(programs) == MAX_PROGRAMS and 9 not in programs
    assert read_midi(write_midi(sounds, 60)).drum.sum() == 0
    with pytest.raises(ValueError, match="16 programs"):
        write_midi([*sounds, Sound(0, 1, 60, 80, 100)], 60)
