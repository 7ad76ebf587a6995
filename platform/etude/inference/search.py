"""A prepared library that can be asked by words: the pair of encoders, the index, and where the audio is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from etude.data.batches import open_features
from etude.data.store import Store
from etude.errors import UserError
from etude.inference.index import Index, open_index
from etude.inference.pair import Pair, open_pair
from etude.inference.settings import Search
from etude.sources import (
    AudioMuseConfig,
    DemoConfig,
    FolderConfig,
    JellyfinConfig,
    SourceConfig,
    SubsonicConfig,
    build_source,
)
from etude.sources.base import Source, Track

Found = list[tuple[Track, float]]  # with their cosines, best first


@dataclass(frozen=True)
class Searchable:
    """What `jobs/search.py` asks, by itself or for its page."""

    place: str  # where the music is, in words
    pair: Pair
    index: Index
    source: Source

    @property
    def name(self) -> str:
        """How large the library is, which, and who hears it."""
        n = len(self.index)
        tracks = "1 track" if n == 1 else f"{n:,} tracks"
        return f"{tracks} of {self.place}, heard by {self.pair.music.parent.name}"

    def find(self, query: str, k: int) -> Found:
        """The k tracks nearest to a text. Raises UserError if it is empty or too long."""
        return self.index.search(self.pair.text([query])[0], k)

    def like(self, path: Path, k: int) -> Found:
        """The k tracks nearest to an audio file. Raises UserError if it cannot be used."""
        return self.index.search(self.pair.file(path), k)


def open_search(settings: Search, progress: Callable[[int, int, float], None]) -> Searchable:
    """Open the pair and the library's features; compute the vectors that are not kept yet.

    Raises UserError if there is no export, its files do not fit each other, the query cannot be used, or
    nothing was prepared with its recipe.
    """
    if settings.model is None:
        raise UserError(
            f"there is no export below {settings.home / 'exports' / 'music-text'}: train one with "
            "jobs/train_music_text.py, or give --model FOLDER"
        )
    pair = open_pair(settings.model, settings.text)
    if settings.query:  # what is wrong with it is said before a whole library is heard
        pair.text([settings.query])
    cache = settings.home / "cache"
    source = build_source(settings.source, cache)
    rows = open_features(Store(settings.home / "store"), source.id, pair.recipe)
    vectors_ND = pair.tracks(rows, cache / "nearest", progress)
    index = open_index([row.track for row in rows], vectors_ND, cache / "search" / f"{source.id}-{pair.hash}")
    return Searchable(_place(settings.source), pair, index, source)


def listing(found: Found) -> str:
    """A line a track: place, cosine, title and artist."""
    lines = (
        f"{place:3} {cosine:6.3f}  {_line(track.title)} ({_line(track.artist) or 'unknown'})"
        for place, (track, cosine) in enumerate(found, start=1)
    )
    return "\n".join(lines)


def _place(source: SourceConfig) -> str:
    match source:
        case FolderConfig():
            return f"the folder {_line(source.path.name)}"
        case JellyfinConfig() | SubsonicConfig():
            return source.url
        case AudioMuseConfig():
            return f"AudioMuse-AI with {_place(source.audio)}"
        case DemoConfig():
            return "the demo library"


def _line(text: str) -> str:
    """Tags may hold what moves a terminal's cursor."""
    return "".join(character if character.isprintable() else " " for character in text).strip()
