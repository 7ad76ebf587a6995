"""The demo library as pieces: real scores, with their notes and their rendering, and without labels."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from etude.emotion.performance import Performance
from etude.sources.demo import DemoConfig, DemoSource
from etude.sources.described import PassedOver
from etude.sources.pieces.base import Piece


class DemoPieces:
    """The pieces of the demo library; each is found again by its place in the corpus of scores."""

    def __init__(self, config: DemoConfig, cache: Path) -> None:
        self._source = DemoSource(config, cache)

    @property
    def id(self) -> str:
        """That of the demo library."""
        return self._source.id

    def pieces(self, passed_over: PassedOver) -> Iterator[Piece]:
        """List the pieces, parsing nothing; none is passed over. Raises UserError as the library does."""
        for track in self._source.tracks():
            yield Piece(track, audio=track.uri, midi=track.uri, label=None)

    def read_audio(self, piece: Piece) -> bytes:
        """The rendering, as FLAC, from the cache or made now. Not to be called within an event loop."""
        return asyncio.run(self._source.fetch(piece.track))

    def read_midi(self, piece: Piece) -> bytes:
        """The MIDI file that is rendered; it states neither tempo nor metre, which `performance` knows."""
        return self._source.midi(piece.track)

    def performance(self, piece: Piece) -> Performance | None:
        """The notes as the rendering plays them, with the score's tempo and bars."""
        return self._source.performance(piece.track)
