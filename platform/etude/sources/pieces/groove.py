"""The Groove MIDI dataset: 1,150 performances at the drums, some recorded as sound too, without labels.

Gillick, Roberts, Engel, Eck and Bamman, "Learning to groove with inverse sequence transformations", ICML
2019. `groove/info.csv` (drummer, session, id, style, bpm, beat_type, time_signature, midi_filename,
audio_filename, duration, split) names the files, such as `drummer1/session1/1_funk_80_beat_4-4.mid`; the
smaller archive comes without the recordings. The set's own split, style, tempo and metre are kept as tags.
"""

from collections.abc import Iterator
from typing import Literal

from etude.sources.described import PassedOver
from etude.sources.folder import LocalFolder
from etude.sources.pieces.base import Piece
from etude.sources.pieces.files import FolderPieces
from etude.sources.pieces.table import rows_of, the_table

TABLE = "info.csv"
LICENSE = "CC BY 4.0; cite Gillick et al., ICML 2019"
HOW_TO_GET = "extract groove-v1.0.0.zip or groove-v1.0.0-midionly.zip there"
EVALUATION = "eval_session"
_COLUMNS = (
    *("drummer", "session", "style", "bpm", "beat_type", "time_signature"),
    *("midi_filename", "audio_filename", "split"),
)


class GrooveConfig(LocalFolder):
    """Settings of the Groove MIDI dataset: `path` holds an archive of it, extracted."""

    name: Literal["groove"] = "groove"


class GroovePieces(FolderPieces):
    """The performances; a drummer's session is one work.

    So are all drummers' `eval_session` together: their styles, funk/groove1 and so on, name the same grooves.
    """

    def listed(self, passed_over: PassedOver) -> Iterator[Piece]:
        """Every performance whose notes are there. Raises UserError if the table is missing."""
        table = the_table(self.root, TABLE, HOW_TO_GET)
        for where, row in rows_of(table, _COLUMNS):
            if not row["midi_filename"]:
                passed_over.add("lines without a file", where)
            elif midi := self.file(table.parent / row["midi_filename"], passed_over):
                session = EVALUATION if row["session"].endswith(EVALUATION) else row["session"]
                yield self.piece(
                    self.perhaps(table.parent / row["audio_filename"], passed_over),
                    midi,
                    None,
                    title=f"{row['style']}, {row['bpm']} bpm, {row['beat_type']}",
                    artist=row["drummer"],
                    work=session,
                    license=LICENSE,
                    tags={
                        "split": row["split"],
                        "style": row["style"],
                        "tempo_bpm": row["bpm"],
                        "metre": row["time_signature"].replace("-", "/"),
                    },
                )
