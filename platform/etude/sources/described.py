"""Audio files below a folder with what a JSON file says of them: all that sources of captioned music share.

What cannot be used costs no other track: it is counted by reason, and a listing ends by logging each reason
once, with the first example.
"""

import asyncio
import json
import logging
import os
import posixpath
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from etude.errors import BadAudio, UserError
from etude.sources.base import Track
from etude.sources.captions import own_captions
from etude.sources.folder import audio_files, check_folder, file_of, path_hash, printable, read_tags

NOT_THERE = "files that are named and not there"
OUTSIDE = "files that are named and lie outside of the folder"
NOT_NAMED = "audio files that no line names"
NO_CAPTIONS = "files that are named without captions"
_WORDS = {"true": True, "1": True, "false": False, "0": False}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Described:
    """What is said of one audio file; empty where nothing is."""

    file: str  # relative to the folder of audio
    captions: tuple[str, ...]
    title: str = ""
    artist: str = ""
    clip: str = ""
    held_out: bool = False
    license: str = ""


class PassedOver:
    """What a listing could not use: how many by reason, each with the first example."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, reason: str, example: str) -> None:
        """Count one; an example may hold whatever JSON can, and is shown as far as it can be."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        shown = "".join(character if character.isprintable() else "?" for character in example)
        self._first.setdefault(reason, shown)

    def __iter__(self) -> Iterator[str]:
        for reason, count in self.counts.items():
            yield f"{reason}: {count}, the first is {self._first[reason]}"


class DescribedSource(ABC):
    """Audio below the folder `audio`; what is said of it is read by `described`.

    A track's id follows its file alone: other captions cost no preparing.
    """

    def __init__(self, kind: str, root: Path, audio: Path) -> None:
        self._kind = kind
        self._root = root.resolve()
        self._audio = audio.resolve()
        self._passed_over = PassedOver()

    @property
    @abstractmethod
    def id(self) -> str:
        """The kind and a hash of the folder and of all that shapes the catalogue."""

    @abstractmethod
    def described(self, passed_over: PassedOver) -> Iterator[Described]:
        """What is said of each file, in order, the same file perhaps twice. Raises UserError."""

    @property
    def skipped(self) -> dict[str, int]:
        """After listing: how many files and lines were passed over, by reason."""
        return dict(self._passed_over.counts)

    def tracks(self) -> Iterator[Track]:
        """List the files that are there and have captions, in the order in which they are first named.

        Raises UserError if a folder or a file is missing or cannot be read, or no track at all can be used.
        """
        self._passed_over = passed_over = PassedOver()
        check_folder(self._root)
        named: dict[str, Described] = {}
        for one in self.described(passed_over):
            file = posixpath.normpath(one.file)
            named[file] = _together(named[file], one) if file in named else replace(one, file=file)
        n_listed = 0
        for one in named.values():
            track = self._track(one, passed_over)
            if track is not None:
                n_listed += 1
                yield track
        for path in audio_files(self._audio):
            if (name := path.relative_to(self._audio).as_posix()) not in named:
                passed_over.add(NOT_NAMED, name)
        for reason in passed_over:
            log.warning("%s: %s", printable(self._root), reason)
        if not n_listed:
            why = "; ".join(passed_over) or "nothing is said of any file"
            raise UserError(f"no track of {printable(self._root)} can be used ({why}): mend that")

    async def fetch(self, track: Track) -> bytes:
        """The file itself. Raises OSError if it cannot be read now, BadAudio if it leaves the folder."""
        path = Path(os.path.realpath(file_of(track)))
        if not path.is_relative_to(self._audio):
            raise BadAudio(f"its file leaves {printable(self._audio)}")
        return await asyncio.to_thread(path.read_bytes)

    async def aclose(self) -> None:  # noqa: B027
        """Nothing stays open."""

    def _track(self, one: Described, passed_over: PassedOver) -> Track | None:
        if not one.captions:
            passed_over.add(NO_CAPTIONS, one.file)
            return None
        path = self._audio / one.file
        try:
            if not Path(os.path.realpath(path)).is_relative_to(self._audio):
                passed_over.add(OUTSIDE, one.file)
                return None
            found = path.stat()
        except (OSError, ValueError):  # ValueError: what is no file's name, such as one with a null in it
            found = None
        if found is None or not stat.S_ISREG(found.st_mode):
            passed_over.add(NOT_THERE, one.file)
            return None
        tags, duration_s = read_tags(path)
        tagged = {name: tags.pop(name, "") for name in ("title", "artist", "album", "license")}
        return Track(
            id=f"{self._kind}-{path_hash(one.file, found.st_size, found.st_mtime_ns)}",
            uri=path.as_uri(),
            title=one.title or tagged["title"] or printable(path.stem),
            artist=one.artist or tagged["artist"],
            album=tagged["album"],
            duration_s=duration_s,
            n_bytes=found.st_size,
            license=one.license or tagged["license"] or "unknown",
            tags=tags,
            captions=one.captions,
            clip=one.clip,
            held_out=one.held_out,
        )


def objects_of(path: Path, passed_over: PassedOver) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects in a file of JSON lines, or in one JSON array, each with its place in words.

    A line that holds none is counted. Raises UserError if the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {printable(path)}: {error.strerror}") from None
    rows = _array(data)
    kind = "line" if rows is None else "entry"
    for number, row in enumerate(data.splitlines() if rows is None else rows, start=1):
        where = f"{path.name}, {kind} {number}"
        if isinstance(row, bytes):
            if not row.strip():
                continue
            row = _parsed(row)
        if isinstance(row, dict):
            yield where, row
        else:
            passed_over.add("lines that are no JSON object", where)


def held_out(row: Mapping[str, Any], name: str, file: str, passed_over: PassedOver) -> bool:
    """Whether a field, true or false as a value, a number or a word, holds a file out; without it, no.

    What is neither is counted and holds it out: a test set is spoilt sooner than a training set.
    """
    value = row.get(name)
    word = "false" if value is None else str(value).strip().casefold()
    if word not in _WORDS:
        passed_over.add(f"files held out since their {name} is neither true nor false", file)
    return _WORDS.get(word, True)


def _together(one: Described, other: Described) -> Described:
    """What two lines say of the same file: the captions of both, otherwise the first that says something."""
    return replace(
        one,
        captions=own_captions([*one.captions, *other.captions]),
        title=one.title or other.title,
        artist=one.artist or other.artist,
        clip=one.clip or other.clip,
        held_out=one.held_out or other.held_out,
        license=one.license or other.license,
    )


def _array(data: bytes) -> list[Any] | None:
    """All of a file as one JSON array; None if it is none."""
    if not data[:64].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        return None
    rows = _parsed(data)
    return rows if isinstance(rows, list) else None


def _parsed(data: bytes) -> Any:
    """What JSON says; None for what is no JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
