"""MAESTRO as it is published; the set itself was not at hand, and this folder is written after its layout."""

from pathlib import Path

import pytest

from etude.errors import UserError
from etude.sources.described import NOT_THERE
from etude.sources.pieces import MaestroConfig
from tests.support.pieces import listing, works, write_audio, write_midi, write_table

HEADER = "canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration"


def test_performances_of_one_composition_stay_together(tmp_path: Path) -> None:
    root = tmp_path / "maestro-v3.0.0"
    write_table(
        root / "maestro-v3.0.0.csv",
        HEADER,
        "Alban Berg,Sonata Op. 1,train,2018,2018/a.midi,2018/a.wav,698.66",
        "Alban Berg,Sonata Op. 1,train,2008,2008/b.midi,2008/b.wav,759.51",
        '"Bach, J. S.","Prelude, in C",test,2018,2018/c.midi,2018/c.wav,20.0',
        "Alban Berg,Gone,test,2018,2018/d.midi,2018/d.wav,20.0",
    )
    for number, name in enumerate(("2018/a", "2008/b", "2018/c")):
        write_midi(root / f"{name}.midi", 50 + number)
    write_audio(root / "2018" / "a.wav")
    pieces, passed_over = listing(MaestroConfig(path=tmp_path))
    assert works(pieces) == [["Sonata Op. 1"] * 2, ["Prelude, in C"]]
    assert [bool(piece.audio) for piece in pieces] == [True, False, False]
    assert [piece.track.tags["split"] for piece in pieces] == ["train", "train", "test"]
    assert not any(piece.track.held_out or piece.label for piece in pieces)
    assert passed_over == {NOT_THERE: 1}
    assert pieces[0].track.license.startswith("CC BY-NC-SA 4.0")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no maestro-v\*\.csv .* extract maestro"):
        listing(MaestroConfig(path=tmp_path))
