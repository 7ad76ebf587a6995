"""A student over a whole library: fetches under way side by side, every track accounted for."""

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from etude.errors import BadAudio, OutOfReach
from etude.inference.student import Student
from etude.inference.vectors import VectorFolder
from etude.sources.base import Source, Track

PART_TRACKS = 256  # tracks a file of vectors, at most
PART_S = 30.0  # after which vectors that are there are written, however few
BACK_OFF_S = 0.2


@dataclass(frozen=True)
class Limits:
    """How much is tried, and how much at a time."""

    attempts: int  # fetches of one track
    under_way: int  # tracks being fetched or embedded


@dataclass(frozen=True, eq=False)
class Embedded:
    """A track with its vector [dim], or with the reason why it has none."""

    track: Track
    vector: NDArray[np.float32] | None
    reason: str = ""


@dataclass
class EmbedReport:
    """What a run did. Every track is in exactly one of the three counts."""

    total: int
    found: int = 0  # there before
    embedded: int = 0
    failed: list[Embedded] = field(default_factory=list)

    def describe(self) -> str:
        """Counts, and what was wrong with the tracks that failed."""
        lines = [f"embedded {self.embedded} of {self.total} tracks, {self.found} were there before"]
        reasons = Counter(one.reason for one in self.failed)
        lines += [f"  without a vector: {count}, {reason}" for reason, count in reasons.most_common(10)]
        if len(reasons) > 10:
            lines.append(f"  and {len(reasons) - 10} more reasons")
        return "\n".join(lines)


def library_plan(tracks: Sequence[Track], folder: VectorFolder) -> str:
    """Tracks, hours and bytes that embedding would take, for `--plan`."""
    done = folder.done()
    todo = [track for track in tracks if track.id not in done]
    hours = sum(track.duration_s or 0.0 for track in todo) / 3600
    return (
        f"library: {len(tracks)} tracks, {len(tracks) - len(todo)} have their vectors\n"
        f"to embed: {len(todo)} tracks, {hours:.2f} hours where the length is known, "
        f"{4e-6 * len(todo) * folder.dim:.1f} MB of vectors"
    )


def embed_library(
    source: Source,
    tracks: Sequence[Track],
    student: Student,
    folder: VectorFolder,
    limits: Limits,
    progress: Callable[[int, int, float], None],
) -> EmbedReport:
    """Embed the tracks that the folder lacks; every vector that is there is written, however this ends.

    `progress(done, total, audio_seconds)` is called after every track. Raises UserError if
    the folder cannot be made.
    """
    folder.create()
    done = folder.done()
    todo = [track for track in tracks if track.id not in done]
    report = EmbedReport(total=len(tracks), found=len(tracks) - len(todo))

    async def run() -> None:
        part: list[tuple[Track, NDArray[np.float32]]] = []
        seconds, since_s = 0.0, time.monotonic()
        try:
            async with aclosing(walk(source, todo, student, limits)) as results:
                async for one in results:
                    if one.vector is None:
                        report.failed.append(one)
                    else:
                        report.embedded += 1
                        part.append((one.track, one.vector))
                    if len(part) == PART_TRACKS or time.monotonic() - since_s > PART_S:
                        folder.write(part)
                        part, since_s = [], time.monotonic()
                    seconds += one.track.duration_s or 0.0
                    progress(report.embedded + len(report.failed), len(todo), seconds)
        finally:  # Ctrl-C, too, comes here as a cancellation
            folder.write(part)

    asyncio.run(run())
    assert report.found + report.embedded + len(report.failed) == report.total
    return report


async def walk(
    source: Source, tracks: Sequence[Track], student: Student, limits: Limits
) -> AsyncGenerator[Embedded, None]:
    """Every track once, in order, with its vector or a reason; closes what fetching has opened."""
    cores = asyncio.Semaphore(os.cpu_count() or 1)
    pending: deque[asyncio.Task[Embedded]] = deque()
    try:
        for track in tracks:
            pending.append(asyncio.create_task(_embed(source, track, student, limits.attempts, cores)))
            if len(pending) == limits.under_way:
                yield await pending.popleft()
        while pending:
            yield await pending.popleft()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await source.aclose()


async def _embed(
    source: Source, track: Track, student: Student, attempts: int, cores: asyncio.Semaphore
) -> Embedded:
    try:
        data = await _fetch(source, track, attempts)
        async with cores:
            return Embedded(track, await asyncio.to_thread(student.embed, data))
    except BadAudio as error:
        return Embedded(track, None, str(error))
    except OSError as error:
        return Embedded(track, None, f"cannot be fetched: {error.strerror or error}")


async def _fetch(source: Source, track: Track, attempts: int) -> bytes:
    for attempt in range(1, attempts):
        try:
            return await source.fetch(track)
        except OutOfReach:
            raise
        except OSError:
            await asyncio.sleep(BACK_OFF_S * 2**attempt)
    return await source.fetch(track)
