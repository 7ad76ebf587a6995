"""PMEmo as it is published; the set itself was not at hand, and this folder is written after its layout."""

from pathlib import Path

import pytest

from etude.errors import UserError
from etude.sources.described import NOT_THERE
from etude.sources.pieces import PmemoConfig
from etude.sources.pieces.table import OUTSIDE_SCALE
from tests.support.pieces import listing, works, write_audio, write_table


def test_ratings_from_0_to_1_become_valence_and_arousal(tmp_path: Path) -> None:
    root = tmp_path / "PMEmo2019"
    write_table(
        root / "annotations" / "static_annotations.csv",
        "musicId,Arousal(mean),Valence(mean)",
        "1,0.9,0.25",
        "4,0.5,1",
        "5,0.1,0.1",
        "6,-0.1,0.5",
    )
    write_table(
        root / "metadata.csv",
        "musicId,fileName,title,artist,album,duration,chorus_start_time,chorus_end_time",
        '1,1.mp3,"Good, Thing",Sage,Same Album,20,00:10,00:30',
        "4,4.mp3,Second,Sage,Same Album,20,00:10,00:30",
    )
    for song in (1, 4, 6):
        write_audio(root / "chorus" / f"{song}.mp3", 300 + song)
    pieces, passed_over = listing(PmemoConfig(path=tmp_path))
    assert [(p.track.title, p.track.artist) for p in pieces] == [("Good, Thing", "Sage"), ("Second", "Sage")]
    assert [p.label.vad[:2] for p in pieces if p.label] == [(-0.5, 0.9), (1, 0.5)]
    assert passed_over == {NOT_THERE: 1, f"{OUTSIDE_SCALE} of 0 to 1": 1}
    assert works(pieces) == [["Good, Thing"], ["Second"]]
    assert all("Zhang" in piece.track.license for piece in pieces)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no static_annotations\.csv .* extract PMEmo2019\.zip"):
        listing(PmemoConfig(path=tmp_path))
