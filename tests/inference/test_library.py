"""Every track of a library gets a vector or a reason, whatever happens on the way."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from etude.errors import BadAudio, OutOfReach
from etude.inference import library
from etude.inference.library import Limits, embed_library, library_plan, walk
from etude.inference.student import Student
from etude.inference.vectors import VectorFolder
from etude.sources import FolderConfig, build_source
from etude.sources.base import Track

LIMITS = Limits(attempts=3, under_way=4)


class Unreliable:
    """A source whose tracks fail as their titles say."""

    def __init__(self, titles: list[str]) -> None:
        self.titles = titles
        self.calls: dict[str, int] = {}
        self.under_way = self.most_under_way = 0
        self.closed = False
        self.id = "unreliable"

    def tracks(self) -> Iterator[Track]:
        for i, title in enumerate(self.titles):
            yield Track(f"t-{i:03d}", title, title, duration_s=1.0)

    async def fetch(self, track: Track) -> bytes:
        self.calls[track.id] = self.calls.get(track.id, 0) + 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0.001)
        self.under_way -= 1
        if track.title == "never":
            raise BadAudio("it was never music")
        if track.title == "gone":
            raise OutOfReach("the server has no such item")
        if track.title == "down" or (track.title == "once" and self.calls[track.id] == 1):
            raise ConnectionError(111, "Connection refused")
        return track.title.encode()

    async def aclose(self) -> None:
        self.closed = True


class Ears:
    """Stands for a student: the length of the bytes, eight times."""

    dim = 8

    def embed(self, data: bytes) -> NDArray[np.float32]:
        if data == b"noise":
            raise BadAudio("it is noise")
        return np.full(self.dim, len(data), np.float32)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "BACK_OFF_S", 0.0)


def folder_of(path: Path) -> VectorFolder:
    return VectorFolder(path, "model", Ears.dim)


def embed(source: Unreliable, folder: VectorFolder, ears: object = None) -> library.EmbedReport:
    student: Student = ears or Ears()  # type: ignore[assignment]
    return embed_library(source, list(source.tracks()), student, folder, LIMITS, lambda *counts: None)


def test_every_track_has_a_vector_or_a_reason(tmp_path: Path) -> None:
    source = Unreliable(["fine"] * 20 + ["never", "gone", "down", "once", "noise"])
    folder = folder_of(tmp_path)
    report = embed(source, folder)
    assert (report.total, report.embedded, report.found) == (25, 21, 0)
    assert [(one.track.title, one.reason) for one in report.failed] == [
        ("never", "it was never music"),
        ("gone", "cannot be fetched: the server has no such item"),
        ("down", "cannot be fetched: Connection refused"),
        ("noise", "it is noise"),
    ]
    calls = {track.title: source.calls[track.id] for track in source.tracks()}
    assert calls == {"fine": 1, "never": 1, "gone": 1, "down": 3, "once": 2, "noise": 1}
    assert source.most_under_way == LIMITS.under_way
    assert source.closed
    assert len(folder.done()) == 21
    assert "without a vector: 1, it is noise" in report.describe()


def test_a_rerun_embeds_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "PART_TRACKS", 5)

    class Cut(Ears):
        heard = 0

        def embed(self, data: bytes) -> NDArray[np.float32]:
            self.heard += 1
            if self.heard > 12:
                raise KeyboardInterrupt
            return super().embed(data)

    source = Unreliable(["fine"] * 20)
    with pytest.raises(KeyboardInterrupt):
        embed(source, folder_of(tmp_path), Cut())
    kept = len(folder_of(tmp_path).done())
    assert 5 <= kept <= 12
    assert not list(tmp_path.glob(".*"))
    again = Unreliable(["fine"] * 20)
    assert f"20 tracks, {kept} have" in library_plan(list(again.tracks()), folder_of(tmp_path))
    report = embed(again, folder_of(tmp_path))
    assert (report.found, report.embedded) == (kept, 20 - kept)
    assert len(again.calls) == 20 - kept
    assert len(folder_of(tmp_path).done()) == 20


@pytest.mark.parametrize("end", ["Ctrl-C", "bug"])
def test_vectors_that_are_there_are_written_however_it_ends(end: str, tmp_path: Path) -> None:
    class Ending(Unreliable):
        async def fetch(self, track: Track) -> bytes:
            if track.title == "fine":
                return await super().fetch(track)
            while len(embedded) < 12:
                await asyncio.sleep(0.001)
            if end == "bug":
                raise RuntimeError("a bug")
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
            raise AssertionError

    embedded: list[int] = []
    source = Ending(["fine"] * 12 + ["the end"])
    ears: Student = Ears()  # type: ignore[assignment]
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        embed_library(
            source, list(source.tracks()), ears, folder_of(tmp_path), LIMITS,
            lambda done, total, seconds: embedded.append(done),
        )  # fmt: skip
    assert len(folder_of(tmp_path).done()) == 12
    assert source.closed


def test_vectors_are_written_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "PART_S", -1.0)
    source = Unreliable(["fine", "never", "fine"])
    ears: Student = Ears()  # type: ignore[assignment]
    there: list[int] = []
    embed_library(
        source, list(source.tracks()), ears, folder_of(tmp_path), LIMITS,
        lambda *counts: there.append(len(folder_of(tmp_path).done())),
    )  # fmt: skip
    assert there == [1, 1, 2]


def test_a_walk_that_is_left_stops_its_fetches() -> None:
    source = Unreliable(["fine"] * 50)

    async def first() -> str:
        async with aclosing(walk(source, list(source.tracks()), Ears(), LIMITS)) as results:  # type: ignore[arg-type]
            async for one in results:
                return one.track.id
        raise AssertionError

    assert asyncio.run(first()) == "t-000"
    assert source.closed
    assert len(source.calls) < 10


def test_real_files_become_vectors(exported: Path, chorale_wav: bytes, tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.wav").write_bytes(chorale_wav)
    (tmp_path / "music" / "b.wav").write_bytes(b"nonsense")
    source = build_source(FolderConfig(path=tmp_path / "music"), tmp_path)
    student = Student(exported, 3.5, -60.0)
    folder = VectorFolder(tmp_path / "vectors", student.hash, student.dim)
    report = embed_library(source, list(source.tracks()), student, folder, LIMITS, lambda *counts: None)
    assert (report.embedded, len(report.failed)) == (1, 1)
    assert "not audio" in report.failed[0].reason
