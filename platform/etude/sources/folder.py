"""A folder of audio files, however deep, as a source."""

import asyncio
import hashlib
import logging
import math
import os
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote_to_bytes, urlsplit

import mutagen
from pydantic import field_validator

from etude.config import Section
from etude.errors import UserError
from etude.sources.base import Track

AUDIO = frozenset(
    {".aac", ".aif", ".aifc", ".aiff", ".ape", ".flac", ".m4a", ".m4b", ".mka", ".mp2", ".mp3", ".mp4"}
    | {".oga", ".ogg", ".opus", ".wav", ".wma", ".wv"}
)
# Field names by tagging scheme: easy ID3, MP4 and Vorbis comments; plain ID3 (WAV, AIFF); ASF; APE.
FIELDS = {
    "title": ("title", "TIT2", "Title"),
    "artist": ("artist", "TPE1", "Author", "Artist"),
    "album": ("album", "TALB", "WM/AlbumTitle", "Album"),
    "license": ("license", "copyright", "TCOP", "Copyright"),
    "genre": ("genre", "TCON", "WM/Genre", "Genre"),
    "date": ("date", "TDRC", "WM/Year", "Year"),
}
# What mutagen lets through, beside its own error, when a file's tags are damaged.
TAG_ERRORS = (
    mutagen.MutagenError,
    OSError,
    EOFError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
log = logging.getLogger(__name__)


class LocalFolder(Section):
    """A folder on this machine, in the settings of a source."""

    name: str
    path: Path  # `~` is the home folder

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()  # workers run in folders of their own


class FolderConfig(LocalFolder):
    """Settings of a folder of audio files."""

    name: Literal["folder"] = "folder"


class FolderSource:
    """Every audio file below a folder; hidden files and folders are passed over, links are followed."""

    def __init__(self, config: FolderConfig) -> None:
        self.root = config.path.resolve()

    @property
    def id(self) -> str:
        """`folder-` and a hash of the folder's full path."""
        return f"folder-{path_hash(self.root)}"

    def tracks(self) -> Iterator[Track]:
        """List the files with what their tags say: those of a folder, then its subfolders', by name.

        Whether a file can be decoded is not judged here. Raises UserError if the folder is missing, is no
        folder, cannot be read, or holds no audio file.
        """
        check_folder(self.root)
        found = False
        for path in audio_files(self.root):
            try:
                track = self._track(path)
            except FileNotFoundError:  # gone since the folder was read, or a link to nothing
                continue
            found = True
            yield track
        if not found:
            endings = " ".join(sorted(AUDIO))
            raise UserError(
                f"no audio file in {printable(self.root)}: set source.path to a folder with {endings}"
            )

    async def fetch(self, track: Track) -> bytes:
        """The file itself. Raises OSError if it can no longer be read."""
        return await asyncio.to_thread(file_of(track).read_bytes)

    async def aclose(self) -> None:
        """Nothing stays open."""

    def _track(self, path: Path) -> Track:
        stat = path.stat()
        relative = path.relative_to(self.root)
        tags, duration_s = read_tags(path)
        parent = "" if path.parent == self.root else printable(path.parent.name)
        return Track(
            id=f"folder-{path_hash(relative, stat.st_size, stat.st_mtime_ns)}",
            uri=path.as_uri(),
            title=tags.pop("title", "") or printable(path.stem),
            artist=tags.pop("artist", ""),
            album=tags.pop("album", "") or parent,
            duration_s=duration_s,
            n_bytes=stat.st_size,
            license=tags.pop("license", "") or "unknown",
            tags=tags,
        )


def check_folder(root: Path) -> None:
    """Raise UserError if the folder that source.path names is missing, is no folder, or cannot be read."""
    try:
        os.scandir(root).close()
    except FileNotFoundError:
        raise UserError(f"there is no folder {printable(root)}: check source.path") from None
    except NotADirectoryError:
        raise UserError(f"{printable(root)} is not a folder: set source.path to one") from None
    except PermissionError:
        raise UserError(f"no right to read {printable(root)}: allow it, or set another source.path") from None


def file_of(track: Track) -> Path:
    """The file that a track's `file:` address means."""
    return path_of(track.uri)


def path_of(uri: str) -> Path:
    """The file that a `file:` address means, whatever bytes its name is made of."""
    return Path(os.fsdecode(unquote_to_bytes(urlsplit(uri).path)))


def audio_files(root: Path) -> Iterator[Path]:
    """Audio files below `root`; see `files_below`."""
    return files_below(root, AUDIO)


def files_below(root: Path, endings: Collection[str]) -> Iterator[Path]:
    """Files with these endings, such as `.mid`, in a stable order; a folder reached twice is read once."""
    seen: set[tuple[int, int]] = set()

    def unreadable(error: OSError) -> None:
        log.warning("passed over %s: %s", printable(Path(error.filename)), error.strerror)

    for folder, folders, files in os.walk(root, followlinks=True, onerror=unreadable):
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in seen:
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in endings:
                yield Path(folder, name)


def read_tags(path: Path) -> tuple[dict[str, str], float | None]:
    """The fields of `FIELDS` that a file's tags have, and its duration in seconds if its header tells."""
    try:
        file = mutagen.File(path, easy=True)
    except TAG_ERRORS as error:
        log.debug("no tags from %s: %s", printable(path), error)
        return {}, None
    if file is None:  # a format that mutagen does not know
        return {}, None
    values = {field: _value(file.tags, names) for field, names in FIELDS.items()}
    length_s = float(getattr(file.info, "length", 0) or 0)
    known = math.isfinite(length_s) and length_s > 0
    return {field: value for field, value in values.items() if value}, length_s if known else None


def _value(tags: Any, names: tuple[str, ...]) -> str:
    """The first value of the first of these fields; empty if there is none."""
    for name in names if tags else ():
        try:
            value = tags[name]
        except (KeyError, ValueError):  # ValueError: not a name that this tagging scheme allows
            continue
        if isinstance(value, list):
            value = value[0] if value else ""
        if text := str(value).split("\0")[0].strip():
            return text
    return ""


def printable(name: str | Path) -> str:
    """A file name as text that can be shown and stored, whatever bytes it is made of."""
    return os.fsencode(name).decode("utf-8", "replace")


def path_hash(*parts: Path | str | int) -> str:
    """Sixteen hexadecimal digits for an id, whatever bytes a path is made of."""
    return hashlib.sha256(b"\0".join(os.fsencode(str(part)) for part in parts)).hexdigest()[:16]
