"""CLAP's audio encoder from LAION's own checkpoint, `music_audioset_epoch_15_esc_90.14.pt`.

Of the package `laion-clap` two files are used: HTSAT, the network, and what it is built of. The rest wants
NumPy 1, torchvision and a tokenizer from the network, and the package's own loading would execute whatever
code a checkpoint holds. The steps are those of a served CLAP, from the waveform to the vector
(facts/audiomuse.md, b, "AudioCLAPWrapper"); the mel is computed as for the ONNX file.
"""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from etude.audio.decode import Audio
from etude.audio.segment import Segments
from etude.errors import UserError
from etude.sources.base import Track
from etude.teachers.base import Targets
from etude.teachers.clap import DIM, RECIPE, clap_mel, track_vector, units
from etude.teachers.weights import fill
from etude.torch_file import NUMBERS, read_torch_file

_INSTALL = "pip install --no-deps laion-clap==1.1.7 torchlibrosa==0.1.0, and pip install librosa"
_PACKAGE = "etude_laion_htsat"  # a name of our own: the package's would execute all of it
_CLASSES = 527  # of AudioSet, whose classifier is a part of HTSAT
_WIDTH = 1024  # of HTSAT-base
_WHAT = "CLAP with HTSAT-base and without fusion"


class LaionClap:
    """A `Teacher`: HTSAT-base and CLAP's projection, on a PyTorch device, one segment at a time.

    Raises UserError if the package or the file is missing, if the file holds code, or is no such checkpoint.
    """

    dim = DIM
    normalized = True
    license = "unknown: LAION states CC0-1.0 for its code, nothing for the checkpoint"
    anchors: NDArray[np.float32] | None = None  # its text encoder is not loaded

    def __init__(self, checkpoint: Path, device: str = "cpu") -> None:
        weights = _read(checkpoint)
        with torch.device("meta"):
            projection = nn.Sequential(nn.Linear(_WIDTH, DIM), nn.ReLU(), nn.Linear(DIM, DIM))
        htsat = _htsat()
        fill(htsat, weights, "audio_branch.", checkpoint, _WHAT)
        fill(projection.to_empty(device="cpu"), weights, "audio_projection.", checkpoint, _WHAT)
        self._htsat = htsat.eval().requires_grad_(False).to(device)
        self._projection = projection.eval().requires_grad_(False).to(device)
        self._device = device
        with checkpoint.open("rb") as file:
            self.id = f"laion_clap-{file_digest(file, 'sha256').hexdigest()[:8]}"

    def embed(self, audio: Audio, segments: Segments, track: Track | None = None) -> Targets:
        """The vectors of the segments [n_segments, 512] and of the track [512], as `Clap.embed`."""
        mel = clap_mel(audio, segments)
        found = [
            self._embed_mel(torch.from_numpy(mel.segment(i).T[None, None].copy())) for i in range(len(mel))
        ]
        vectors = units(np.concatenate(found))
        return Targets(vectors, track_vector(vectors))

    def _embed_mel(self, mel_B1TF: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            normed = self._htsat.bn0(mel_B1TF.to(self._device).transpose(1, 3)).transpose(1, 3)
            image = self._htsat.reshape_wav2img(normed)
            found = self._projection(self._htsat.forward_features(image)["embedding"])
        return np.asarray(found.cpu().numpy(), np.float32)


def _read(checkpoint: Path) -> Mapping[str, Tensor]:
    """The tensors of a checkpoint by name; no code in it is executed."""
    mend = "get music_audioset_epoch_15_esc_90.14.pt from LAION again"
    found = read_torch_file(checkpoint, "the checkpoint", mend, NUMBERS)
    state = found.get("state_dict", found) if isinstance(found, Mapping) else {}
    return {str(name).removeprefix("module."): one for name, one in state.items() if isinstance(one, Tensor)}


def _htsat() -> Any:
    """HTSAT-base with weights that mean nothing yet. Raises UserError if a package is missing."""
    settings = SimpleNamespace(
        model_name="base",
        mel_bins=RECIPE.n_mels,
        sample_rate=RECIPE.sample_rate,
        window_size=RECIPE.n_fft,
        hop_size=RECIPE.hop_length,
        fmin=RECIPE.fmin,
        fmax=RECIPE.fmax,
        class_num=_CLASSES,
    )
    if _PACKAGE not in sys.modules:
        spec = importlib.util.find_spec("laion_clap")
        folders = spec.submodule_search_locations if spec else None
        if not folders or not importlib.util.find_spec("torchlibrosa"):
            raise UserError(f"LAION's checkpoint needs two packages that are not installed: {_INSTALL}")
        package = ModuleType(_PACKAGE)
        package.__path__ = [str(Path(folders[0]) / "clap_module")]
        sys.modules[_PACKAGE] = package
        sys.modules[f"{_PACKAGE}.utils"] = _utilities()
    try:
        htsat = importlib.import_module(f"{_PACKAGE}.htsat")
    except ImportError as error:
        raise UserError(f"the package laion-clap cannot be used ({error}): {_INSTALL}") from error
    return htsat.create_htsat_model(settings)


def _utilities() -> ModuleType:
    """The two functions that HTSAT takes from a file which itself needs torchvision and h5py.

    One prepares training, which does not happen here; the other stretches what HTSAT says frame by frame,
    which is not a part of its vector.
    """
    module = ModuleType(f"{_PACKAGE}.utils")
    vars(module).update(interpolate=_repeat_frames, do_mixup=None)
    return module


def _repeat_frames(x_BTC: Tensor, ratio: int) -> Tensor:
    return x_BTC.repeat_interleave(ratio, dim=1)
