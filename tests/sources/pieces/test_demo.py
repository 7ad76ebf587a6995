"""The demo library as pieces: sound and notes are of the same music."""

from pathlib import Path

import numpy as np
import pytest

from etude.audio.decode import decode
from etude.emotion.midi_file import read_midi
from etude.errors import UserError
from etude.sources.described import PassedOver
from etude.sources.pieces import DemoConfig, build_piece_source


def test_sound_and_notes_of_a_piece_belong_together(tmp_path: Path) -> None:
    source = build_piece_source(DemoConfig(pieces=5, max_duration_s=10), tmp_path)
    passed_over = PassedOver()
    pieces = list(source.pieces(passed_over))
    assert len(pieces) == 5 and not passed_over.counts
    assert all(piece.label is None and piece.track.license != "unknown" for piece in pieces)
    piece = pieces[0]
    performance = source.performance(piece)
    assert performance is not None
    assert performance.tempo_bpm == float(piece.track.tags["tempo_bpm"])
    assert decode(source.read_audio(piece)).duration_s == pytest.approx(piece.track.duration_s)
    written = read_midi(source.read_midi(piece))
    assert np.array_equal(np.sort(written.pitch), np.sort(performance.pitch))
    assert written.onset_s.max() == pytest.approx(performance.onset_s.max(), abs=0.01)


def test_a_piece_of_other_settings_is_refused(tmp_path: Path) -> None:
    other = build_piece_source(DemoConfig(pieces=1, seed=1), tmp_path)
    (piece,) = other.pieces(PassedOver())
    source = build_piece_source(DemoConfig(pieces=1), tmp_path)
    for read in (source.read_audio, source.read_midi, source.performance):
        with pytest.raises(UserError, match="list the library again"):
            read(piece)
    assert source.id != other.id
