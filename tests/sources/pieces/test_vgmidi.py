"""VGMIDI as it is published; the set itself was not at hand, and this folder is written after its layout."""

from pathlib import Path

import pytest

from etude.errors import UserError
from etude.sources.described import NOT_THERE
from etude.sources.pieces import VgmidiConfig
from tests.support.pieces import listing, works, write_midi, write_table

HEADER = "id,series,console,game,piece,midi,valence,arousal"
PHRASES = "labelled/phrases"


def test_phrases_carry_two_signs_and_pieces_stay_together(tmp_path: Path) -> None:
    names = [f"Other_N64_GoldenEye 007_{name}.mid" for name in ("Caverns_0", "Caverns_1", "Dam_0", "Gone_0")]
    for number, name in enumerate(names[:3]):
        write_midi(tmp_path / PHRASES / name, 50 + number)
    write_table(
        tmp_path / "vgmidi_labelled.csv",
        HEADER,
        f"8016,Other,N64,GoldenEye 007,Caverns,{PHRASES}/{names[0]},-1,-1",
        f"8016,Other,N64,GoldenEye 007,Caverns,{PHRASES}/{names[1]},-1,1",
        f"8076,Other,N64,GoldenEye 007,Dam,{PHRASES}/{names[2]},1,1",
        f"8077,Other,N64,GoldenEye 007,Gone,{PHRASES}/{names[3]},1,1",
        f"8078,Other,N64,GoldenEye 007,Half,{PHRASES}/{names[2]},0.5,1",
        "8079,Other,N64,GoldenEye 007,None,,1,1",
    )
    pieces, passed_over = listing(VgmidiConfig(path=tmp_path))
    assert [p.label.vad[:2] for p in pieces if p.label] == [(-0.5, 0.25), (-0.5, 0.75), (0.5, 0.75)]
    assert works(pieces) == [["GoldenEye 007: Caverns"] * 2, ["GoldenEye 007: Dam"]]
    assert passed_over == {
        NOT_THERE: 1,
        "labels that are neither 1 nor -1": 1,
        "lines without a file": 1,
    }
    assert "research" in pieces[0].track.license


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no vgmidi_labelled\.csv .* lucasnfe/vgmidi"):
        listing(VgmidiConfig(path=tmp_path))
