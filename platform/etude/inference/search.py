"""A prepared library that can be asked by words: the pair of encoders, the index, and where the audio is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from etude.data.batches import open_features
from etude.data.store import Store
from etude.errors import UserError
from etude.export.text_projection import HEAD
from etude.inference.index import TrackIndex, open_index
from etude.inference.milvus_index import open_milvus_index
from etude.inference.pair import Pair, open_pair
from etude.inference.projection import Projection
from etude.inference.settings import Search
from etude.sources import (
    AudioMuseConfig,
    CaptionedConfig,
    DemoConfig,
    FolderConfig,
    JellyfinConfig,
    MusicBenchConfig,
    SourceConfig,
    SubsonicConfig,
    build_source,
)
from etude.sources.base import Source, Track
from etude.storage.cache import DiskCache
from etude.storage.files import Files

SHARDS_BYTES = 50e9  # of a library on S3 that is kept beside
Found = list[tuple[Track, float]]  # with their cosines, best first


class Reader(Protocol):
    """Texts, and recordings of the user's own, to vectors in the space of a library's."""

    folder: Path  # of the files that do it

    def text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, dim]. Raises UserError if a text is empty or too long."""
        ...

    def knows(self, text: str) -> bool:
        """Whether a text's vector says anything."""
        ...

    def file(self, path: Path) -> NDArray[np.float32]:
        """The vector [dim] of an audio file. Raises UserError if it cannot be used."""
        ...


@dataclass(frozen=True)
class Searchable:
    """What `jobs/search.py` asks, by itself or for its page."""

    place: str  # where the music is, in words
    reader: Reader
    index: TrackIndex
    source: Source

    @property
    def name(self) -> str:
        """How large the library is, which, and who hears it."""
        n = len(self.index)
        tracks = "1 track" if n == 1 else f"{n:,} tracks"
        return f"{tracks} of {self.place}, heard by {self.reader.folder.name}"

    def find(self, query: str, k: int) -> Found:
        """The k tracks nearest to a text. Raises UserError if it is empty or too long."""
        return self.index.search(self.reader.text([query])[0], k)

    def like(self, path: Path, k: int) -> Found:
        """The k tracks nearest to an audio file. Raises UserError if it cannot be used."""
        return self.index.search(self.reader.file(path), k)


def open_search(settings: Search, progress: Callable[[int, int, float], None]) -> Searchable:
    """Open the files that read and the library's vectors; compute those that are not kept yet.

    Raises UserError if there is no export, its files do not fit each other, the query cannot be used, or
    nothing was prepared with its recipe.
    """
    if settings.model is None:
        raise UserError(
            f"there is no export below {settings.home / 'exports'}: train one with jobs/train_music_text.py "
            "or jobs/train_projection.py, or give --model FOLDER"
        )
    cache = settings.home / "cache"
    source = build_source(settings.source, cache)
    reader: Pair | Projection
    if (settings.model / HEAD).is_file():
        reader = Projection(settings.model, settings.home)
    else:
        reader = open_pair(settings.model, settings.text)
    if settings.query:  # what is wrong with it is said before a whole library is heard
        reader.text([settings.query])
    if isinstance(reader, Projection):
        tracks, vectors_ND = reader.library(source)
    else:
        place = Files(settings.storage or settings.home)
        store = Store(place.at("store"), DiskCache(cache / "shards", SHARDS_BYTES))
        rows = open_features(store, source.id, reader.recipe)
        tracks, vectors_ND = [row.track for row in rows], reader.tracks(rows, cache / "nearest", progress)
    folder = cache / "search" / f"{source.id}-{reader.hash}"
    index: TrackIndex
    if settings.index == "milvus":
        milvus = cache / "milvus"
        index = open_milvus_index(tracks, vectors_ND, settings.milvus, reader.hash, milvus, progress)
    else:
        index = open_index(tracks, vectors_ND, folder)
    return Searchable(_place(settings.source), reader, index, source)


def listing(found: Found) -> str:
    """A line a track: place, cosine, title and artist."""
    lines = (
        f"{place:3} {cosine:6.3f}  {_line(track.title)} ({_line(track.artist) or 'unknown'})"
        for place, (track, cosine) in enumerate(found, start=1)
    )
    return "\n".join(lines)


def _place(source: SourceConfig) -> str:
    match source:
        case FolderConfig() | CaptionedConfig():
            return f"the folder {_line(source.path.name)}"
        case JellyfinConfig() | SubsonicConfig():
            return source.url
        case AudioMuseConfig():
            return f"AudioMuse-AI with {_place(source.audio)}"
        case MusicBenchConfig():
            return "MusicBench"
        case DemoConfig():
            return "the demo library"


def _line(text: str) -> str:
    """Tags may hold what moves a terminal's cursor."""
    return "".join(character if character.isprintable() else " " for character in text).strip()
