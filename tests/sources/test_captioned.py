"""A folder of real audio files with captions that are good, bad, double, misplaced and missing."""

import asyncio
import json
import logging
import os
from pathlib import Path
from typing import Any

import mutagen
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from etude.errors import BadAudio, UserError
from etude.sources import CaptionedConfig, SourceConfig, Track, build_source
from etude.sources.captioned import CaptionedSource

TONE = 0.1 * np.sin(np.arange(8_000) / 10)  # half a second at 16 kHz


def audio(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, TONE, 16_000)
    return path


def write(folder: Path, *lines: dict[str, Any] | str) -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "captions.jsonl").write_text("\n".join(texts) + "\n")


def opened(folder: Path) -> CaptionedSource:
    return CaptionedSource(CaptionedConfig(path=folder))


def listing(folder: Path) -> list[Track]:
    return list(opened(folder).tracks())


def skipped(folder: Path) -> dict[str, int]:
    source = opened(folder)
    list(source.tracks())
    return source.skipped


def test_lines_become_the_catalogue(tmp_path: Path) -> None:
    path = audio(tmp_path / "a" / "b.flac")
    audio(tmp_path / "c.wav")
    write(
        tmp_path,
        {"file": "a/b.flac", "captions": ["A slow piece.", "Slow  and\nquiet"], "title": "Aria",
         "artist": "Bach", "clip": "aria", "held_out": True, "license": "CC0"},
        {"file": "c.wav", "caption": "静かな曲。"},
    )  # fmt: skip
    first, second = listing(tmp_path)
    assert first.captions == ("A slow piece.", "Slow and quiet")
    assert (first.title, first.artist, first.clip, first.license) == ("Aria", "Bach", "aria", "CC0")
    assert (first.held_out, first.work) == (True, "aria")
    assert first.duration_s == pytest.approx(0.5)
    assert first.n_bytes == path.stat().st_size
    assert (second.title, second.captions, second.license) == ("c", ("静かな曲。",), "unknown")
    assert (second.held_out, second.work) == (False, second.id)


def test_tags_say_what_a_line_does_not(tmp_path: Path) -> None:
    path = audio(tmp_path / "a.flac")
    tags = mutagen.File(path, easy=True)
    tags["title"], tags["artist"], tags["album"], tags["genre"] = "Aria", "Bach", "Variations", "Baroque"
    tags.save()
    write(tmp_path, {"file": "a.flac", "caption": "A slow piece.", "title": "Another"})
    (track,) = listing(tmp_path)
    assert (track.title, track.artist, track.album, track.tags["genre"]) == (
        "Another", "Bach", "Variations", "Baroque",
    )  # fmt: skip


def test_what_cannot_be_used_is_counted_told_once_and_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "set"
    for name in ("a.wav", "b.wav", "silent.wav", "unnamed.wav", "deep/unnamed.ogg"):
        audio(folder / name)
    audio(tmp_path / "outside.wav")
    (folder / "link.wav").symlink_to(tmp_path / "outside.wav")
    write(
        folder,
        {"file": "a.wav", "captions": ["A slow piece."]},
        "{no JSON",
        "",
        '"text"',
        {"caption": "Of no file"},
        {"file": "silent.wav", "captions": ["", "  ", 5, None]},
        {"file": "gone.wav", "caption": "A piece."},
        {"file": "deep", "caption": "A folder."},
        {"file": "nu\0ll.wav", "caption": "A piece."},
        {"file": "../outside.wav", "caption": "A piece."},
        {"file": str(tmp_path / "outside.wav"), "caption": "A piece."},
        {"file": "link.wav", "caption": "A piece."},
        {"file": "./a.wav", "captions": ["A SLOW piece.", "A second caption."]},
        {"file": "b.wav", "caption": "A piece.", "held_out": "perhaps"},
    )
    source = opened(folder)
    with caplog.at_level(logging.WARNING):
        first, second = source.tracks()
    assert (first.title, first.captions) == ("a", ("A slow piece.", "A second caption."))
    assert (second.title, second.held_out) == ("b", True)
    assert source.skipped == {
        "lines that are no JSON object": 2,
        "lines without a file": 1,
        "files that are named without captions": 1,
        "files that are named and not there": 3,
        "files that are named and lie outside of the folder": 3,
        "lines about a file that another line describes, put together": 1,
        "files held out since their held_out is neither true nor false": 1,
        "audio files that no line names": 2,
    }
    assert len(caplog.messages) == len(source.skipped)
    assert any("not there: 3, the first is gone.wav" in message for message in caplog.messages)
    assert any("no JSON object: 2, the first is captions.jsonl, line 2" in m for m in caplog.messages)
    list(source.tracks())
    assert source.skipped["files that are named and not there"] == 3  # of one listing, not of all


def test_a_list_without_faults_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    audio(tmp_path / "a.wav")
    write(tmp_path, {"file": "a.wav", "caption": "A piece."})
    assert skipped(tmp_path) == {}
    assert not caplog.messages


def test_one_array_is_read_as_lines_are(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        audio(tmp_path / name)
    rows = [{"file": "a.wav", "caption": "A piece."}, {"file": "b.wav", "caption": "Another."}]
    write(tmp_path, *rows)
    lines = listing(tmp_path)
    (tmp_path / "captions.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps([*rows, 5], indent=1).encode())
    assert listing(tmp_path) == lines
    assert skipped(tmp_path) == {"lines that are no JSON object": 1}


def test_what_is_wrong_with_the_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        listing(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r'no .*captions\.jsonl: write one line .*"file": "a/b\.flac"'):
        listing(tmp_path)
    write(tmp_path)
    with pytest.raises(UserError, match=r"no track .* \(nothing is said of any file\)"):
        listing(tmp_path)
    write(tmp_path, {"file": "a.wav", "caption": "A piece."}, {"file": "b.wav", "caption": "A piece."})
    with pytest.raises(UserError, match=r"not there: 2, the first is a\.wav"):
        listing(tmp_path)
    write(tmp_path, "[1, 2", "{")
    with pytest.raises(UserError, match="no JSON object: 2"):
        listing(tmp_path)
    (tmp_path / "captions.jsonl").unlink()
    (tmp_path / "captions.jsonl").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*captions\.jsonl"):
        listing(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=8)),
                lambda inner: st.one_of(
                    st.lists(inner, max_size=3),
                    st.dictionaries(
                        st.sampled_from(("file", "captions", "caption", "held_out", "clip", "title")), inner
                    ),
                ),
            ).map(lambda value: json.dumps(value).encode()),
        ),
        max_size=8,
    )
)
def test_whatever_the_lines_hold_the_good_one_is_listed(tmp_path: Path, lines: list[bytes]) -> None:
    if not (tmp_path / "good.wav").exists():
        audio(tmp_path / "good.wav")
    good = json.dumps({"file": "good.wav", "caption": "A piece."}).encode()
    (tmp_path / "captions.jsonl").write_bytes(b"\n".join([*lines, good]))
    (track,) = listing(tmp_path)
    assert "A piece." in track.captions
    json.dumps(vars(track))


def test_fetch_gives_the_file_and_none_outside(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    path = audio(folder / "Ä b#c%41?.flac")
    write(folder, {"file": path.name, "caption": "A piece."})
    source = opened(folder)
    (track,) = source.tracks()
    assert asyncio.run(source.fetch(track)) == path.read_bytes()
    path.unlink()
    with pytest.raises(OSError):
        asyncio.run(source.fetch(track))
    path.symlink_to(audio(tmp_path / "outside.flac"))
    with pytest.raises(BadAudio, match="leaves"):
        asyncio.run(source.fetch(track))


def test_the_id_of_a_track_follows_its_file_and_not_its_captions(tmp_path: Path) -> None:
    path = audio(tmp_path / "a.wav")
    write(tmp_path, {"file": "a.wav", "caption": "A piece."})
    (before,) = listing(tmp_path)
    write(tmp_path, {"file": "a.wav", "caption": "Another caption.", "clip": "x"})
    (said,) = listing(tmp_path)
    os.utime(path, ns=(1, 1))
    (changed,) = listing(tmp_path)
    assert before.id == said.id != changed.id


def test_configuration_chooses_the_source_by_name(tmp_path: Path) -> None:
    adapter: TypeAdapter[SourceConfig] = TypeAdapter(SourceConfig)
    config = adapter.validate_python({"name": "captioned", "path": "~/set"})
    assert isinstance(config, CaptionedConfig)
    assert config.path.is_absolute() and "~" not in str(config.path)
    assert build_source(config, tmp_path).id.startswith("captioned-")
