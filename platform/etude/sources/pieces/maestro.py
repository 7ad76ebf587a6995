"""MAESTRO: 1,276 performances at the piano, recorded as sound and as MIDI at once, without labels.

Hawthorne et al., "Enabling factorized piano music modeling and generation with the MAESTRO dataset", ICLR
2019. Version 3 holds `maestro-v3.0.0.csv` (canonical_composer, canonical_title, split, year, midi_filename,
audio_filename, duration) and the files that it names, such as `2018/<...>.midi`; the smaller archive comes
without the recordings. The set's own split is kept as a tag.
"""

from collections.abc import Iterator
from typing import Literal

from etude.sources.described import PassedOver
from etude.sources.folder import LocalFolder
from etude.sources.pieces.base import Piece
from etude.sources.pieces.files import FolderPieces
from etude.sources.pieces.table import rows_of, the_table

TABLE = "maestro-v*.csv"
LICENSE = "CC BY-NC-SA 4.0; cite Hawthorne et al., ICLR 2019"
HOW_TO_GET = "extract maestro-v3.0.0.zip or maestro-v3.0.0-midi.zip there"
_COLUMNS = ("canonical_composer", "canonical_title", "split", "midi_filename", "audio_filename")


class MaestroConfig(LocalFolder):
    """Settings of MAESTRO: `path` holds its archive, extracted, with or without the recordings."""

    name: Literal["maestro"] = "maestro"


class MaestroPieces(FolderPieces):
    """The performances; all performances of one composition are one work."""

    def listed(self, passed_over: PassedOver) -> Iterator[Piece]:
        """Every performance whose notes are there. Raises UserError if the table is missing."""
        table = the_table(self.root, TABLE, HOW_TO_GET)
        for where, row in rows_of(table, _COLUMNS):
            composer, title = row["canonical_composer"], row["canonical_title"]
            if not row["midi_filename"]:
                passed_over.add("lines without a file", where)
            elif midi := self.file(table.parent / row["midi_filename"], passed_over):
                yield self.piece(
                    self.perhaps(table.parent / row["audio_filename"], passed_over),
                    midi,
                    None,
                    title=title,
                    artist=composer,
                    work=f"{composer}\n{title}".casefold(),
                    license=LICENSE,
                    tags={"split": row["split"]},
                )
