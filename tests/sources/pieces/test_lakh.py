"""The Lakh MIDI dataset as it is published; it was not at hand, and its layout is written here."""

from hashlib import md5
from pathlib import Path

import pytest

from etude.errors import UserError
from etude.sources.described import PassedOver
from etude.sources.pieces import LakhConfig
from etude.sources.pieces.lakh import AGAIN, LakhPieces
from tests.support.pieces import listing, works, write_midi

HASHES = [md5(str(number).encode()).hexdigest() for number in range(4)]
TRACKS = ("TRAAAGR128F425B14B", "TRAAAZF12903CCCF6B")


def test_each_hash_is_a_work_of_its_own(tmp_path: Path) -> None:
    for number, name in enumerate(HASHES):
        write_midi(tmp_path / "lmd_full" / name[0] / f"{name}.mid", 50 + number)
    pieces, passed_over = listing(LakhConfig(path=tmp_path))
    assert len(works(pieces)) == 4 and not passed_over
    assert all(piece.label is None and piece.audio is None for piece in pieces)
    assert pieces[0].track.license.startswith("CC BY 4.0")
    first, _ = listing(LakhConfig(path=tmp_path, limit=2))
    assert first == pieces[:2]
    source = LakhPieces(LakhConfig(path=tmp_path))
    assert LakhPieces(LakhConfig(path=tmp_path, limit=2)).id != source.id
    performance = source.performance(next(source.pieces(PassedOver())))
    assert performance is not None and len(performance.pitch) == 1


def test_files_of_one_track_are_one_work_and_a_hash_is_listed_once(tmp_path: Path) -> None:
    folders = [tmp_path / "lmd_matched" / track[2] / track[3] / track[4] / track for track in TRACKS]
    for number, name in enumerate(HASHES[:3]):
        write_midi(folders[0] / f"{name}.mid", 50 + number)
    write_midi(folders[1] / f"{HASHES[0]}.mid", 50)
    write_midi(folders[1] / f"{HASHES[3]}.mid", 60)
    pieces, passed_over = listing(LakhConfig(path=tmp_path))
    assert sorted(map(sorted, works(pieces))) == sorted([sorted(HASHES[:3]), [HASHES[3]]])
    assert passed_over == {AGAIN: 1}


def test_copies_of_a_named_song_are_one_work(tmp_path: Path) -> None:
    for number, name in enumerate(("Yesterday.mid", "Yesterday.1.mid", "yesterday.2.MID", "Help!.mid")):
        write_midi(tmp_path / "clean_midi" / "The Beatles" / name, 50 + number)
    pieces, _ = listing(LakhConfig(path=tmp_path))
    assert sorted(map(len, works(pieces))) == [1, 3]
    assert {piece.track.artist for piece in pieces} == {"The Beatles"}


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no MIDI file .* extract lmd_full\.tar\.gz"):
        listing(LakhConfig(path=tmp_path))
