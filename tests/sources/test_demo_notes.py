"""The notes of the demo library are those that are heard, in the bars of the score."""

import io
from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.emotion.groove import groove_of
from etude.errors import UserError
from etude.sources.arrange import arrange
from etude.sources.demo import DemoConfig, DemoSource
from etude.sources.demo_notes import performed
from etude.sources.excerpt import Note
from etude.sources.midi import TICKS_PER_S, to_midi
from etude.sources.scores import library


@settings(max_examples=30)
@given(
    number=st.integers(0, 1000), seed=st.integers(0, 2**31), pitches=st.lists(st.integers(0, 127), min_size=1)
)
def test_the_notes_are_those_of_the_rendered_file(number: int, seed: int, pitches: list[int]) -> None:
    score = library()[number]
    plan = arrange(score, seed, 30.0)
    parts = [[Note(float(i), 1.0, pitch) for i, pitch in enumerate(pitches)]] * score.parts
    played = performed(parts, plan)
    now, expected = 0.0, []
    for message in mido.MidiFile(file=io.BytesIO(to_midi(parts, plan))):
        now += message.time
        if message.type == "note_on":
            expected.append((round(now * TICKS_PER_S), message.note, message.velocity, message.channel == 9))
    columns = np.rint(played.onset_s * TICKS_PER_S), played.pitch, played.velocity, played.drum
    assert sorted(zip(*(column.tolist() for column in columns), strict=True)) == sorted(expected)
    assert played.tempo_bpm == plan.tempo
    assert (np.diff(played.onset_beats) >= -1e-9).all()
    assert (played.onset_s + played.length_s).max() <= plan.duration_s + 0.001


def test_every_repeat_begins_at_the_same_place_in_the_bar() -> None:
    score = replace(library()[0], metre="4/4", quarters=18.0)  # not a whole number of bars
    plan = arrange(score, 0, 60.0)
    assert plan.repeats > 1
    played = performed([[Note(0.0, 1.0, 60)]] * score.parts, plan, lead=3.0).pitched
    assert played.onset_beats % 4 == pytest.approx(3.0, abs=0.01)
    assert len(np.unique(played.onset_beats.round(2))) == plan.repeats


def test_a_pickup_of_a_real_piece_lies_before_the_bar(tmp_path: Path) -> None:
    source = DemoSource(DemoConfig(pieces=10), tmp_path)
    chorale = next(track for track in source.tracks() if track.uri.startswith("music21:bach/bwv"))
    played = source.performance(chorale)
    groove = groove_of(played)
    assert played.measured and groove is not None
    assert played.onset_beats[0] % played.beats_per_bar == 3  # of 4
    assert groove[0] > 0.8
    with pytest.raises(UserError, match="other settings"):
        DemoSource(DemoConfig(seed=1), tmp_path).performance(chorale)
