"""Every number that shapes a feature, and the hash that names features made with them.

Two features are comparable only if their recipes are equal, so the hash is part of every path in the
store, goes into checkpoints, and travels inside the ONNX file.
"""

import hashlib
import json
from typing import Literal

import av
import soxr
from pydantic import BaseModel, ConfigDict, Field


def decoder_version() -> str:
    """The decoder and the resampler with their versions: other versions may give other samples."""
    return f"pyav-{av.__version__}+soxr-{soxr.__version__}"


class FeatureRecipe(BaseModel):
    """From a compressed file to a log-mel spectrogram; defaults as in facts/audiomuse.md, b and c.

    A waveform is mono, resampled to `sample_rate` with soxr HQ, clipped to [-1, 1] and rounded towards
    zero to 16-bit steps, as the teachers' production code does. It is cut into segments (see
    `etude.audio.segment`), and each segment becomes `n_mels` x `n_frames` decibels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decoder: str = Field(default_factory=decoder_version)
    sample_rate: int = 48_000  # Hz
    quantise: Literal["int16", "none"] = "int16"
    segment_samples: int = 480_000  # 10 s
    hop_samples: int = 240_000  # a new segment every 5 s
    tail: Literal["last"] = "last"  # beyond one segment, the last segment_samples are always added
    n_fft: int = 2048
    hop_length: int = 480  # samples between frames: 100 frames a second
    n_mels: int = 128
    fmin: float = 0.0  # Hz
    fmax: float = 14_000.0  # Hz
    mel_scale: Literal["slaney"] = "slaney"
    pad_mode: Literal["reflect"] = "reflect"
    floor_db: float = -100.0  # 10 log10 of the smallest power
    dtype: Literal["float16"] = "float16"  # as stored; computed in float32

    @property
    def n_frames(self) -> int:
        """Frames of one segment, both edges included."""
        return 1 + self.segment_samples // self.hop_length

    @property
    def frames_per_hop(self) -> int:
        """Frames between the starts of two neighbouring segments."""
        return self.hop_samples // self.hop_length

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that change with any number above."""
        canonical = json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]
