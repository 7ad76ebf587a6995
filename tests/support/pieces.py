"""Small folders of music: sounds and MIDI files written here, under the names that published sets use."""

import io
from pathlib import Path

import mido
import numpy as np
import soundfile

from etude.sources.described import PassedOver
from etude.sources.pieces import PieceSourceConfig, build_piece_source
from etude.sources.pieces.base import Piece

KINDS = {".mp3": "MP3", ".flac": "FLAC", ".wav": "WAV"}


def write_audio(path: Path, hz: float = 440.0) -> Path:
    """A tone of 0.2 s at 22,050 Hz; another pitch is another file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.3 * np.sin(2 * np.pi * hz * np.arange(4_410) / 22_050)
    soundfile.write(path, tone, 22_050, format=KINDS[path.suffix.lower()])
    return path


def write_midi(path: Path, *pitches: int) -> Path:
    """One quarter after the other, by default a C major triad."""
    file = mido.MidiFile(ticks_per_beat=480)
    track = mido.MidiTrack()
    file.tracks.append(track)
    for pitch in pitches or (60, 64, 67):
        track.append(mido.Message("note_on", note=pitch, velocity=80))
        track.append(mido.Message("note_off", note=pitch, time=480))
    content = io.BytesIO()
    file.save(file=content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())
    return path


def write_table(path: Path, *lines: str) -> Path:
    """A CSV file of these lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def listing(config: PieceSourceConfig) -> tuple[list[Piece], dict[str, int]]:
    """The pieces that a source lists, and what it has passed over, by reason."""
    passed_over = PassedOver()
    pieces = list(build_piece_source(config, Path("nowhere")).pieces(passed_over))
    assert len({piece.track.id for piece in pieces}) == len(pieces)
    return pieces, passed_over.counts


def works(pieces: list[Piece]) -> list[list[str]]:
    """The titles of each work, in the order of the listing."""
    found: dict[str, list[str]] = {}
    for piece in pieces:
        found.setdefault(piece.track.work, []).append(piece.track.title)
    return list(found.values())
