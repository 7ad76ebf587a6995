"""MuQ-MuLan as an audio space: 512-d vectors of windows of 120 s, every 15 s.

A vector of a window is the mean over its clips of 10 s, as the authors' package computes it; clips that
several windows share are heard once. Sizes: facts/projection_and_emotion.md, a, "Enrichment".
"""

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from etude.audio.decode import Audio
from etude.audio.segment import Segments
from etude.errors import BadAudio, UserError
from etude.sources.base import Track
from etude.teachers.base import Targets
from etude.teachers.muq_net import SAMPLE_RATE, MuQMuLanNet
from etude.teachers.spaces import MuQConfig
from etude.teachers.weights import digest, file_in, model_folder, read_json, read_tensors, tensors_file
from etude.teachers.windows import window_targets, windows_of

WINDOW_S, HOP_S, CLIP_S = 120.0, 15.0, 10
_CLIP = CLIP_S * SAMPLE_RATE
_LEAST_S = 1.0


class MuQ:
    """A `Teacher`: the music tower of MuQ-MuLan, on a PyTorch device, loaded when it first hears something.

    `weights` is a folder, or a published model in Hugging Face's cache; of the MuQ that its config.json names
    only the config.json is needed. Raises UserError if a file is missing or no MuQ-MuLan's.
    """

    normalized = False  # the mean of vectors of length 1 is shorter
    license = MuQConfig.license
    anchors: NDArray[np.float32] | None = None

    def __init__(self, weights: str, batch_size: int = 1, device: str = "cpu") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        self._batch_size = batch_size
        self._device = device
        folder = model_folder(weights, "MuQ-MuLan")
        self._tensors = tensors_file(folder, "MuQ-MuLan")
        config = file_in(folder, "config.json", what="MuQ-MuLan")
        self._mulan = read_json(config)
        name = _name_of_muq(self._mulan, str(config))
        config_of_muq = file_in(
            model_folder(name, "the MuQ in MuQ-MuLan", "config.json"), "config.json", what="MuQ"
        )
        self._muq = read_json(config_of_muq)
        self.dim: int = self._mulan["mulan"]["dim_latent"]
        self.id = f"muq-{digest(self._tensors, config, config_of_muq)}"

    def embed(self, audio: Audio, segments: Segments, track: Track | None = None) -> Targets:
        """The vectors of the windows [n_windows, 512], whatever the segments are, and their mean [512].

        A track shorter than a window is one window of its own length, its last clip filled up with its
        beginning, as in the package. Raises BadAudio for less than 1 s, UserError if the files do not serve.
        """
        if audio.duration_s < _LEAST_S:
            raise BadAudio(f"too short: {audio.duration_s:.2f} s; MuQ needs at least {_LEAST_S:g} s")
        samples = audio.resampled(SAMPLE_RATE)
        windows = windows_of(len(samples), SAMPLE_RATE, WINDOW_S, HOP_S)
        samples = np.concatenate([samples, samples[: -windows.length % _CLIP]])  # full windows need none
        starts_WC = np.array(windows.starts)[:, None] + np.arange(0, windows.length, _CLIP)
        starts, places = np.unique(starts_WC, return_inverse=True)
        vectors = self._embed_clips(samples, starts)[places.ravel()]
        return window_targets(vectors.reshape(*starts_WC.shape, self.dim).mean(axis=1))

    def _embed_clips(self, samples: NDArray[np.float32], starts: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors [n, 512] of length 1 of the clips that start there, in samples."""
        vectors = np.empty((len(starts), self.dim), np.float32)
        for first in range(0, len(starts), self._batch_size):
            batch = slice(first, first + self._batch_size)
            clips = np.stack([samples[start : start + _CLIP] for start in starts[batch]])
            with torch.inference_mode():
                vectors[batch] = self._net(torch.from_numpy(clips).to(self._device)).cpu().numpy()
        return vectors

    @cached_property
    def _net(self) -> MuQMuLanNet:
        from huggingface_hub.errors import StrictDataclassError

        try:
            net = MuQMuLanNet(self._mulan, self._muq)
        except (IndexError, KeyError, TypeError, ValueError, StrictDataclassError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"the config.json beside {self._tensors} describes no MuQ-MuLan ({reason}): fetch it again"
            ) from error
        net.load(read_tensors(self._tensors), self._tensors)
        return net.to(self._device)


def _name_of_muq(mulan: dict[str, object], config: str) -> str:
    """The name of the model within. Raises UserError if it is no MuQ, or hears something else than ours."""
    match mulan:
        case {
            "mulan": {"sr": 24_000, "clip_secs": 10, "dim_latent": int()},
            "audio_model": {"name": str(name)},
        } if "muq" in name.lower():
            return name
    raise UserError(
        f"{config} describes no MuQ-MuLan that hears clips of {CLIP_S} s at {SAMPLE_RATE} Hz with a MuQ: "
        "set teacher.weights to OpenMuQ/MuQ-MuLan-large"
    )
