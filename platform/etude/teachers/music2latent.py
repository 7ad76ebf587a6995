"""Music2Latent as an audio space: its latents as windows, 192 numbers 10.8 times a second.

Upstream reads a latent of two channels, 64 numbers each, as the real and the imaginary part of complex
numbers, and adds their magnitudes. The channels are the left and the right of the music; the numbers are kept
here and named truly. What reaches a teacher is the mean of a file's channels, so left and right are the same
here, and of the 192 numbers 64 would do. Upstream first gave two channels, and later, for mono, a second one
of zeros, so that 64 numbers were constant and 64 were absolute values: its vectors of mono music are others.
Sizes: facts/projection_and_emotion.md, a, "Enrichment".
"""

import importlib
import importlib.util
from collections.abc import Mapping
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from etude.audio.decode import Audio
from etude.audio.segment import Segments
from etude.errors import BadAudio, UserError
from etude.sources.base import Track
from etude.teachers.base import Targets
from etude.teachers.spaces import Music2LatentConfig
from etude.teachers.weights import digest, file_in, fill, model_folder
from etude.teachers.windows import window_targets
from etude.torch_file import NUMBERS, read_torch_file

SAMPLE_RATE = 44_100  # Hz
CHANNELS = 64  # of a latent
_PIECE = 441_000  # samples at most that are encoded as one
_LEAST = 5_632  # samples that give one latent: eight frames of 512, and the edges
_LEAST_S = _LEAST / SAMPLE_RATE
_INSTALL = "pip install --no-deps music2latent==0.1.8"


class Music2Latent:
    """A `Teacher`: Music2Latent's encoder, on a PyTorch device, loaded when it first hears something.

    Of the package the encoder alone is used: its own class fetches the weights from the network, and would
    execute whatever code they hold. `weights` is the folder of music2latent.pt, or a published model in
    Hugging Face's cache; `batch_size` pieces of 10 s go through the network at once. Raises UserError if the
    package or the file is missing, or cannot serve.
    """

    dim = 3 * CHANNELS
    normalized = False
    license = Music2LatentConfig.license
    anchors: NDArray[np.float32] | None = None

    def __init__(self, weights: str, batch_size: int = 1, device: str = "cpu") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        if not importlib.util.find_spec("music2latent"):
            raise UserError(f"Music2Latent needs its package, which is not installed: {_INSTALL}")
        self._batch_size = batch_size
        self._device = device
        folder = model_folder(weights, "Music2Latent", "music2latent.pt")
        self._file = file_in(folder, "music2latent.pt", what="Music2Latent")
        self.id = f"music2latent-{digest(self._file)}"

    def embed(self, audio: Audio, segments: Segments, track: Track | None = None) -> Targets:
        """The latents as vectors [n_latents, 192], whatever the segments are, and their mean [192].

        Raises BadAudio for less than 0.13 s, UserError if the package or the file does not serve.
        """
        samples = audio.resampled(SAMPLE_RATE)
        if len(samples) < _LEAST:
            raise BadAudio(
                f"too short: {audio.duration_s:.2f} s; Music2Latent needs at least {_LEAST_S:.2f} s"
            )
        mono_CT = self._encode(samples)
        return window_targets(as_upstream(mono_CT, mono_CT))

    def _encode(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The latents [64, n_latents] of one channel."""
        package, model = self._loaded
        latents_1CT = package.encode_audio_inference(
            samples, model, _PIECE, self._batch_size, device=self._device
        )
        return np.asarray(latents_1CT[0].cpu().numpy(), np.float32)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The package's module for encoding, and what it expects of a loaded model."""
        try:
            package = importlib.import_module("music2latent.inference")
            encoder: nn.Module = importlib.import_module("music2latent.models").Encoder()
        except (ImportError, AttributeError) as error:
            raise UserError(f"the package music2latent cannot be used ({error}): {_INSTALL}") from error
        fill(encoder, self._read(), "encoder.", self._file, "Music2Latent")
        # Half precision, its default on a GPU, can give NaN there, as the package itself notes.
        vars(package)["mixed_precision"] = False
        generator = nn.ModuleDict({"encoder": encoder.eval().requires_grad_(False)})
        return package, SimpleNamespace(gen=generator.to(self._device))

    def _read(self) -> Mapping[str, Tensor]:
        mend = "fetch music2latent.pt again"
        found = read_torch_file(self._file, "the weights", mend, NUMBERS)
        match found:
            case {"gen_state_dict": Mapping() as state}:
                return {str(name): one for name, one in state.items() if isinstance(one, Tensor)}
        raise UserError(f"{self._file} is no file of Music2Latent's, it has no gen_state_dict: {mend}")


def as_upstream(left_CT: NDArray[np.float32], right_CT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two channels' latents [64, n] as vectors [n, 192]: left and right by turns, then their magnitudes."""
    by_turns_TC2 = np.stack([left_CT.T, right_CT.T], axis=2)
    magnitude_TC = np.sqrt(left_CT.T**2 + right_CT.T**2 + 1e-12)
    return np.concatenate([by_turns_TC2.reshape(len(by_turns_TC2), -1), magnitude_TC], axis=1)
