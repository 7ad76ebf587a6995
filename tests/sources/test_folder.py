"""A folder of real audio files, tagged and untagged, whole and damaged."""

import asyncio
import os
import struct
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutagen.id3 import ID3, TALB, TCOP, TIT2, TPE1
from mutagen.wave import WAVE
from pydantic import TypeAdapter, ValidationError

from etude.errors import UserError
from etude.sources import FolderConfig, SourceConfig, Track, build_source

TONE = 0.1 * np.sin(np.arange(22_050) / 10)  # half a second at 44.1 kHz


def write(path: Path, **tags: str) -> Path:
    """A real audio file with tags in its format's own scheme."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".mp3": "MP3", ".flac": "FLAC", ".wav": "WAV", ".ogg": "OGG"}[path.suffix.lower()]
    soundfile.write(path, TONE, 44_100, format=kind)
    if tags:
        file = mutagen.File(path, easy=True)
        if file.tags is None:
            file.add_tags()
        for name, value in tags.items():
            file[name] = value
        file.save()
    return path


def listing(path: Path) -> list[Track]:
    return list(build_source(FolderConfig(path=path), path).tracks())


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".ogg"])
def test_tags_become_the_catalogue(tmp_path: Path, suffix: str) -> None:
    path = write(
        tmp_path / f"a{suffix}",
        title="Aria",
        artist="Bach",
        album="Variations",
        copyright="CC0",
        genre="Baroque",
    )
    (track,) = listing(tmp_path)
    assert (track.title, track.artist, track.album, track.license) == ("Aria", "Bach", "Variations", "CC0")
    assert track.tags["genre"] == "Baroque"
    assert track.duration_s == pytest.approx(0.5, abs=0.1)
    assert track.n_bytes == path.stat().st_size


def test_plain_id3_in_a_wav_file_is_read(tmp_path: Path) -> None:
    file = WAVE(write(tmp_path / "a.wav"))
    file.add_tags()
    assert isinstance(file.tags, ID3)
    for frame in (TIT2(text="Aria"), TPE1(text="Bach"), TALB(text="Variations"), TCOP(text="1999 X")):
        file.tags.add(frame)
    file.save()
    (track,) = listing(tmp_path)
    assert (track.title, track.artist, track.album, track.license) == ("Aria", "Bach", "Variations", "1999 X")


def test_names_stand_in_for_missing_tags(tmp_path: Path) -> None:
    write(tmp_path / "loose.wav")
    write(tmp_path / "Album" / "first.WAV")
    loose, first = listing(tmp_path)
    assert (first.title, first.album, first.license) == ("first", "Album", "unknown")
    assert (loose.title, loose.album) == ("loose", "")
    assert loose.work == loose.id  # a file without an album is its own work


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from([b"", b"ID3\x03\x00\x00", b"fLaC", b"OggS", b"RIFF", b"\0\0\0\x18ftypM4A "]),
    body=st.binary(),
)
def test_damaged_files_are_listed_without_tags(tmp_path: Path, head: bytes, body: bytes) -> None:
    for suffix in (".mp3", ".flac", ".ogg", ".wav", ".m4a", ".wma", ".aiff", ".opus", ".aac"):
        (tmp_path / f"bad{suffix}").write_bytes(head + body)
    assert [track.title for track in listing(tmp_path)] == ["bad"] * 9


def test_fetch_gives_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "Ä b#c%41?.flac")
    source = build_source(FolderConfig(path=tmp_path), tmp_path)
    (track,) = source.tracks()
    assert asyncio.run(source.fetch(track)) == path.read_bytes()
    path.unlink()
    with pytest.raises(OSError):
        asyncio.run(source.fetch(track))


def test_a_name_that_is_not_utf8_is_fetched_and_printable(tmp_path: Path) -> None:
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9.wav")
    content = write(tmp_path / "a.wav").read_bytes()
    os.rename(tmp_path / "a.wav", name)
    source = build_source(FolderConfig(path=tmp_path), tmp_path)
    (track,) = source.tracks()
    assert track.id.isascii() and track.uri.isascii()
    assert track.title.encode() == "caf\N{REPLACEMENT CHARACTER}".encode()
    assert asyncio.run(source.fetch(track)) == content


def test_order_is_stable_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("b/2.wav", "b/1.wav", "a.wav", ".hidden.wav", ".trash/x.wav", "b/._1.wav"):
        write(tmp_path / name)
    (tmp_path / "cover.jpg").write_bytes(b"x")
    assert [track.title for track in listing(tmp_path)] == ["a", "1", "2"]
    assert listing(tmp_path) == listing(tmp_path)


def test_links_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "music" / "a" / "x.wav")
    write(tmp_path / "elsewhere" / "y.wav")
    (tmp_path / "music" / "a" / "up").symlink_to(tmp_path / "music")
    (tmp_path / "music" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "music" / "gone.wav").symlink_to(tmp_path / "nothing.wav")
    assert [track.title for track in listing(tmp_path / "music")] == ["x", "y"]


def test_id_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    path = write(tmp_path / "one" / "x.wav")
    (before,) = listing(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")
    (moved,) = listing(tmp_path / "two")
    os.utime(tmp_path / "two" / path.name, ns=(1, 1))
    (changed,) = listing(tmp_path / "two")
    assert before.id == moved.id != changed.id
    sources = [build_source(FolderConfig(path=tmp_path / name), tmp_path) for name in ("one", "two")]
    assert sources[0].id != sources[1].id


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "Music" / "x.wav")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [track.title for track in listing(Path("~/Music"))] == ["x"]


def test_what_is_wrong_with_the_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        listing(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(struct.pack("<i", 1))
    with pytest.raises(UserError, match="not a folder"):
        listing(tmp_path / "file")
    with pytest.raises(UserError, match="no audio file"):
        listing(tmp_path)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)  # file modes would not stop a test that runs as root
    with pytest.raises(UserError, match="no right to read"):
        listing(tmp_path)


def test_configuration_chooses_the_source_by_name(tmp_path: Path) -> None:
    adapter: TypeAdapter[SourceConfig] = TypeAdapter(SourceConfig)
    config = adapter.validate_python({"name": "folder", "path": str(tmp_path)})
    assert build_source(config, tmp_path).id.startswith("folder-")
    assert build_source(adapter.validate_python({"name": "demo"}), tmp_path).id.startswith("demo-")
    for wrong in (
        {"name": "folder", "path": "x", "depth": 3},
        {"name": "tape"},
        {"name": "demo", "pieces": 0},
    ):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)
