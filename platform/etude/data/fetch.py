"""The first step of preparing: bring the original bytes. Imports neither Ray nor torch, so it starts fast."""

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa

from etude.data.catalogue import track_of
from etude.errors import BadAudio, OutOfReach, is_disk_full
from etude.sources import SourceConfig, build_source


class Fetch:
    """Brings the original bytes of each track; an actor with several downloads under way.

    A track whose audio can never be had is marked `quarantined`, one that cannot be had now `unreachable`.
    """

    def __init__(self, source: SourceConfig, cache: Path, attempts: int, concurrency: int) -> None:
        self._source = build_source(source, cache)
        self._attempts = attempts
        self._slots = asyncio.Semaphore(concurrency)

    async def __call__(self, batch: pa.Table) -> pa.Table:
        rows = await asyncio.gather(*(self._fetch(row) for row in batch.to_pylist()))
        return pa.Table.from_pylist(rows, schema=FETCHED)

    async def _fetch(self, row: dict[str, Any]) -> dict[str, Any]:
        track = track_of(row["track"])
        async with self._slots:
            for attempt in range(1, self._attempts + 1):
                try:
                    return row | {"data": await self._source.fetch(track), "status": "", "reason": ""}
                except BadAudio as error:
                    return row | {"data": None, "status": "quarantined", "reason": str(error)}
                except OutOfReach as error:
                    reason = str(error)
                    break
                except OSError as error:
                    if is_disk_full(error):  # no track is out of reach, nor can any be kept
                        raise
                    reason = error.strerror or str(error)
                    if attempt < self._attempts:
                        await asyncio.sleep(0.2 * 2**attempt)
        return row | {"data": None, "status": "unreachable", "reason": f"cannot be fetched: {reason}"}


FETCHED = pa.schema(
    [
        ("track_id", pa.string()),
        ("track", pa.string()),
        ("need_features", pa.bool_()),
        ("need_targets", pa.list_(pa.bool_())),
        ("has_targets", pa.bool_()),
        ("data", pa.large_binary()),
        ("status", pa.string()),
        ("reason", pa.string()),
    ]
)
