"""MERT as an audio space: the means of its hidden states over windows of 30 s, every 5 s.

MERT is a HuBERT (Li et al., 2023, arXiv 2306.00107), and the HuBERT of Transformers loads it. The code beside
the published weights, which `trust_remote_code` would execute, is not used: what it can do beyond HuBERT, a
constant-Q transform as a second input and another scale of residuals, must be switched off in config.json.
Sizes: facts/projection_and_emotion.md, a, "Enrichment".
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from etude.audio.decode import Audio
from etude.audio.segment import Segments
from etude.audio.torchaudio_cpu import import_torchaudio
from etude.errors import BadAudio, UserError
from etude.sources.base import Track
from etude.teachers.base import Targets
from etude.teachers.spaces import MertConfig
from etude.teachers.weights import digest, file_in, fill, model_folder, read_json, read_tensors, tensors_file
from etude.teachers.windows import window_targets, windows_of

SAMPLE_RATE = 24_000  # Hz
WINDOW_S, HOP_S = 30.0, 5.0
_LEAST_S = 0.1
_BEYOND_HUBERT = ("feature_extractor_cqt", "deepnorm")
# As PyTorch called the parts of a normalised weight when MERT was published, and calls them now.
_RENAMED = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}


class Mert:
    """A `Teacher`: MERT on a PyTorch device, loaded when it first hears something.

    `weights` is a folder, or a published model in Hugging Face's cache; `batch_size` windows go through the
    network at once. Raises UserError if a file is missing, or no MERT's that HuBERT can stand for.
    """

    normalized = False
    license = MertConfig.license
    anchors: NDArray[np.float32] | None = None

    def __init__(self, weights: str, batch_size: int = 1, device: str = "cpu") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        self._batch_size = batch_size
        self._device = device
        folder = model_folder(weights, "MERT")
        self._tensors = tensors_file(folder, "MERT")
        config = file_in(folder, "config.json", what="MERT")
        front_end = file_in(folder, "preprocessor_config.json", what="MERT")
        self._config, self._front_end = read_json(config), read_json(front_end)
        self.dim = _width(self._config, config)
        if self._front_end.get("sampling_rate") != SAMPLE_RATE:
            raise UserError(
                f"{front_end} does not ask for {SAMPLE_RATE} Hz, as MERT does: set teacher.weights"
            )
        self.id = f"mert-{digest(self._tensors, config, front_end)}"

    def embed(self, audio: Audio, segments: Segments, track: Track | None = None) -> Targets:
        """The vectors of the windows [n_windows, 25 x 1024], whatever the segments are, and their mean.

        A vector is the means over time of the state before the first layer and after each of them, one after
        the other; every window is brought to mean 0 and deviation 1 on its own. Raises BadAudio for less
        than 0.1 s, UserError if the files do not serve.
        """
        if audio.duration_s < _LEAST_S:
            raise BadAudio(f"too short: {audio.duration_s:.2f} s; MERT needs at least {_LEAST_S:g} s")
        samples = audio.resampled(SAMPLE_RATE)
        cut = windows_of(len(samples), SAMPLE_RATE, WINDOW_S, HOP_S)
        found = [
            self._embed_windows([samples[start : start + cut.length] for start in starts])
            for starts in (
                cut.starts[first : first + self._batch_size] for first in range(0, len(cut), self._batch_size)
            )
        ]
        return window_targets(np.concatenate(found))

    def _embed_windows(self, windows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Vectors [b, dim] of windows of the same length."""
        normed = self._normalise(windows, sampling_rate=SAMPLE_RATE, return_tensors="pt")["input_values"]
        with torch.inference_mode():
            heard = self._net(normed.to(self._device), output_hidden_states=True)
            # Since Transformers 5 the last of the states lacks the norm that follows it, and that counts.
            states = (*heard.hidden_states[:-1], heard.last_hidden_state)
            means_BSD = torch.stack([state_BTD.mean(1) for state_BTD in states], 1)
        return np.asarray(means_BSD.flatten(1).cpu().numpy(), np.float32)

    @cached_property
    def _normalise(self) -> Any:
        import_torchaudio()  # transformers looks for it
        from transformers import Wav2Vec2FeatureExtractor

        return Wav2Vec2FeatureExtractor.from_dict(self._front_end)

    @cached_property
    def _net(self) -> Any:
        net = _hubert(self._config, self._tensors)
        tensors = read_tensors(self._tensors)
        for name in [name for name in tensors if name.rpartition(".")[2] in _RENAMED]:
            prefix, _, last = name.rpartition(".")
            tensors[f"{prefix}.{_RENAMED[last]}"] = tensors.pop(name)
        fill(net, tensors, "", self._tensors, "MERT")
        return net.eval().requires_grad_(False).to(self._device)


def _width(config: Mapping[str, Any], path: Path) -> int:
    """How many numbers all states have together. Raises UserError if HuBERT cannot stand for the model."""
    if own := [name for name in _BEYOND_HUBERT if config.get(name)]:
        raise UserError(
            f"{path} sets {' and '.join(own)}, for which MERT's own code would have to be executed: set "
            "teacher.weights to a MERT without, such as m-a-p/MERT-v1-330M"
        )
    match config:
        case {"num_hidden_layers": int(layers), "hidden_size": int(width)}:
            return (layers + 1) * width
    raise UserError(f"{path} describes no MERT: set teacher.weights to m-a-p/MERT-v1-330M")


def _hubert(config: Mapping[str, Any], tensors: Path) -> Any:
    """A HuBERT of the configured size, with weights that mean nothing yet."""
    import_torchaudio()
    from huggingface_hub.errors import StrictDataclassError
    from transformers import HubertConfig, HubertModel

    known = HubertConfig().to_dict().keys() - {"model_type", "transformers_version", "dtype"}
    given = {name: value for name, value in config.items() if name in known}
    unmasked = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}  # masks are for training
    try:
        return HubertModel(HubertConfig(**(given | unmasked), attn_implementation="sdpa"))
    except (KeyError, TypeError, ValueError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"the config.json beside {tensors} describes no HuBERT ({reason}): fetch MERT again"
        ) from error
