"""VGMIDI: 200 pieces from video games, arranged for piano, in phrases with a sign of valence and of arousal.

Ferreira and Whitehead, "Learning to generate music with sentiment", ISMIR 2019. The repository
lucasnfe/vgmidi holds `vgmidi_labelled.csv` (id, series, console, game, piece, midi, valence, arousal), where
`midi` is a file such as `labelled/phrases/<...>_0.mid`. Both labels are 1 or -1, so that a phrase is known by
its quadrant only. The unlabelled pieces are not read.
"""

from collections.abc import Iterator
from typing import Literal

from etude.sources.described import PassedOver
from etude.sources.folder import LocalFolder
from etude.sources.pieces.base import Piece, quadrant
from etude.sources.pieces.files import FolderPieces
from etude.sources.pieces.table import rows_of, the_table

LABELS = "vgmidi_labelled.csv"
LICENSE = "not stated, for research only; cite Ferreira and Whitehead, ISMIR 2019"
HOW_TO_GET = "clone the repository lucasnfe/vgmidi there, and extract labelled/phrases.zip if it has one"
SIGNS = {"1": True, "-1": False, "1.0": True, "-1.0": False}


class VgmidiConfig(LocalFolder):
    """Settings of VGMIDI: `path` holds its repository."""

    name: Literal["vgmidi"] = "vgmidi"


class VgmidiPieces(FolderPieces):
    """The labelled phrases; all phrases of one piece are one work."""

    def listed(self, passed_over: PassedOver) -> Iterator[Piece]:
        """Every phrase whose signs are known. Raises UserError if the table is missing."""
        table = the_table(self.root, LABELS, HOW_TO_GET)
        for where, row in rows_of(table, ("id", "game", "piece", "midi", "valence", "arousal")):
            if row["valence"] not in SIGNS or row["arousal"] not in SIGNS:
                passed_over.add("labels that are neither 1 nor -1", where)
            elif not row["midi"]:
                passed_over.add("lines without a file", where)
            elif midi := self.file(table.parent / row["midi"], passed_over):
                yield self.piece(
                    None,
                    midi,
                    quadrant(SIGNS[row["valence"]], SIGNS[row["arousal"]]),
                    title=f"{row['game']}: {row['piece']}",
                    work=row["id"],
                    license=LICENSE,
                )
