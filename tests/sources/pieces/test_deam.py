"""DEAM as it is published; the set itself was not at hand, and this folder is written after its layout."""

from pathlib import Path

import pytest

from etude.errors import UserError
from etude.sources.described import NOT_THERE
from etude.sources.pieces import DeamConfig
from etude.sources.pieces.table import OUTSIDE_SCALE, UNREADABLE
from tests.support.pieces import listing, works, write_audio, write_table

SONGS = Path("annotations", "annotations averaged per song", "song_level")
HEADER = "song_id, valence_mean, valence_std, arousal_mean, arousal_std"


def write_deam(path: Path) -> None:
    write_table(
        path / SONGS / "static_annotations_averaged_songs_1_2000.csv",
        HEADER,
        "2,3.1,0.94,3,0.63",
        "3,1,0,9,0",
        "4,5.7,1.42,5.5,1.63",
        "5,9.5,1,5,1",
        "7,,1,5,1",
        "8,nan,1,5,1",
        "9,5",
    )
    write_table(
        path / SONGS / "static_annotations_averaged_songs_2000_2058.csv",
        f"{HEADER}, valence_ max_mean",
        "2001,9,0,1,0,9",
    )
    for song in (2, 3, 5, 7, 8, 9, 2001):
        write_audio(path / "MEMD_audio" / f"{song}.mp3", 200 + song)


def test_ratings_from_1_to_9_become_valence_and_arousal(tmp_path: Path) -> None:
    write_deam(tmp_path / "DEAM")
    pieces, passed_over = listing(DeamConfig(path=tmp_path))
    vad = {piece.track.title: piece.label.vad for piece in pieces if piece.label}
    assert vad["2"][:2] == pytest.approx(((3.1 - 5) / 4, (3 - 1) / 8))
    assert vad["3"][:2] == (-1, 1)
    assert vad["2001"][:2] == (1, 0)
    assert {piece.label.of for piece in pieces if piece.label} == {"listeners"}
    assert passed_over == {NOT_THERE: 1, UNREADABLE: 3, f"{OUTSIDE_SCALE} of 1 to 9": 1}
    assert works(pieces) == [["2"], ["3"], ["2001"]]
    assert all("Aljanaki" in piece.track.license and piece.midi is None for piece in pieces)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no static_annotations.* extract DEAM_Annotations\.zip"):
        listing(DeamConfig(path=tmp_path))
    table = write_table(tmp_path / "static_annotations_averaged_songs_1_2000.csv", "song_id,valence_mean")
    with pytest.raises(UserError, match=r"no folder MEMD_audio .* DEAM_audio\.zip"):
        listing(DeamConfig(path=tmp_path))
    write_audio(tmp_path / "MEMD_audio" / "2.mp3")
    with pytest.raises(UserError, match=r"1_2000\.csv has no column arousal_mean"):
        listing(DeamConfig(path=tmp_path))
    table.write_bytes(b"")
    with pytest.raises(UserError, match="has no column song_id"):
        listing(DeamConfig(path=tmp_path))
