"""The demo library: what it lists, and the sound of it."""

import asyncio
import io
import os
import subprocess
import sys
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.errors import UserError
from etude.sources import DemoConfig, Track, build_source, demo
from etude.sources.arrange import arrange
from etude.sources.base import Source
from etude.sources.excerpt import Note
from etude.sources.midi import to_midi
from etude.sources.scores import library


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return build_source(DemoConfig(), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def tracks(source: Source) -> list[Track]:
    return list(source.tracks())


def python(code: str, **environment: str) -> str:
    """What a fresh process prints."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "random"} | environment
    return subprocess.run(
        [sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True
    ).stdout


def test_the_catalogue_tells_what_a_listener_asks(tracks: list[Track]) -> None:
    assert len(tracks) == len({track.id for track in tracks}) == 120
    for track in tracks:
        assert track.id.isascii() and track.id.startswith("demo-") and "/" not in track.id
        assert track.title and track.artist and track.album and track.license != "unknown"
        assert {"key", "metre", "tempo_bpm", "instruments"} <= track.tags.keys()
        assert track.duration_s is not None and 5 < track.duration_s <= 30
    assert np.mean([track.duration_s >= 20 for track in tracks if track.duration_s]) > 0.9


def test_listing_parses_no_score() -> None:
    code = (
        "import sys, pathlib; from etude.sources import DemoConfig, build_source;"
        "list(build_source(DemoConfig(), pathlib.Path('cache')).tracks());"
        "print([name for name in ('music21', 'pretty_midi') if name in sys.modules])"
    )
    assert python(code).strip() == "[]"


def test_a_piece_is_flac_of_the_length_that_was_listed(source: Source, tracks: list[Track]) -> None:
    for track in tracks[:2]:
        data = asyncio.run(source.fetch(track))
        info = soundfile.info(io.BytesIO(data))
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("FLAC", "PCM_16", 48_000, 2)
        assert info.duration == pytest.approx(track.duration_s)
        samples, _ = soundfile.read(io.BytesIO(data))
        assert np.abs(samples).max() == pytest.approx(0.9, abs=0.001)
        assert np.abs(samples[-100:]).max() < 0.01  # faded out
        assert np.abs(samples[:48_000]).max() > 0.01  # starts at once


def test_another_process_renders_the_same_bytes_and_writes_only_to_its_cache(
    source: Source, tracks: list[Track], tmp_path: Path
) -> None:
    for name in ("cache", "home", "tmp"):
        (tmp_path / name).mkdir()
    code = (
        "import asyncio, pathlib; from etude.sources import DemoConfig, build_source;"
        f"source = build_source(DemoConfig(), pathlib.Path({str(tmp_path / 'cache')!r}));"
        "tracks = list(source.tracks())[:2]; [asyncio.run(source.fetch(track)) for track in tracks]"
    )
    python(code, HOME=str(tmp_path / "home"), TMPDIR=str(tmp_path / "tmp"))
    assert [*(tmp_path / "home").iterdir(), *(tmp_path / "tmp").iterdir()] == []
    assert len(list((tmp_path / "cache" / "demo").iterdir())) == 2
    for track in tracks[:2]:
        there = (tmp_path / "cache" / "demo" / f"{track.id}.flac").read_bytes()
        assert asyncio.run(source.fetch(track)) == there


def test_fetching_at_once_and_again_gives_the_same(tmp_path: Path) -> None:
    source = build_source(DemoConfig(pieces=2, max_duration_s=5), tmp_path)
    first, second = source.tracks()

    async def together() -> list[bytes]:
        return await asyncio.gather(*(source.fetch(track) for track in (first, second, first)))

    one, two, again = asyncio.run(together())
    assert one == again != two
    (tmp_path / "demo" / f"{first.id}.flac").write_bytes(b"kept")
    assert asyncio.run(source.fetch(first)) == b"kept"


def test_settings_that_change_the_sound_change_the_ids(tmp_path: Path, tracks: list[Track]) -> None:
    usual = {track.uri: track.id for track in tracks}
    more = build_source(DemoConfig(pieces=121), tmp_path)
    assert [track.id for track in more.tracks()][:120] == [track.id for track in tracks]
    for config in (DemoConfig(seed=1), DemoConfig(max_duration_s=10)):
        other = build_source(config, tmp_path)
        assert all(track.id != usual.get(track.uri) for track in other.tracks())
        with pytest.raises(UserError, match="other settings"):
            asyncio.run(other.fetch(tracks[0]))


def test_a_missing_soundfont_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    demo.soundfont.cache_clear()
    with pytest.raises(UserError, match=r"pip install .*pretty_midi"):
        list(build_source(DemoConfig(), tmp_path).tracks())


@settings(max_examples=40)
@given(
    number=st.integers(0, 1000),
    seed=st.integers(0, 2**63),
    max_duration_s=st.floats(5, 120),
    pitches=st.lists(st.integers(0, 127), min_size=1, max_size=8),
)
def test_any_arrangement_is_a_valid_midi_file_of_its_length(
    number: int, seed: int, max_duration_s: float, pitches: list[int]
) -> None:
    score = library()[number]
    plan = arrange(score, seed, max_duration_s)
    assert plan == arrange(score, seed, max_duration_s)
    assert 60 <= plan.tempo <= 160 and plan.duration_s <= max_duration_s + 0.001
    assert plan.duration_s >= min(max_duration_s, 2 / 3 * max_duration_s)
    part = [Note(float(i), 1.0, pitch) for i, pitch in enumerate(pitches)]
    file = mido.MidiFile(file=io.BytesIO(to_midi([part] * score.parts, plan)))
    assert file.length == pytest.approx(plan.duration_s, abs=0.002)
    notes = [message for message in file if message.type == "note_on"]
    assert notes and all(0 < note.velocity <= 127 for note in notes)


def test_arrangements_are_varied(tracks: list[Track]) -> None:
    instruments = {name for track in tracks for name in track.tags["instruments"].split("; ")}
    assert len(instruments) > 15
    tempi = [int(track.tags["tempo_bpm"]) for track in tracks]
    assert min(tempi) < 75 and max(tempi) > 145
    assert 5 < sum(track.tags["drums"] == "yes" for track in tracks) < 60
