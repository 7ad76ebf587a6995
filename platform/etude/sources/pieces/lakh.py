"""The Lakh MIDI dataset: 176,581 MIDI files from the web, without labels.

Raffel, "Learning-based methods for comparing sequences, with applications to audio-to-MIDI alignment and
matching", PhD thesis, Columbia University, 2016; colinraffel.com/projects/lmd. Its archives are read as they
extract: `lmd_full/<digit>/<md5>.mid`, `lmd_matched/A/B/C/TR.../<md5>.mid` (one folder a track of the Million
Song Dataset, holding every file that is said to be of it) and `clean_midi/<artist>/<title>.<copy>.mid`.
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import Field

from etude.errors import UserError
from etude.sources.described import PassedOver
from etude.sources.folder import LocalFolder, files_below, path_hash, printable
from etude.sources.pieces.base import Piece
from etude.sources.pieces.files import MIDI, FolderPieces

LICENSE = "CC BY 4.0 for the collection; cite Raffel, PhD thesis, Columbia University, 2016"
AGAIN = "files that were listed already, under the same hash"
_HASH = re.compile(r"[0-9a-f]{32}")
_TRACK = re.compile(r"TR[A-Z0-9]{16}")
_COPY = re.compile(r"\.\d+$")


class LakhConfig(LocalFolder):
    """Settings of the Lakh MIDI dataset: `path` holds one of its archives, extracted."""

    name: Literal["lakh"] = "lakh"
    limit: int | None = Field(
        None, ge=1, description="no more files than this, the first by name; names are hashes, in no order"
    )


class LakhPieces(FolderPieces):
    """The MIDI files, each hash once; files of one song are one work where folders or names tell the song."""

    def __init__(self, config: LakhConfig) -> None:
        super().__init__(config)
        self.limit = config.limit

    @property
    def id(self) -> str:
        """`lakh-` and a hash of the folder's full path and the limit."""
        return f"lakh-{path_hash(self.root, str(self.limit))}"

    def listed(self, passed_over: PassedOver) -> Iterator[Piece]:
        """The files, as they lie. Raises UserError if there is none."""
        return islice(self._all(passed_over), self.limit)

    def _all(self, passed_over: PassedOver) -> Iterator[Piece]:
        hashes: set[str] = set()
        found = None
        for found in files_below(self.root, MIDI):
            if _HASH.fullmatch(found.stem):
                if found.stem in hashes:
                    passed_over.add(AGAIN, printable(found))
                    continue
                hashes.add(found.stem)
            if midi := self.file(found, passed_over):
                title, artist, work = _song(midi)
                yield self.piece(None, midi, None, title=title, artist=artist, work=work, license=LICENSE)
        if found is None:
            raise UserError(f"no MIDI file below {printable(self.root)}: extract lmd_full.tar.gz there")


def _song(path: Path) -> tuple[str, str, str]:
    """Title, artist and work: the track that a folder is named for, else the hash, else artist and title."""
    stem, folder = printable(path.stem), printable(path.parent.name)
    if _HASH.fullmatch(stem):
        return stem, "", folder if _TRACK.fullmatch(folder) else stem
    title = _COPY.sub("", stem)
    return title, folder, f"{folder}\n{title}".casefold()
