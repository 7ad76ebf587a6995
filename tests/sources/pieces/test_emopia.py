"""EMOPIA as it is published; the set itself was not at hand, and this folder is written after its layout."""

from pathlib import Path

import pytest

from etude.errors import UserError
from etude.sources.described import NOT_THERE
from etude.sources.pieces import EmopiaConfig
from tests.support.pieces import listing, works, write_audio, write_midi, write_table

CLIPS = ("Q1_0vLPYiPN7qY_0", "Q1_0vLPYiPN7qY_1", "Q2_a_b-c_d_e_f_2", "Q3_0vLPYiPN7qY_2", "Q4_zzzzzzzzzzz_0")


def write_emopia(path: Path) -> Path:
    rows = [f"{name},{name[1]},A" for name in CLIPS]
    wrong = ["Q1_missingxxxx_0,1,B", "Q1_0vLPYiPN7qY_9,2,B", "Q5_0vLPYiPN7qY_9,5,B", "Q1_0vLPYiPN7qY_8,,B"]
    for number, name in enumerate(CLIPS):
        write_midi(path / "EMOPIA_2.2" / "midis" / f"{name}.mid", 50 + number)
    write_table(path / "EMOPIA_2.2" / "label.csv", "ID,4Q,annotator", *rows, *wrong)
    write_table(path / "__MACOSX" / "EMOPIA_2.2" / "label.csv", "not a table")
    return path


def test_clips_carry_their_quadrant_and_songs_stay_together(tmp_path: Path) -> None:
    write_audio(write_emopia(tmp_path) / "audio" / f"{CLIPS[4]}.wav")
    pieces, passed_over = listing(EmopiaConfig(path=tmp_path))
    vad = {piece.track.title: piece.label.vad for piece in pieces if piece.label}
    signs = {name: (v.valence > 0, v.arousal > 0.5) for name, v in vad.items()}
    assert [signs[name] for name in CLIPS] == [(True, True)] * 2 + [
        (False, True),
        (False, False),
        (True, False),
    ]
    assert {piece.label.of for piece in pieces if piece.label} == {"quadrant"}
    assert works(pieces) == [[CLIPS[0], CLIPS[1], CLIPS[3]], [CLIPS[2]], [CLIPS[4]]]
    assert [bool(piece.audio) for piece in pieces] == [False] * 4 + [True]
    assert passed_over == {
        NOT_THERE: 1,
        "clips whose name and label disagree": 1,
        "names that are none of EMOPIA's": 1,
        "quadrants other than 1 to 4": 1,
    }
    assert pieces[0].track.license.startswith("CC BY-NC-SA 4.0")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no label\.csv .* extract EMOPIA_2\.2\.zip"):
        listing(EmopiaConfig(path=tmp_path))
