"""PMEmo: the choruses of 794 pop songs, 767 of them with a mean valence and arousal.

Zhang, Zhang, Li, Yang and Sun, "The PMEmo dataset for music emotion recognition", ICMR 2018, pages 135-142.
PMEmo2019.zip holds `annotations/static_annotations.csv` (musicId, Arousal(mean), Valence(mean)),
`metadata.csv` (musicId, fileName, title, artist, ...) and `chorus/<musicId>.mp3`; so public code reads them.
Ratings go from 0 to 1.
"""

from collections.abc import Iterator
from typing import Literal

from etude.sources.described import NOT_THERE, PassedOver
from etude.sources.folder import LocalFolder, audio_files
from etude.sources.pieces.base import LISTENERS, Piece, completed
from etude.sources.pieces.files import FolderPieces, by_stem, found_below
from etude.sources.pieces.table import ratings, rows_of, the_table

LABELS = "static_annotations.csv"
METADATA = "metadata.csv"
AUDIO = "chorus"
SCALE = (0.0, 1.0)
LICENSE = "not stated, published for research; cite Zhang et al., ICMR 2018"
HOW_TO_GET = "extract PMEmo2019.zip there"


class PmemoConfig(LocalFolder):
    """Settings of PMEmo: `path` holds its archive, extracted."""

    name: Literal["pmemo"] = "pmemo"


class PmemoPieces(FolderPieces):
    """The choruses that are rated; each song is its own work."""

    def listed(self, passed_over: PassedOver) -> Iterator[Piece]:
        """Every rated chorus. Raises UserError if the ratings are missing."""
        table = the_table(self.root, LABELS, HOW_TO_GET)
        choruses = by_stem(path for folder in found_below(self.root, AUDIO) for path in audio_files(folder))
        songs = {
            row["musicId"]: row
            for path in found_below(self.root, METADATA)[:1]
            for _, row in rows_of(path, ("musicId", "title", "artist"))
        }
        for where, row in rows_of(table, ("musicId", "Valence(mean)", "Arousal(mean)")):
            song = row["musicId"]
            rated = ratings(row, ("Valence(mean)", "Arousal(mean)"), SCALE, where, passed_over)
            if rated is None:
                continue
            if song not in choruses:
                passed_over.add(NOT_THERE, f"{AUDIO}/{song}.mp3")
            elif audio := self.file(choruses[song], passed_over):
                said = songs.get(song, {})
                yield self.piece(
                    audio,
                    None,
                    completed(*rated, LISTENERS),
                    title=said.get("title", ""),
                    artist=said.get("artist", ""),
                    work=song,
                    license=LICENSE,
                )
