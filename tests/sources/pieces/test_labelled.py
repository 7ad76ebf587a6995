"""A folder of one's own: labels as the seed writes them, and files that belong together by their names."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etude.audio.decode import decode
from etude.emotion.thesaurus import thesaurus
from etude.errors import BadAudio, UserError
from etude.sources.described import NOT_THERE, OUTSIDE, PassedOver
from etude.sources.pieces.base import Piece
from etude.sources.pieces.labelled import (
    AGAIN,
    FURTHER,
    NO_FILE,
    NO_LABEL,
    NO_NODE,
    OUT_OF_RANGE,
    LabelledConfig,
    LabelledPieces,
)
from tests.support.pieces import listing, write_audio, write_midi

SEED = {"node_id": 42, "valence": 0.7, "arousal": 0.5, "dominance": 0.6, "intensity": 0.8}


def labels(path: Path, *entries: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries[0] if len(entries) == 1 else list(entries)))


def listed(path: Path) -> tuple[dict[str, Piece], dict[str, int]]:
    pieces, passed_over = listing(LabelledConfig(path=path))
    return {piece.track.title: piece for piece in pieces}, passed_over


def test_a_label_of_the_seeds_form_is_read_word_for_word(tmp_path: Path) -> None:
    write_audio(tmp_path / "path" / "to" / "audio.wav")
    labels(tmp_path / "labels.json", {"audio_path": "path/to/audio.wav", **SEED})
    pieces, passed_over = listed(tmp_path)
    label = pieces["audio"].label
    assert label is not None and tuple(label.vad) == (0.7, 0.5, 0.6, 0.8)
    assert (label.node, label.of) == (42, "annotator")
    assert not passed_over


def test_a_node_alone_or_valence_and_arousal_alone_are_enough(tmp_path: Path) -> None:
    for hz, name in enumerate(("id", "path", "two", "three"), start=440):
        write_audio(tmp_path / f"{name}.wav", hz)
    node = thesaurus().nodes[42]
    labels(
        tmp_path / "all.json",
        {"audio_path": "id.wav", "node_id": 42},
        {"audio_path": "path.wav", "node_id": node.path},
        {"audio_path": "two.wav", "valence": -0.5, "arousal": 1},
        {"audio_path": "three.wav", "valence": 0, "arousal": 0.5, "dominance": 0.9, "node_id": 42},
    )
    pieces, passed_over = listed(tmp_path)
    found = {name: piece.label for name, piece in pieces.items()}
    assert found["id"] == found["path"] and found["id"].vad == node.vad and found["id"].node == 42
    assert found["two"].vad[:2] == (-0.5, 1) and found["two"].vad.intensity == 1 and found["two"].node is None
    assert found["three"].vad.dominance == 0.9 and found["three"].vad.intensity == 0
    assert not passed_over


def test_files_of_one_name_belong_together(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_audio(tmp_path / folder / "same.flac")
        write_midi(tmp_path / folder / "same.midi")
    write_midi(tmp_path / "notes.MID", 50)
    write_audio(tmp_path / "sound.wav", 300)
    write_audio(tmp_path / "sound.flac", 301)
    labels(tmp_path / "a" / "labels" / "one.json", {"midi_path": "a/same.midi", **SEED})
    pieces, passed_over = listing(LabelledConfig(path=tmp_path))
    assert sorted((p.track.title, bool(p.audio), bool(p.midi), bool(p.label)) for p in pieces) == [
        ("notes", False, True, False),
        ("same", True, True, False),
        ("same", True, True, True),
        ("sound", True, False, False),
    ]
    assert passed_over == {FURTHER: 1}


def test_audio_and_notes_of_a_piece_are_read(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    write_midi(tmp_path / "b c.mid", 60, 62)
    labels(tmp_path / "l.json", {"audio_path": "a.wav", "midi_path": str(tmp_path / "b c.mid"), **SEED})
    source = LabelledPieces(LabelledConfig(path=tmp_path))
    (piece,) = source.pieces(PassedOver())
    assert decode(source.read_audio(piece)).duration_s == pytest.approx(0.2)
    performance = source.performance(piece)
    assert performance is not None and performance.pitch.tolist() == [60, 62]
    assert piece.track.duration_s == pytest.approx(0.2)
    (tmp_path / "b c.mid").write_bytes(b"MThd")
    with pytest.raises(BadAudio):
        source.performance(piece)
    (tmp_path / "a.wav").unlink()
    with pytest.raises(OSError, match=r"a\.wav"):
        source.read_audio(piece)


def test_a_wrong_label_costs_its_own_piece_alone(tmp_path: Path) -> None:
    names = ("good", "high", "nan", "text", "node", "truth", "half", "empty")
    for hz, name in enumerate(names, start=440):
        write_audio(tmp_path / f"{name}.wav", hz)
    write_audio(tmp_path.parent / f"{tmp_path.name}-outside.wav")
    labels(
        tmp_path / "labels.json",
        {"audio_path": "good.wav", **SEED},
        {"audio_path": "./good.wav", **SEED, "valence": 0},
        {"audio_path": "high.wav", **SEED, "arousal": 1.5},
        {"audio_path": "nan.wav", **SEED, "valence": float("nan")},
        {"audio_path": "text.wav", **SEED, "intensity": "much"},
        {"audio_path": "node.wav", **SEED, "node_id": 216},
        {"audio_path": "truth.wav", **SEED, "node_id": True},
        {"audio_path": "half.wav", "valence": 0.5},
        {"audio_path": "empty.wav"},
        {"audio_path": "missing.wav", **SEED},
        {"audio_path": f"../{tmp_path.name}-outside.wav", **SEED},
        {"audio_path": "null\0.wav", **SEED},
        SEED,
        "no label",
    )
    pieces, passed_over = listed(tmp_path)
    assert list(pieces) == ["good"]
    assert pieces["good"].label.vad.valence == 0.7
    assert passed_over == {
        AGAIN: 1,
        OUT_OF_RANGE: 3,
        NO_NODE: 2,
        NO_LABEL: 2,
        NOT_THERE: 2,
        OUTSIDE: 1,
        NO_FILE: 1,
        "entries that are no JSON object": 1,
    }


@pytest.mark.parametrize(
    "content", ['{"name": "a-package"}', "[1, 2]", '"a.wav"', "{", "\xff", "[" * 100_000]
)
def test_json_that_is_no_label_is_said(content: str, tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    (tmp_path / "other.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"other\.json (holds no label|is no JSON).* move it away"):
        listed(tmp_path)


def test_a_folder_without_music_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no piece of"):
        listed(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        listed(tmp_path / "nowhere")
    labels(tmp_path / "l.json", {"audio_path": "a.wav", **SEED})
    with pytest.raises(UserError, match=f"{NOT_THERE}: 1"):
        listed(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner),
    max_leaves=3,
)
ENTRY = st.fixed_dictionaries(
    {"audio_path": st.sampled_from(["a.wav", "missing.wav", "", ".", 3, None])},
    optional=dict.fromkeys(("midi_path", "node_id", "valence", "arousal", "dominance", "intensity"), JSON),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(ENTRY, min_size=1, max_size=4))
def test_whatever_a_label_holds_the_rest_goes_on(entries: list[Any], tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    write_audio(tmp_path / "b.wav", 300)
    (tmp_path / "labels.json").write_text(json.dumps(entries))
    pieces, passed_over = listed(tmp_path)
    assert "b" in pieces
    assert all(piece.label is None or -1 <= piece.label.vad.valence <= 1 for piece in pieces.values())
    assert len(pieces) + sum(passed_over.values()) >= len(entries)
