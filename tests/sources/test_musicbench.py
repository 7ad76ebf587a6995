"""MusicBench's layout becomes tracks that leak nothing; the set is `tests.support.musicbench`'s stand-in."""

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from etude.audio.decode import decode
from etude.data.catalogue import Catalogue
from etude.data.split import SplitConfig, split
from etude.errors import UserError
from etude.sources import MusicBenchConfig, SourceConfig, Track, build_source
from etude.sources.musicbench import MusicBenchSource, captions_of, clip_of
from tests.support.musicbench import ALPHABET, REGISTERS, Written, draw, render, write_musicbench

ROW = {
    "main_caption": "A slow piece.",
    "alt_caption": "A quiet tune.",
    "prompt_bpm": "The bpm is 60.",
    "prompt_key": "The key is A minor.",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_musicbench(tmp_path_factory.mktemp("musicbench"), 30, seconds=0.5, n_missing=3)


def opened(path: Path, **settings: Any) -> MusicBenchSource:
    return MusicBenchSource(MusicBenchConfig(path=path, **settings))


def by_location(path: Path, tracks: list[Track]) -> dict[str, Track]:
    prefix = (path.resolve() / "datashare").as_uri() + "/"
    return {track.uri.removeprefix(prefix): track for track in tracks}


def test_each_recording_is_one_track_with_all_its_captions(written: Written) -> None:
    source = opened(written.path)
    tracks = by_location(written.path, list(source.tracks()))
    assert set(tracks) == set(written.source) - written.missing
    assert source.skipped == {"files that are named and not there": 3}
    tests = [json.loads(line) for line in (written.path / "MusicBench_test_B.json").open()]
    for location, track in tracks.items():
        own = dict.fromkeys(written.captions[location])
        own |= dict.fromkeys(row["main_caption"] for row in tests if row["location"] == location)
        assert set(track.captions) <= set(own)
        assert len({caption.casefold() for caption in own}) == len(track.captions)
        assert track.clip == written.source[location] == track.work
        assert track.license == "CC-BY-SA-3.0"
        assert track.duration_s == pytest.approx(0.5)
    assert len(tests) == 4
    for row in tests:
        assert tracks[row["location"]].held_out
        assert row["main_caption"] in tracks[row["location"]].captions


def test_what_is_for_testing_is_held_out(written: Written) -> None:
    held_out = {track.clip for track in opened(written.path).tracks() if track.held_out}
    assert held_out == written.held_out
    tests = {track.clip for track in opened(written.path, hold_out_eval=False).tracks() if track.held_out}
    assert tests < held_out
    assert len(tests) == 4


def test_no_recording_is_in_two_sets(tmp_path: Path) -> None:
    """Judged by the sources that the set was made from, not by the clips that were read out of names."""
    written = write_musicbench(tmp_path, 2000, seconds=0.05, n_test=50, copies=1, seed=1)
    catalogue = Catalogue.of(opened(tmp_path).tracks())
    assert len(catalogue) == len(written.source) > 2800
    sets = split(catalogue, SplitConfig())
    sources = [
        {written.source[location] for location in by_location(tmp_path, members)} for members in sets.values()
    ]
    assert sum(map(len, sources)) == len(set.union(*sources)) == 2000
    assert {track.clip for track in sets["test"]} == written.held_out
    assert len(sources[1]) == pytest.approx(0.12 * (2000 - len(written.held_out)), rel=0.2)


def test_the_sound_is_there(written: Written) -> None:
    source = opened(written.path)
    for track in list(source.tracks())[:5]:
        audio = decode(asyncio.run(source.fetch(track)))
        assert audio.sample_rate == 16_000
        assert len(audio.samples) == 8_000
        assert abs(audio.samples).max() == pytest.approx(0.5, abs=0.01)


def test_sentences_are_added_to_the_main_caption_unless_it_holds_them() -> None:
    assert captions_of(ROW, ("main_caption", "alt_caption")) == ("A slow piece.", "A quiet tune.")
    assert captions_of(ROW, ("alt_caption",)) == ("A quiet tune.",)
    fields = ("prompt_key", "main_caption", "prompt_bpm", "prompt_ch")
    assert captions_of(ROW, fields) == ("A slow piece. The key is A minor. The bpm is 60.",)
    controlled = ROW | {"main_caption": "A slow piece. The bpm is 60."}
    assert captions_of(controlled, fields) == ("A slow piece. The bpm is 60. The key is A minor.",)
    assert captions_of(ROW | {"main_caption": None, "alt_caption": " "}, (*fields, "alt_caption")) == ()
    twice = ("main_caption", "prompt_bpm", "prompt_bpm", "main_caption")
    assert captions_of(ROW, twice) == ("A slow piece. The bpm is 60.",)
    assert captions_of(ROW | {"alt_caption": "a SLOW piece."}, ("main_caption", "alt_caption")) == (
        "A slow piece.",
    )


@given(st.text(ALPHABET, min_size=11, max_size=11), st.integers(0, 99), st.sampled_from("_-. (["))
def test_all_copies_of_a_clip_share_it(source: str, copy: int, mark: str) -> None:
    names = (f"data/{source}.wav", f"data_aug2/{source}{mark}{copy}.wav", f"{source}{mark}x_{copy}.flac")
    assert {clip_of(name) for name in names} == {source}


@pytest.mark.parametrize("name", ["short.wav", "recording_12_aug.wav", "a b c d e f g.wav", "曲.wav"])
def test_of_another_name_all_is_the_clip_and_it_is_counted(name: str, tmp_path: Path) -> None:
    assert clip_of(f"data/{name}") == name.removesuffix(".wav")
    written = write_musicbench(tmp_path, 5, seconds=0.1, n_test=1, copies=0)
    location = next(iter(written.source))
    for file in tmp_path.glob("*.json"):
        file.write_text(file.read_text().replace(location, f"data/{name}", 1))
    (tmp_path / "datashare" / location).rename(tmp_path / "datashare" / "data" / name)
    source = opened(tmp_path)
    assert name.removesuffix(".wav") in {track.clip for track in source.tracks()}
    assert source.skipped == {"names that do not begin with a YouTube id, each its own clip": 2}  # A and B


def test_arrays_are_read_as_lines_are(written: Written, tmp_path: Path) -> None:
    before = list(opened(written.path).tracks())
    for file in written.path.glob("*.json"):
        rows = [json.loads(line) for line in file.open()]
        (tmp_path / file.name).write_text(json.dumps(rows))
    (tmp_path / "datashare").symlink_to(written.path / "datashare")
    after = list(opened(tmp_path).tracks())
    assert [(t.id, t.captions, t.clip) for t in after] == [(t.id, t.captions, t.clip) for t in before]


def test_what_is_missing_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    write_musicbench(tmp_path, 5, seconds=0.1)
    (tmp_path / "MusicBench_test_B.json").rename(tmp_path / "moved.json")
    with pytest.raises(UserError, match=r"no MusicBench_test_B\.json in .* amaai-lab/MusicBench"):
        list(opened(tmp_path).tracks())
    (tmp_path / "moved.json").rename(tmp_path / "MusicBench_test_B.json")
    (tmp_path / "datashare").rename(tmp_path / "audio")
    with pytest.raises(UserError, match=r"no datashare in .* extract its MusicBench\.tar\.gz"):
        list(opened(tmp_path).tracks())
    (tmp_path / "datashare").mkdir()
    with pytest.raises(UserError, match="files that are named and not there"):
        list(opened(tmp_path).tracks())
    for file in tmp_path.glob("*.json"):
        file.write_text("")
    with pytest.raises(UserError, match="nothing is said of any file"):
        list(opened(tmp_path).tracks())
    with pytest.raises(UserError, match="no folder"):
        list(opened(tmp_path / "nowhere").tracks())


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (("prompt_key",), "name main_caption, alt_caption or both"),
        ((), "name main_caption, alt_caption or both"),
        (("alt_caption", "prompt_key"), "name it too"),
        (("caption",), "main_caption"),
    ],
)
def test_fields_that_make_no_captions_are_refused(fields: tuple[str, ...], why: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=why):
        MusicBenchConfig(path=tmp_path, captions=fields)


def test_what_shapes_the_catalogue_names_it_and_no_track(written: Written, tmp_path: Path) -> None:
    plain, other = opened(written.path), opened(written.path, captions=("main_caption", "prompt_bpm"))
    ids = {plain.id, other.id, opened(written.path, hold_out_eval=False).id, opened(tmp_path).id}
    assert len(ids) == 4
    adapter: TypeAdapter[SourceConfig] = TypeAdapter(SourceConfig)
    named = adapter.validate_python({"name": "musicbench", "path": str(written.path)})
    assert build_source(named, tmp_path).id == plain.id
    assert [track.id for track in plain.tracks()] == [track.id for track in other.tracks()]


def test_the_stand_in_sounds_as_it_says() -> None:
    random = Random(0)
    for sound in (draw(random) for _ in range(40)):
        samples = render(sound, 2.0)
        lowest, highest = REGISTERS[sound.register]
        strongest_hz = abs(np.fft.rfft(samples)).argmax() / 2
        assert lowest / 1.5 <= strongest_hz <= highest * 1.5
        first, last = abs(samples[:16_000]).max(), abs(samples[16_000:]).max()
        assert {"growing": first < last, "fading": first > last}.get(sound.loudness, True)
        loud = abs(samples.reshape(-1, 160)).max(axis=1) / abs(samples).max()
        assert (loud.min() < 0.1) == (sound.tempo != "held" or sound.loudness != "even")
        assert len({sound.caption(random) for _ in range(20)}) > 5
