"""The original files of tracks as a browser asks for them: piece by piece, again and again."""

import asyncio
from collections import OrderedDict

from etude.sources.base import Source, Track

MAX_BYTES = 256 * 2**20  # kept in memory, so that the pieces of one file cost one fetch
AT_A_TIME = 4  # fetches
# Beginnings of files by container; what is none of them is left to the browser.
_BEGINNINGS = (
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (8, b"WAVE", "audio/wav"),
    (4, b"ftyp", "audio/mp4"),
    (8, b"AIF", "audio/aiff"),
    (0, b"\x1aE\xdf\xa3", "audio/webm"),
    (0, b"\x30\x26\xb2\x75", "audio/x-ms-wma"),
)


class Originals:
    """Files of a source, the last ones kept in memory up to `max_bytes`.

    Who asks for a file that is under way waits for that fetch.
    """

    def __init__(self, source: Source, max_bytes: int = MAX_BYTES) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._under_way: dict[str, asyncio.Task[bytes]] = {}
        self._slots = asyncio.Semaphore(AT_A_TIME)

    async def get(self, track: Track) -> bytes:
        """The original file. Raises what the source's `fetch` raises."""
        if track.id in self._kept:
            self._kept.move_to_end(track.id)
            return self._kept[track.id]
        task = self._under_way.get(track.id)
        if task is None:
            task = asyncio.create_task(self._fetch(track))
            self._under_way[track.id] = task
            task.add_done_callback(lambda done: self._under_way.pop(track.id, None))
        return await asyncio.shield(task)  # who leaves does not take it from the others

    async def aclose(self) -> None:
        """End what is under way, and close what fetching has opened."""
        under_way = list(self._under_way.values())
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._source.aclose()

    async def _fetch(self, track: Track) -> bytes:
        async with self._slots:
            data = await self._source.fetch(track)
        self._kept[track.id] = data
        while sum(map(len, self._kept.values())) > self._max_bytes:
            self._kept.popitem(last=False)
        return data


def content_type(data: bytes) -> str:
    """What a file is, by how it begins: its name may say nothing, or something else."""
    for offset, beginning, name in _BEGINNINGS:
        if data.startswith(beginning, offset):
            return name
    if data[:1] == b"\xff" and len(data) > 1 and data[1] & 0xE0 == 0xE0:
        return "audio/mpeg" if data[1] & 0x06 else "audio/aac"  # the layer bits of AAC's ADTS are zero
    return "application/octet-stream"
