"""The Groove MIDI dataset as it is published; it was not at hand, and its layout is written here."""

from pathlib import Path

import pytest

from etude.errors import UserError
from etude.sources.described import NOT_THERE
from etude.sources.pieces import GrooveConfig
from tests.support.pieces import listing, works, write_audio, write_midi, write_table

HEADER = "drummer,session,id,style,bpm,beat_type,time_signature,midi_filename,audio_filename,duration,split"


def row(drummer: str, session: str, number: int, style: str, split: str, audio: bool = True) -> str:
    place = f"{drummer}/{session}"
    file = f"{place}/{number}_{style.replace('/', '-')}_138_beat_4-4"
    sound = f"{file}.wav" if audio else ""
    return f"{drummer},{place},{place}/{number},{style},138,beat,4-4,{file}.mid,{sound},27.87,{split}"


def test_a_session_stays_together_and_so_do_the_grooves_that_all_play(tmp_path: Path) -> None:
    rows = [
        row("drummer1", "eval_session", 1, "funk/groove1", "test"),
        row("drummer2", "eval_session", 1, "funk/groove1", "test"),
        row("drummer1", "session1", 1, "rock", "train", audio=False),
        row("drummer1", "session1", 2, "jazz", "train"),
        row("drummer2", "session1", 1, "rock", "train"),
    ]
    files = [line.split(",")[7] for line in rows]
    for number, file in enumerate(files):
        write_midi(tmp_path / "groove" / file, 36, 38 + number)
    write_audio(tmp_path / "groove" / files[3].replace(".mid", ".wav"))
    gone = row("drummer3", "session9", 1, "rock", "train")
    write_table(tmp_path / "groove" / "info.csv", HEADER, *rows, gone)
    pieces, passed_over = listing(GrooveConfig(path=tmp_path))
    assert list(map(len, works(pieces))) == [2, 2, 1]
    assert [piece.track.artist for piece in pieces] == [line.split(",")[0] for line in rows]
    assert [bool(piece.audio) for piece in pieces] == [False, False, False, True, False]
    assert pieces[0].track.tags == {
        "split": "test",
        "style": "funk/groove1",
        "tempo_bpm": "138",
        "metre": "4/4",
    }
    assert passed_over == {NOT_THERE: 1}
    assert pieces[0].track.license.startswith("CC BY 4.0")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no info\.csv .* extract groove"):
        listing(GrooveConfig(path=tmp_path))
