"""MusiCNN as a teacher: 200-d vectors of three-second patches, as AudioMuse-AI averages them.

The weights come with the package `musicnn`, which is only read, never imported: it needs TensorFlow 1.
Figures of the front end: facts/audiomuse.md, b, "MusiCNN teacher".
"""

import importlib.util
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from etude.audio.decode import Audio
from etude.audio.mel import mel_basis
from etude.audio.segment import Segments
from etude.errors import BadAudio, UserError
from etude.sources.base import Track
from etude.teachers.base import Targets
from etude.teachers.musicnn_net import DIM, N_BANDS, N_FRAMES, MusiCNNNet
from etude.teachers.tensor_bundle import read_tensor_bundle

_SAMPLE_RATE = 16_000  # Hz
_N_FFT = 512
_HOP_LENGTH = 256  # samples between frames
_COMPRESSION = 10_000.0  # log10(1 + this x mel)
_PATCH_HOP = N_FRAMES * _HOP_LENGTH  # samples: patches share no frame
_PATCH_LENGTH = (N_FRAMES - 1) * _HOP_LENGTH + _N_FFT  # samples
_PATCH_S = _PATCH_LENGTH / _SAMPLE_RATE

_WINDOW = (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(_N_FFT) / _N_FFT)).astype(np.float32)  # periodic Hann
_MEL_FILTERS = mel_basis(_SAMPLE_RATE, _N_FFT, N_BANDS, 0.0, _SAMPLE_RATE / 2).T  # [257, 96]

_INSTALL = "pip install --no-deps musicnn==0.1.0"
_INDEX, _DATA = ".index", ".data-00000-of-00001"
_SHA256 = {
    "MSD_musicnn": {
        _INDEX: "87f3e0f3550c8d3bafc840374003e5c8af5eeb5ecf6add61af09a7822d3282c8",
        _DATA: "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6",
    },
    "MTT_musicnn": {
        _INDEX: "da2d7bb670b2b31e9bc441bb1bd75eca31b5b061f963cc1f9630c1aff3238f57",
        _DATA: "041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab",
    },
}

Model = Literal["MSD_musicnn", "MTT_musicnn"]


class MusiCNN:
    """A `Teacher`: the penultimate layer of MusiCNN, trained on tags of MSD or of MagnaTagATune.

    `batch_size` patches go through the network at once, on a PyTorch `device`. Raises UserError if the
    weights are missing or not the pinned ones.
    """

    dim = DIM
    normalized = False
    license = "ISC"

    def __init__(self, model: Model = "MSD_musicnn", batch_size: int = 8, device: str = "cpu") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        index, data = _read_checkpoint(model)
        self.id = f"{model.lower()}-{_SHA256[model][_DATA][:8]}"
        self._batch_size = batch_size
        self._device = device
        self._net = MusiCNNNet(read_tensor_bundle(index, data)).eval().to(device)

    @property
    def anchors(self) -> NDArray[np.float32]:
        """Directions [50, 200] in which the tags' logits grow: nothing lies between the vector and them."""
        rows = self._net.tags.weight.cpu().numpy()
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def embed(self, audio: Audio, segments: Segments, track: Track | None = None) -> Targets:
        """For each segment the mean of its own patches, [n_segments, 200]; of all the track's patches, [200].

        A segment of 10 s has three patches and is silent past the end of the track; the track's patches
        are those that fit. Raises BadAudio for a track shorter than one patch, 3.008 s, and ValueError if
        the segments are shorter than that.
        """
        samples = audio.resampled(_SAMPLE_RATE)
        of_track = _patch_starts(len(samples))
        if not len(of_track):
            raise BadAudio(f"too short: {audio.duration_s:.2f} s; MusiCNN needs at least {_PATCH_S:.3f} s")
        scale = _SAMPLE_RATE / segments.sample_rate
        within = _patch_starts(round(segments.length * scale))
        if not len(within):
            length_s = segments.length / segments.sample_rate
            raise ValueError(f"segments of {length_s:.2f} s are too short; MusiCNN needs {_PATCH_S:.3f} s")
        # Rounded as `Segments.cut` rounds them: the patches are those of the segments it cuts.
        of_segments = np.array([round(start * scale) for start in segments.starts])[:, None] + within

        # The patches of a short track often coincide; each is computed once.
        starts, places = np.unique(np.concatenate([of_segments.ravel(), of_track]), return_inverse=True)
        vectors = self._embed_patches(samples, starts)[places]
        per_segment = vectors[: of_segments.size].reshape(*of_segments.shape, self.dim)
        return Targets(per_segment.mean(axis=1), vectors[of_segments.size :].mean(axis=0))

    def _embed_patches(self, samples: NDArray[np.float32], starts: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors [n, 200] of the patches that start there, in samples; past the end stand zeros."""
        missing = int(starts.max()) + _PATCH_LENGTH - len(samples)
        padded = np.pad(samples, (0, max(0, missing)))
        vectors = np.empty((len(starts), self.dim), np.float32)
        for first in range(0, len(starts), self._batch_size):
            batch = slice(first, first + self._batch_size)
            patches = torch.from_numpy(log_mel_patches(padded, starts[batch]))
            with torch.inference_mode():
                embeddings, _ = self._net(patches.to(self._device))
            vectors[batch] = embeddings.cpu().numpy()
        return vectors


def log_mel_patches(samples: NDArray[np.float32], starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The network's input [b, 187, 96]: log10(1 + 10,000 mel) of patches of samples [n] at 16 kHz.

    `starts` [b] are in samples; every patch must end within the samples.
    """
    frames = starts[:, None] + _HOP_LENGTH * np.arange(N_FRAMES)
    spectrum = np.fft.rfft(sliding_window_view(samples, _N_FFT)[frames] * _WINDOW)
    power = spectrum.real**2 + spectrum.imag**2
    return np.asarray(np.log10(1.0 + _COMPRESSION * (power @ _MEL_FILTERS)), np.float32)


def _patch_starts(n_samples: int) -> NDArray[np.int64]:
    """Where the patches of `n_samples` start, one after the other; a rest too short for one is left out."""
    n_frames = 1 + (n_samples - _N_FFT) // _HOP_LENGTH
    return _PATCH_HOP * np.arange(n_frames // N_FRAMES)


def _read_checkpoint(model: Model) -> tuple[bytes, bytes]:
    """The index and the data of the installed checkpoint, compared with the pinned hashes."""
    spec = importlib.util.find_spec("musicnn")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise UserError(f"the weights of {model} are missing; install them: {_INSTALL}")
    contents = []
    for name, pinned in _SHA256[model].items():
        path = Path(folders[0]) / model / name
        if not path.is_file():
            raise UserError(f"the weights of {model} are missing: no file {path}; install them: {_INSTALL}")
        content = path.read_bytes()
        if sha256(content).hexdigest() != pinned:
            raise UserError(
                f"the weights of {model} are not the published ones: {path} has another sha256 than pinned; "
                f"install them again: {_INSTALL} --force-reinstall"
            )
        contents.append(content)
    index, data = contents
    return index, data
