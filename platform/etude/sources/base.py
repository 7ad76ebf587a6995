"""What every source of tracks offers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Track:
    """One piece of music, without its audio.

    `id` is stable, unique over all sources and safe as a file name; it changes when the audio changes.
    `work` names what must not be split between training and validation (an album, a mass, a quartet, a clip).
    """

    id: str
    uri: str  # where the source finds it again
    title: str
    artist: str = ""
    album: str = ""
    duration_s: float | None = None  # None: not known before decoding
    n_bytes: int | None = None  # None: not known before fetching
    license: str = "unknown"
    tags: Mapping[str, str] = field(default_factory=dict)
    captions: tuple[str, ...] = ()  # that came with the music
    clip: str = ""  # the recording that this is an excerpt or an altered copy of
    held_out: bool = False  # its source says that it is for testing only

    @property
    def work(self) -> str:
        """The clip; else the album with its artist; a track with neither is its own work."""
        album = f"{self.artist}\n{self.album}" if self.album else ""
        return self.clip or album or self.id


class Source(Protocol):
    """A place where tracks come from."""

    @property
    def id(self) -> str:
        """Names this source's catalogue in the store: kind plus a hash of its settings."""
        ...

    def tracks(self) -> Iterator[Track]:
        """List the library cheaply, in a stable order, never opening more than the tags.

        Raises UserError when there is no such library or no right to read it.
        """
        ...

    async def fetch(self, track: Track) -> bytes:
        """The original file. Raises OSError when it cannot be had now, BadAudio when it never can.

        A source that tries again by itself raises OutOfReach in the end, an OSError that ends the trying.
        """
        ...

    async def aclose(self) -> None:
        """Close what fetching has opened."""
        ...
