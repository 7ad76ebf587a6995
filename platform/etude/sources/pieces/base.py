"""Pieces of music with what is known of their feeling; where they come from is `etude.sources.pieces`."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from etude.emotion.performance import Performance
from etude.emotion.thesaurus import thesaurus
from etude.emotion.vad import VAD, checked
from etude.sources.base import Track
from etude.sources.described import PassedOver

LISTENERS = "listeners"  # the mean of many people's ratings
ANNOTATOR = "annotator"  # what one person, or a file of labels, says
QUADRANT = "quadrant"  # only the signs of valence and arousal are known


@dataclass(frozen=True)
class Label:
    """A feeling that is said of a piece, and by whom."""

    vad: VAD
    of: str
    node: int | None = None  # of the thesaurus, where it is named


@dataclass(frozen=True)
class Piece:
    """One piece: `track` says how to split it and what its licence is; it has audio, notes or both."""

    track: Track
    audio: str | None  # where the source finds the recording
    midi: str | None  # and the notes
    label: Label | None  # None: nobody has said what it feels like


def piece_to_json(piece: Piece) -> str:
    """The piece as text, for a row that travels."""
    return json.dumps(asdict(piece), default=dict)


def piece_of(text: str) -> Piece:
    """The piece that `piece_to_json` wrote."""
    known = json.loads(text)
    label = known["label"] and Label(**known["label"] | {"vad": VAD(*known["label"]["vad"])})
    track = Track(**known["track"] | {"captions": tuple(known["track"]["captions"])})
    return Piece(track, known["audio"], known["midi"], label)


class PieceSource(Protocol):
    """A place where pieces come from."""

    @property
    def id(self) -> str:
        """Names this source: kind plus a hash of its settings."""
        ...

    def pieces(self, passed_over: PassedOver) -> Iterator[Piece]:
        """List the pieces cheaply, in a stable order, and count in `passed_over` what cannot be used.

        Raises UserError when nothing can be read there, or no piece at all can be used.
        """
        ...

    def read_audio(self, piece: Piece) -> bytes:
        """The recording of a piece that has one. Raises OSError, or BadAudio when it never can be had."""
        ...

    def read_midi(self, piece: Piece) -> bytes:
        """The MIDI file of a piece that has one. Raises OSError, or BadAudio when it never can be had."""
        ...

    def performance(self, piece: Piece) -> Performance | None:
        """The notes of a piece; None if it has none. Raises OSError, or BadAudio for a broken file."""
        ...


def completed(valence: float, arousal: float, of: str) -> Label:
    """A label of which only valence (-1..1) and arousal (0..1) are known, as in every published set here.

    Intensity is the distance from the neutral point (0, 0.5) on the circle through (1, 0.5) and (0, 1), at
    most 1: Reisenzein, "Pleasure-arousal theory and the intensity of emotions", Journal of Personality and
    Social Psychology 67 (1994). Dominance is an assumption: the plane over valence and arousal that fits the
    thesaurus' nodes best, though it explains only a sixth of their differences in it (R² 0.17). Raises
    UserError for a value outside its range.
    """
    known = checked(VAD(valence, arousal, 0.5, 0.0), "a label")
    intensity = min(1.0, math.hypot(known.valence, 2 * known.arousal - 1))
    dominance = float(np.array([known.valence, known.arousal, 1.0]) @ _dominance_plane())
    return Label(VAD(known.valence, known.arousal, min(1.0, max(0.0, dominance)), intensity), of)


def quadrant(positive: bool, aroused: bool) -> Label:
    """The centre of a quadrant of the valence-arousal plane: all of its pieces share one label."""
    return completed(0.5 if positive else -0.5, 0.75 if aroused else 0.25, QUADRANT)


@cache
def _dominance_plane() -> NDArray[np.floating[Any]]:
    """[3]: what dominance gains with valence and with arousal, and where it starts."""
    vad_N4 = thesaurus().vad_N4
    known = np.column_stack([vad_N4[:, :2], np.ones(len(vad_N4))])
    return np.linalg.lstsq(known, vad_N4[:, 2], rcond=None)[0]
