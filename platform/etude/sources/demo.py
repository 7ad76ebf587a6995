"""The demo library: real scores from music21's corpus, played by General MIDI instruments.

It lets every job run on a fresh machine, with no music and no network. A piece is parsed, arranged and
rendered when it is first fetched, and kept as FLAC; the same settings give the same samples everywhere.
"""

import asyncio
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from etude.emotion.performance import Performance
from etude.errors import UserError
from etude.sources.arrange import RULE, Arrangement, arrange
from etude.sources.base import Track
from etude.sources.demo_notes import demo_performance
from etude.sources.excerpt import read_parts
from etude.sources.midi import to_midi
from etude.sources.scores import COLLECTIONS, Score, choose, corpus_root, library

SAMPLE_RATE = 48_000  # Hz, the renderer's own
PEAK = 0.9  # of full scale
FADE_S = 0.5
SOUNDFONT_SHA256 = "82475b91a76de15cb28a104707d3247ba932e228bada3f47bba63c6b31aaf7a1"
SCORES_INSTALL = "pip install --force-reinstall --no-deps music21"
SOUNDFONT_INSTALL = "pip install --force-reinstall --no-deps pretty_midi==0.2.11.post0"


class DemoConfig(BaseModel):
    """Settings of the demo library."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["demo"] = "demo"
    pieces: int = Field(120, ge=1)  # the first of one seeded order: 120 are the first 120 of 200
    seed: int = 0  # chooses pieces, instruments and tempi
    max_duration_s: float = Field(30.0, ge=5.0, le=120.0)


class DemoSource:
    """The demo library as a `Source`; `cache` is the folder below which rendered pieces are kept."""

    def __init__(self, config: DemoConfig, cache: Path) -> None:
        self.config = config
        self.folder = cache / "demo"

    @property
    def id(self) -> str:
        """`demo-` and a hash of the settings and of all that shapes the sound."""
        return f"demo-{_hash(self.config.model_dump(), _sound())}"

    def tracks(self) -> Iterator[Track]:
        """List the pieces from the table of scores, parsing nothing.

        Raises UserError if the scores or the soundfont are not installed, or if there are fewer pieces.
        """
        root = corpus_root()
        soundfont()
        for score in choose(self.config.pieces, self.config.seed):
            if not (root / score.path).is_file():
                raise UserError(f"music21 came without {score.path}: run `{SCORES_INSTALL}`")
            yield self._track(score)

    async def fetch(self, track: Track) -> bytes:
        """The piece as a 16-bit stereo FLAC file at 48 kHz, from the cache or rendered now.

        Raises UserError for a track that was listed with other settings.
        """
        return await asyncio.to_thread(self._fetch, track)

    async def aclose(self) -> None:
        """Nothing stays open."""

    def performance(self, track: Track) -> Performance:
        """The notes that `fetch` renders. Raises UserError for a track listed with other settings."""
        score = self._score(track)
        return demo_performance(score, self._arrange(score))

    def midi(self, track: Track) -> bytes:
        """The MIDI file that `fetch` renders. Raises UserError for a track listed with other settings."""
        score = self._score(track)
        parts = read_parts(corpus_root() / score.path, score.tune, score.bars)
        return to_midi(parts, self._arrange(score))

    def _fetch(self, track: Track) -> bytes:
        path = self.folder / f"{track.id}.flac"
        if path.is_file():
            return path.read_bytes()
        flac = render(self.midi(track), self._arrange(self._score(track)).duration_s)
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.folder, prefix=".")
        with os.fdopen(descriptor, "wb") as file:
            file.write(flac)
        os.replace(temporary, path)
        return flac

    def _score(self, track: Track) -> Score:
        score = _by_uri().get(track.uri)
        if score is None or self._id(score) != track.id:
            raise UserError(
                f"{track.title} ({track.id}) was listed with other settings: list the library again"
            )
        return score

    def _arrange(self, score: Score) -> Arrangement:
        return arrange(score, self.config.seed, self.config.max_duration_s)

    def _id(self, score: Score) -> str:
        place = [score.uri, score.bars, score.quarters, score.metre, score.key, score.parts]
        return f"demo-{_hash(place, self.config.seed, self.config.max_duration_s, _sound())}"

    def _track(self, score: Score) -> Track:
        plan = self._arrange(score)
        tags = {
            "collection": score.collection,
            "key": score.key,
            "metre": score.metre or "unmeasured",
            "tempo_bpm": str(plan.tempo),
            "instruments": "; ".join(plan.instruments),
            "drums": "yes" if plan.drums else "no",
        }
        return Track(
            id=self._id(score),
            uri=score.uri,
            title=score.title,
            artist=score.composer,
            album=score.work,
            duration_s=plan.duration_s,
            license=COLLECTIONS[score.collection].license,
            tags=tags,
        )


def render(midi: bytes, duration_s: float) -> bytes:
    """A MIDI file as FLAC: 48 kHz, 16 bit, stereo, peak at 0.9 of full scale, half a second of fade-out."""
    import midirenderer

    wave = midirenderer.render_wave_from(soundfont(), midi)
    samples, sample_rate = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
    assert sample_rate == SAMPLE_RATE
    flac = io.BytesIO()
    soundfile.write(flac, _finish(samples, duration_s), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return flac.getvalue()


def _finish(samples: NDArray[np.float32], duration_s: float) -> NDArray[np.int16]:
    """Cut to length, fade and normalise: [n, 2] in [-1, 1] to [n, 2] in 16-bit steps."""
    n_samples = round(duration_s * SAMPLE_RATE)
    n_missing = max(0, n_samples - len(samples))
    samples = np.pad(samples[:n_samples], ((0, n_missing), (0, 0)))
    n_fade = round(FADE_S * SAMPLE_RATE)
    samples[-n_fade:] *= np.linspace(1, 0, n_fade, dtype=np.float32)[:, None]
    peak = np.abs(samples).max()
    assert peak > 0, "an arrangement always sounds"
    finished: NDArray[np.int16] = np.rint(samples * (PEAK * 32767 / peak)).astype(np.int16)
    return finished


@cache
def soundfont() -> bytes:
    """The General MIDI soundfont that the package pretty_midi ships, which is never imported.

    Raises UserError, with the command that mends it, if it is missing or another one.
    """
    spec = find_spec("pretty_midi")
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0]) / "TimGM6mb.sf2" if folders else None
    if path is None or not path.is_file():
        raise UserError(f"the demo library needs pretty_midi's soundfont: run `{SOUNDFONT_INSTALL}`")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SOUNDFONT_SHA256:
        raise UserError(f"{path} is not the soundfont that is expected: run `{SOUNDFONT_INSTALL}`")
    return content


@cache
def _by_uri() -> dict[str, Score]:
    return {score.uri: score for score in library()}


@cache
def _sound() -> list[str]:
    """All that shapes the samples beside the settings."""
    return [RULE, SOUNDFONT_SHA256, version("music21"), version("midirenderer")]


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
