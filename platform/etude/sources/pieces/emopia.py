"""EMOPIA: 1,087 clips of 387 pop songs for piano, each in one quadrant of the valence-arousal plane.

Hung, Ching, Doh, Kim, Nam and Yang, "EMOPIA: A multi-modal pop piano dataset for emotion recognition and
emotion-based music generation", ISMIR 2021; the licence is that of its repository annahung31/EMOPIA. The
archive holds `label.csv` (ID, 4Q, annotator) and `midis/<ID>.mid`, where an ID is `Q3_<YouTube id>_<clip>`.
The recordings are not part of it: those that lie anywhere below the folder under an ID are used as well.
"""

import re
from collections.abc import Iterator
from typing import Literal

from etude.sources.described import NOT_THERE, PassedOver
from etude.sources.folder import LocalFolder, audio_files, files_below
from etude.sources.pieces.base import Piece, quadrant
from etude.sources.pieces.files import MIDI, FolderPieces, by_stem
from etude.sources.pieces.table import rows_of, the_table

LABELS = "label.csv"
LICENSE = "CC BY-NC-SA 4.0; cite Hung et al., ISMIR 2021"
HOW_TO_GET = "extract EMOPIA_2.2.zip there"
QUADRANTS = {"1": (True, True), "2": (False, True), "3": (False, False), "4": (True, False)}
_ID = re.compile(r"Q([1-4])_(.+)_\d+")  # a YouTube id may hold underscores itself


class EmopiaConfig(LocalFolder):
    """Settings of EMOPIA: `path` holds its archive, extracted, and perhaps recordings."""

    name: Literal["emopia"] = "emopia"


class EmopiaPieces(FolderPieces):
    """The clips, with notes and perhaps a recording; all clips of one song are one work."""

    def listed(self, passed_over: PassedOver) -> Iterator[Piece]:
        """Every clip whose quadrant is known. Raises UserError if `label.csv` is missing."""
        table = the_table(self.root, LABELS, HOW_TO_GET)
        notes = by_stem(files_below(self.root, MIDI))
        recordings = by_stem(audio_files(self.root))
        for where, row in rows_of(table, ("ID", "4Q")):
            name = row["ID"]
            found = _ID.fullmatch(name)
            if found is None:
                passed_over.add("names that are none of EMOPIA's", name or where)
            elif row["4Q"] not in QUADRANTS:
                passed_over.add("quadrants other than 1 to 4", where)
            elif found[1] != row["4Q"]:
                passed_over.add("clips whose name and label disagree", name)
            elif name not in notes:
                passed_over.add(NOT_THERE, f"midis/{name}.mid")
            elif midi := self.file(notes[name], passed_over):
                audio = self.file(recordings[name], passed_over) if name in recordings else None
                label = quadrant(*QUADRANTS[row["4Q"]])
                yield self.piece(audio, midi, label, title=name, work=found[2], license=LICENSE)
