"""DEAM: 1,802 recordings with the mean valence and arousal that listeners gave them.

Aljanaki, Yang and Soleymani, "Developing a benchmark for emotional analysis of music", PLoS ONE 12(3), 2017,
doi:10.1371/journal.pone.0173392. The archives DEAM_Annotations.zip and DEAM_audio.zip hold
`annotations/annotations averaged per song/song_level/static_annotations_averaged_songs_*.csv`, two files
whose columns `song_id, valence_mean, arousal_mean` carry a space before their names, and
`MEMD_audio/<song_id>.mp3`; so public code reads them, and copies differ only in the folders around. Ratings
go from 1 to 9.
"""

from collections.abc import Iterator
from typing import Literal

from etude.errors import UserError
from etude.sources.described import NOT_THERE, PassedOver
from etude.sources.folder import LocalFolder, audio_files, printable
from etude.sources.pieces.base import LISTENERS, Piece, completed
from etude.sources.pieces.files import FolderPieces, by_stem, found_below
from etude.sources.pieces.table import ratings, rows_of, the_table

LABELS = "static_annotations_averaged_songs_*.csv"
AUDIO = "MEMD_audio"
SCALE = (1.0, 9.0)
LICENSE = "CC BY-NC (check the set's own page); cite Aljanaki, Yang and Soleymani, PLoS ONE 12(3), 2017"
HOW_TO_GET = "extract DEAM_Annotations.zip and DEAM_audio.zip there"


class DeamConfig(LocalFolder):
    """Settings of DEAM: `path` holds both of its archives, extracted."""

    name: Literal["deam"] = "deam"


class DeamPieces(FolderPieces):
    """The recordings that are rated; each is its own work."""

    def listed(self, passed_over: PassedOver) -> Iterator[Piece]:
        """Every rated recording. Raises UserError if the ratings or the recordings are missing."""
        the_table(self.root, LABELS, HOW_TO_GET)
        folders = found_below(self.root, AUDIO)
        if not folders:
            raise UserError(f"there is no folder {AUDIO} below {printable(self.root)}: {HOW_TO_GET}")
        recordings = by_stem(audio_files(folders[0]))
        for table in found_below(self.root, LABELS):
            for where, row in rows_of(table, ("song_id", "valence_mean", "arousal_mean")):
                song = row["song_id"]
                rated = ratings(row, ("valence_mean", "arousal_mean"), SCALE, where, passed_over)
                if rated is None:
                    continue
                if song not in recordings:
                    passed_over.add(NOT_THERE, f"{AUDIO}/{song}.mp3")
                elif audio := self.file(recordings[song], passed_over):
                    label = completed(*rated, LISTENERS)
                    yield self.piece(audio, None, label, work=song, license=LICENSE)
