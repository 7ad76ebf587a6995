"""Fetching from a source as a job does: side by side, on one event loop, closed at the end."""

import asyncio
from collections.abc import Sequence

from etude.sources.base import Source, Track
from etude.sources.jellyfin import JellyfinSource
from etude.sources.subsonic import SubsonicSource


def fetch_all(opened: Source, tracks: Sequence[Track]) -> list[bytes]:
    """The files of the tracks, in their order."""

    async def run() -> list[bytes]:
        try:
            return await asyncio.gather(*(opened.fetch(track) for track in tracks))
        finally:
            await opened.aclose()

    return asyncio.run(run())


def fetch_item(opened: JellyfinSource | SubsonicSource, item_id: str) -> bytes:
    """The file of an item by the server's own id."""

    async def run() -> bytes:
        try:
            return await opened.fetch_item(item_id)
        finally:
            await opened.aclose()

    return asyncio.run(run())
