"""What all readers share: nothing outside of the folder is read, and no piece is listed twice."""

import os
from pathlib import Path

import mutagen
import pytest

from etude.errors import BadAudio
from etude.sources.described import NOT_THERE, OUTSIDE, PassedOver
from etude.sources.pieces import LabelledConfig, VgmidiConfig
from etude.sources.pieces.files import TWICE
from etude.sources.pieces.labelled import LabelledPieces
from tests.support.pieces import listing, write_audio, write_midi, write_table


def test_a_file_outside_of_the_folder_is_never_read(tmp_path: Path) -> None:
    music = tmp_path / "music"
    secret = write_audio(tmp_path / "secret.wav", 300)
    write_audio(music / "a.wav")
    (music / "link.wav").symlink_to(secret)
    source = LabelledPieces(LabelledConfig(path=music))
    passed_over = PassedOver()
    (piece,) = source.pieces(passed_over)
    assert piece.track.title == "a" and passed_over.counts == {OUTSIDE: 1}
    (music / "a.wav").unlink()
    (music / "a.wav").symlink_to(secret)
    with pytest.raises(BadAudio, match="leaves"):
        source.read_audio(piece)


def test_a_line_that_repeats_a_piece_or_names_a_folder_is_counted(tmp_path: Path) -> None:
    write_midi(tmp_path / "a.mid")
    (tmp_path / "folder.mid").mkdir()
    header = "id,series,console,game,piece,midi,valence,arousal"
    lines = [f"{number},s,c,g,p,{name},1,1" for number, name in enumerate(("a.mid", "./a.mid", "folder.mid"))]
    write_table(tmp_path / "vgmidi_labelled.csv", header, *lines)
    pieces, passed_over = listing(VgmidiConfig(path=tmp_path))
    assert len(pieces) == 1 and passed_over == {TWICE: 1, NOT_THERE: 1}


def test_a_piece_changes_its_id_with_its_files_and_its_label(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    midi = write_midi(tmp_path / "a.mid")
    config = LabelledConfig(path=tmp_path)
    first = listing(config)[0][0]
    (tmp_path / "l.json").write_text('{"audio_path": "a.wav", "node_id": 3}')
    labelled = listing(config)[0][0]
    assert labelled.label is not None and labelled.track.id != first.track.id
    assert listing(config)[0][0].track.id == labelled.track.id
    os.utime(midi, (1, 1))
    assert listing(config)[0][0].track.id != labelled.track.id


def test_the_tags_of_a_recording_say_what_the_set_does_not(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.flac")
    file = mutagen.File(path, easy=True)
    file.update(title="Aria", artist="Bach", album="Goldberg", license="CC0", genre="Baroque")
    file.save()
    track = listing(LabelledConfig(path=tmp_path))[0][0].track
    assert (track.title, track.artist, track.license) == ("Aria", "Bach", "CC0")
    assert track.work == "Bach\nGoldberg" and track.tags == {"genre": "Baroque"}
