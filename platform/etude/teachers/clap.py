"""CLAP's audio encoder as a teacher: 512-d vectors of ten-second segments, as AudioMuse-AI computes them.

The network is a local ONNX file with the input `mel_spectrogram` [b, 1, frames, 64]. Figures of the front
end: facts/audiomuse.md, b.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from etude.audio.decode import Audio
from etude.audio.mel import log_mel
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import Segments, segments_of
from etude.audio.track_mel import TrackMel
from etude.audio.waveform import prepare_waveform
from etude.errors import BadAudio, UserError
from etude.sources.base import Track
from etude.teachers.anchors import AnchorSource
from etude.teachers.base import Targets
from etude.teachers.onnx_file import OnnxFile, shapes_of

DIM = 512
# 480 samples between frames, with which CLAP was trained. AudioMuse-AI had 320 until version 0.9.0, by
# mistake; vectors made so are for the doctor to recognise, not to be learnt from.
RECIPE = FeatureRecipe(n_fft=1024, n_mels=64, fmin=50.0)


class Clap:
    """A `Teacher`: a CLAP audio encoder in an ONNX file.

    `batch_size` segments go through the network at once; one, as AudioMuse-AI found the answers of its file
    to depend on the batch. `anchors` are terms and a text encoder of the same CLAP. Raises UserError if the
    file is missing, takes other input or gives other output.
    """

    dim = DIM
    normalized = True
    license = "unknown: that of the CLAP file"

    def __init__(
        self, model: Path, batch_size: int = 1, device: str = "cpu", anchors: AnchorSource | None = None
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        self._batch_size = batch_size
        self._file = open_clap(model, device)
        check_clap(self._file, RECIPE, batch_size)
        self.id = f"clap-{self._file.hash()}"
        self._anchor_source = anchors
        self._anchors: NDArray[np.float32] | None = None

    @property
    def anchors(self) -> NDArray[np.float32] | None:
        """Vectors [n_terms, 512] of the terms, or None without any; computed when first asked for."""
        if self._anchors is None and self._anchor_source is not None:
            self._anchors = self._anchor_source.vectors()
        return self._anchors

    def embed(self, audio: Audio, segments: Segments, track: Track | None = None) -> Targets:
        """The vectors of the segments [n_segments, 512] and of the track [512], all of length 1.

        A track is the mean of all its segments; AudioMuse-AI stops listening after 600 s. Raises BadAudio
        if a vector has no direction, UserError if the segments are not CLAP's own.
        """
        vectors = segment_vectors(self._file, clap_mel(audio, segments), self._batch_size)
        return Targets(vectors, track_vector(vectors))


def clap_mel(audio: Audio, segments: Segments) -> TrackMel:
    """CLAP's own mel of a track in dB. Raises UserError if the segments are others than CLAP's."""
    waveform = prepare_waveform(audio, RECIPE)
    if segments != segments_of(len(waveform), RECIPE):
        raise UserError(
            f"CLAP hears {RECIPE.segment_samples} samples every {RECIPE.hop_samples} at {RECIPE.sample_rate} "
            f"Hz, not segments of {segments.length} at {segments.sample_rate} Hz: leave the sizes of the "
            "segments in the recipe as they are"
        )
    return log_mel(waveform, RECIPE)


def open_clap(model: Path, device: str = "cpu") -> OnnxFile:
    """A file that takes CLAP's mel. Raises UserError if it is missing or takes something else."""
    file = OnnxFile(model, device)
    shapes = list(file.inputs.values())
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] != RECIPE.n_mels:
        raise UserError(
            f"{model} takes {shapes_of(file.inputs)}, not mel_spectrogram [batch, 1, frames, 64] as CLAP does"
        )
    return file


def check_clap(file: OnnxFile, recipe: FeatureRecipe, batch_size: int = 1) -> None:
    """Run a file on one batch of a recipe's mels. Raises UserError if no vectors of CLAP's come out."""
    shape = (batch_size, 1, recipe.n_frames, recipe.n_mels)
    ramp = np.linspace(recipe.floor_db, 0.0, int(np.prod(shape)), dtype=np.float32)
    file.check({next(iter(file.inputs)): ramp.reshape(shape)}, DIM)


def segment_vectors(file: OnnxFile, mel: TrackMel, batch_size: int = 1) -> NDArray[np.float32]:
    """A file's vectors [n_segments, 512] of a track's segments, at length 1. Raises BadAudio."""
    name = next(iter(file.inputs))
    parts = []
    for first in range(0, len(mel), batch_size):
        batch = range(first, min(first + batch_size, len(mel)))
        mels_B1TF = np.stack([mel.segment(i).T[None] for i in batch])
        parts.append(file.run({name: mels_B1TF}))
    return units(np.concatenate(parts))


def track_vector(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of vectors [n, dim] at length 1 [dim]. Raises BadAudio if they cancel each other out."""
    mean = units(vectors.mean(axis=0, keepdims=True))
    return np.asarray(mean[0])


def units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [n, dim] at length 1. Raises BadAudio if one is not finite, or has no direction."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths < np.finfo(np.float32).tiny).any():
        raise BadAudio("the teacher's vector of it is zero, or not finite")
    return np.asarray(vectors / lengths, np.float32)
