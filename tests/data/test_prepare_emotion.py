"""Pieces become rows; what is at fault says why and costs no other."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from etude.data.emotion import AnalysisConfig, read_rows
from etude.data.emotion_analysis import RULE, analyse
from etude.data.prepare_emotion import EmotionJob, EmotionReport, plan_emotion, prepare_emotion
from etude.data.ray_data import rows_of
from etude.data.store import Store
from etude.emotion.midi_file import MAX_EVENTS
from etude.errors import BadAudio, UserError
from etude.sources.described import PassedOver
from etude.sources.pieces import LabelledConfig, build_piece_source
from etude.sources.pieces.base import piece_of, piece_to_json
from tests.support.pieces import write_midi

LABEL = {"valence": -0.4, "arousal": 0.8, "dominance": 0.6, "intensity": 0.7}


def write_music(path: Path, chorale_wav: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(chorale_wav)
    return path


@pytest.fixture
def folder(tmp_path: Path, chorale_wav: bytes) -> Path:
    """Good pieces, labelled and not, beside everything that the issue calls bad."""
    root = tmp_path / "pieces"
    write_music(root / "heard.wav", chorale_wav)
    write_midi(root / "heard.mid", *range(60, 76))
    write_midi(root / "played.mid", *range(50, 70))
    write_music(root / "unlabelled.wav", chorale_wav)
    (root / "broken.mid").write_bytes(b"MThd nothing of it")
    (root / "empty.mid").write_bytes(b"")
    (root / "flood.mid").write_bytes(flood())
    soundfile.write(root / "silent.wav", np.zeros(5 * 22_050, dtype=np.float32), 22_050)
    labels = [
        {"audio_path": "heard.wav", "node_id": 80, **LABEL},
        {"audio_path": "silent.wav", **LABEL},
        {"audio_path": "gone.wav", **LABEL},
        {"audio_path": "unlabelled.wav", "node_id": 216, **LABEL},
        {"midi_path": "played.mid", **LABEL | {"valence": 7}},
    ]
    (root / "labels.json").write_text(json.dumps(labels))
    return root


def flood() -> bytes:
    """A MIDI file with more events than anybody plays, in running status."""
    events = b"\x00\x90\x3c\x40" + b"\x00\x3c\x00\x00\x3c\x40" * (MAX_EVENTS // 2 + 1)
    track = events + b"\x00\xff\x2f\x00"
    header = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1, 1, 0xE0])
    return header + b"MTrk" + len(track).to_bytes(4, "big") + track


def job(folder: Path, home: Path, *, again: bool = False) -> EmotionJob:
    return EmotionJob(
        str(home / "store"), home / "cache", LabelledConfig(path=folder), AnalysisConfig(), again
    )


def run(job: EmotionJob) -> EmotionReport:
    return prepare_emotion(job, lambda done, total: None)


def test_every_bad_piece_is_counted_with_a_sentence_and_the_rest_goes_on(
    folder: Path, tmp_path: Path, ray_session: None
) -> None:
    given = job(folder, tmp_path)
    planned = plan_emotion(given)
    report = run(given)
    late = prepare_emotion(given, lambda done, total: None, planned)  # planned before the other was done
    assert (late.prepared, late.found, len(late.quarantined)) == (0, 1, 4)
    reasons = {row.title: row.reason for row in report.quarantined}
    assert report.prepared == 1
    assert set(reasons) == {"broken", "empty", "flood", "silent"}
    assert all(reason and "\n" not in reason for reason in reasons.values())
    left_out = " ".join(report.passed_over)
    assert "gone.wav" in left_out
    assert len(report.passed_over.counts) >= 3  # no file, no node, no such valence
    again = run(given)
    assert (again.found, again.prepared, len(again.quarantined)) == (1, 0, 4)
    write_midi(folder / "empty.mid", *range(60, 70))  # another file is another piece
    mended = run(given)
    assert (mended.found, mended.prepared, len(mended.quarantined)) == (1, 1, 3)
    tried = run(job(folder, tmp_path, again=True))
    assert {row.attempts for row in tried.quarantined} == {2}
    rows = {row.title: row for row in _rows(given)}
    assert (rows["heard"].label_of, rows["heard"].node) == ("annotator", 80)
    assert rows["heard"].audio.shape[1] == 128
    assert rows["empty"].label_of == RULE
    assert rows["empty"].audio.shape[0] == 0


def test_a_piece_that_is_told_of_twice_counts_once(
    folder: Path, tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that is done again, as its process was lost, tells of its pieces again."""
    twice = lambda dataset: (row for row in rows_of(dataset) for row in (row, row))  # noqa: E731
    monkeypatch.setattr("etude.data.prepare_emotion.rows_of", twice)
    told: list[tuple[int, int]] = []
    report = prepare_emotion(job(folder, tmp_path), lambda done, total: told.append((done, total)))
    assert (report.total, report.prepared, len(report.quarantined)) == (5, 1, 4)
    assert told == [(done, 5) for done in range(6)]


def _rows(given: EmotionJob) -> list:
    ids = [piece.track.id for piece in plan_emotion(given).pieces]
    return read_rows(Store(given.store), given.analysis.part, ids)


def test_a_folder_without_pieces_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no piece"):
        plan_emotion(job(tmp_path / "none", tmp_path))


def test_sound_alone_without_a_label_says_what_is_missing(tmp_path: Path, chorale_wav: bytes) -> None:
    root = tmp_path / "pieces"
    write_music(root / "song.wav", chorale_wav)
    source = build_piece_source(LabelledConfig(path=root), tmp_path)
    (piece,) = source.pieces(PassedOver())
    with pytest.raises(BadAudio, match="nobody has labelled its emotion"):
        analyse(piece, source, AnalysisConfig())


def test_a_piece_travels_as_text(folder: Path, tmp_path: Path) -> None:
    source = build_piece_source(LabelledConfig(path=folder), tmp_path)
    pieces = list(source.pieces(PassedOver()))
    assert [piece_of(piece_to_json(piece)) for piece in pieces] == pieces
    assert any(piece.label for piece in pieces)
