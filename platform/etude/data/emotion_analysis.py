"""One piece, measured: audio and notes in, a row out. Imports no Ray."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etude.audio.decode import check_audible, decode
from etude.data.emotion import N_FEATURES, ROWS, AnalysisConfig, EmotionRow
from etude.emotion.audio_features import SAMPLE_RATE, audio_features
from etude.emotion.chords import chords_of
from etude.emotion.expression import expression_of
from etude.emotion.groove import groove_of
from etude.emotion.key import find_key
from etude.emotion.melody import melody_of
from etude.emotion.performance import Performance
from etude.emotion.thesaurus import thesaurus
from etude.emotion.weak import weak_vad
from etude.errors import BadAudio
from etude.sources.pieces import PieceSourceConfig, build_piece_source
from etude.sources.pieces.base import Label, Piece, PieceSource, piece_of

RULE = "rule"  # who says so where nobody did: `emotion/weak.py`
LEAST_S = 3.0  # a shorter window's tempo and spread say nothing
SILENCE_DBFS = -60.0
ANALYSED = pa.schema(
    [
        ("track_id", pa.string()),
        ("status", pa.string()),  # prepared, quarantined or unreachable
        ("stage", pa.string()),
        ("reason", pa.string()),
        *(field for field in ROWS if field.name != "track_id"),
    ]
)


class Analyse:
    """Pieces in, rows of `ANALYSED` out; a piece that is at fault says why, and costs no other."""

    def __init__(self, source: PieceSourceConfig, cache: Path, config: AnalysisConfig) -> None:
        self._source = build_piece_source(source, cache)
        self._config = config

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._row(row["piece"]) for row in batch.to_pylist()], schema=ANALYSED)

    def _row(self, listed: str) -> dict[str, Any]:
        piece = piece_of(listed)
        result: dict[str, Any] = {"track_id": piece.track.id}
        try:
            row = analyse(piece, self._source, self._config)
        except BadAudio as error:
            return result | {"status": "quarantined", "stage": "analysis", "reason": str(error)}
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            return result | {"status": "unreachable", "stage": "fetch", "reason": reason}
        return row.as_dict() | {"status": "prepared", "stage": "", "reason": ""}


def analyse(piece: Piece, source: PieceSource, config: AnalysisConfig) -> EmotionRow:
    """All that is known of a piece.

    Raises BadAudio for audio or notes that nothing can be made of, or a piece that nobody labelled and that
    has no notes to tell an emotion from; OSError where a file cannot be read now.
    """
    performance = source.performance(piece)
    audio = np.zeros((0, N_FEATURES), dtype=np.float32)
    if piece.audio is not None:
        audio = hear(source.read_audio(piece), config)
    heard = _of_notes(performance) if performance is not None else _NOTHING
    label = piece.label or _weak(performance)
    node = label.node
    if node is None:
        node = int(thesaurus().nearest(np.array([label.vad]))[0, 0])
    track = piece.track
    return EmotionRow(
        track.id, track.title, track.work, track.license, label.of, label.vad, node, audio, **heard
    )


def hear(data: bytes, config: AnalysisConfig) -> NDArray[np.float32]:
    """The 128 features of each window [windows, 128] of an audio file. Raises BadAudio."""
    decoded = decode(data)
    check_audible(decoded, LEAST_S, SILENCE_DBFS)
    samples = decoded.resampled(SAMPLE_RATE)
    length = min(len(samples), round(config.window_s * SAMPLE_RATE))
    n_windows = max(1, min(config.max_windows, len(samples) // length))
    starts = np.linspace(0, len(samples) - length, n_windows).astype(int)
    return np.stack([audio_features(samples[start : start + length]) for start in starts])


_NOTHING: Mapping[str, Any] = {
    "melody": np.zeros(0, dtype=np.float32),
    "chords": np.zeros(0, dtype=np.int64),
    "expression": np.zeros(0, dtype=np.float32),
    "groove": np.zeros(0, dtype=np.float32),
}


def _of_notes(performance: Performance) -> dict[str, Any]:
    key = find_key(performance)
    groove = groove_of(performance)
    pitched = len(performance.pitched.pitch) > 0
    return {
        "melody": melody_of(performance, key) if pitched else _NOTHING["melody"],
        "chords": np.asarray(chords_of(performance, key), dtype=np.int64),
        "expression": expression_of(performance),
        "groove": _NOTHING["groove"] if groove is None else groove,
    }


def _weak(performance: Performance | None) -> Label:
    if performance is None:
        raise BadAudio("nobody has labelled its emotion, and there are no notes to tell one from")
    return Label(weak_vad(performance, find_key(performance)), RULE)
