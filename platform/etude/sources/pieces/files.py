"""Pieces in a folder: what all readers of published sets share.

What cannot be used costs no other piece: it is counted by reason.
"""

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from etude.emotion.midi_file import read_midi
from etude.emotion.performance import Performance
from etude.errors import BadAudio, UserError
from etude.sources.base import Track
from etude.sources.described import NOT_THERE, OUTSIDE, PassedOver
from etude.sources.folder import LocalFolder, check_folder, path_hash, path_of, printable, read_tags
from etude.sources.pieces.base import Label, Piece

MIDI = frozenset({".mid", ".midi"})
TWICE = "pieces that are listed twice"


class FolderPieces(ABC):
    """The pieces of a folder, as `listed` finds them; a piece's id follows its files and its label."""

    def __init__(self, config: LocalFolder) -> None:
        self.kind = config.name
        self.root = config.path.resolve()

    @property
    def id(self) -> str:
        """The kind and a hash of the folder's full path."""
        return f"{self.kind}-{path_hash(self.root)}"

    @abstractmethod
    def listed(self, passed_over: PassedOver) -> Iterator[Piece]:
        """Every piece that can be used. Raises UserError, with the way to get it, for what is missing."""

    def pieces(self, passed_over: PassedOver) -> Iterator[Piece]:
        """List the pieces, each once. Raises UserError if there is no such folder, or no piece at all."""
        check_folder(self.root)
        seen: set[str] = set()
        for piece in self.listed(passed_over):
            if piece.track.id in seen:
                passed_over.add(TWICE, piece.track.title)
                continue
            seen.add(piece.track.id)
            yield piece
        if not seen:
            why = "; ".join(passed_over) or "it names none"
            raise UserError(f"no piece of {printable(self.root)} can be used ({why}): mend that")

    def read_audio(self, piece: Piece) -> bytes:
        """The recording. Raises OSError if it cannot be read now, BadAudio if it leaves the folder."""
        assert piece.audio is not None
        return self._read(piece.audio)

    def read_midi(self, piece: Piece) -> bytes:
        """The MIDI file. Raises OSError if it cannot be read now, BadAudio if it leaves the folder."""
        assert piece.midi is not None
        return self._read(piece.midi)

    def performance(self, piece: Piece) -> Performance | None:
        """The notes of the MIDI file; None without one. Raises OSError, or BadAudio for a broken file."""
        return None if piece.midi is None else read_midi(self.read_midi(piece))

    def file(self, path: Path, passed_over: PassedOver) -> Path | None:
        """A file that is there and inside of the folder; otherwise it is counted, and the answer is None."""
        path = Path(os.path.normpath(path))
        name = printable(path)
        try:
            if not Path(os.path.realpath(path)).is_relative_to(self.root):
                passed_over.add(OUTSIDE, name)
                return None
            if stat.S_ISREG(path.stat().st_mode):
                return path
        except (OSError, ValueError):  # ValueError: what is no file's name, such as one with a null in it
            pass
        passed_over.add(NOT_THERE, name)
        return None

    def perhaps(self, path: Path, passed_over: PassedOver) -> Path | None:
        """A file that the set may come without: None, uncounted, if it is not there."""
        return self.file(path, passed_over) if path.is_file() else None

    def piece(
        self,
        audio: Path | None,
        midi: Path | None,
        label: Label | None,
        *,
        title: str = "",
        artist: str = "",
        work: str = "",
        license: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> Piece:
        """A piece of files that are there; `work` names what must not be split, beside the kind.

        What the caller does not say is taken from the tags of the recording.
        """
        files = [path for path in (audio, midi) if path is not None]
        assert files, "a piece has a recording, notes or both"
        stats = [path.stat() for path in files]
        places = [
            (path.relative_to(self.root), s.st_size, s.st_mtime_ns)
            for path, s in zip(files, stats, strict=True)
        ]
        rest, duration_s = read_tags(audio) if audio else ({}, None)
        tagged = {name: rest.pop(name, "") for name in ("title", "artist", "album", "license")}
        track = Track(
            id=f"{self.kind}-{path_hash(*(part for place in places for part in place), repr(label))}",
            uri=files[0].as_uri(),
            title=title or tagged["title"] or printable(files[0].stem),
            artist=artist or tagged["artist"],
            album=tagged["album"],
            duration_s=duration_s,
            n_bytes=stats[0].st_size if audio else None,
            license=license or tagged["license"] or "unknown",
            tags={**rest, **(tags or {})},
            clip=f"{self.kind}\n{work}" if work else "",
        )
        return Piece(track, audio.as_uri() if audio else None, midi.as_uri() if midi else None, label)

    def _read(self, uri: str) -> bytes:
        path = path_of(uri)
        if not Path(os.path.realpath(path)).is_relative_to(self.root):
            raise BadAudio(f"its file leaves {printable(self.root)}")
        return path.read_bytes()


def found_below(root: Path, pattern: str) -> list[Path]:
    """What lies below a folder under a name such as `label.csv`, sorted; nothing that is hidden."""
    found = [path for path in root.rglob(pattern) if not _hidden(path.relative_to(root))]
    return sorted(found)


def by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """The first file of each name without its ending."""
    found: dict[str, Path] = {}
    for path in files:
        found.setdefault(path.stem, path)
    return found


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)
