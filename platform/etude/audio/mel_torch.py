"""Log-mel spectrograms on any PyTorch device, by torchaudio: the same numbers and layout as `mel`."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import segments_of
from etude.audio.torchaudio_cpu import import_torchaudio
from etude.audio.track_mel import TrackMel, layout_of

_SEGMENTS_AT_ONCE = 32  # about 0.5 GB of spectra on the device


class TorchLogMel(nn.Module):
    """From waveforms [b, segment_samples] to mels [b, n_mels, n_frames] in dB, each segment on its own."""

    def __init__(self, recipe: FeatureRecipe) -> None:
        super().__init__()
        self._floor = 10.0 ** (recipe.floor_db / 10.0)
        self._mel = import_torchaudio().transforms.MelSpectrogram(
            sample_rate=recipe.sample_rate,
            n_fft=recipe.n_fft,
            hop_length=recipe.hop_length,
            f_min=recipe.fmin,
            f_max=recipe.fmax,
            n_mels=recipe.n_mels,
            power=2.0,
            center=True,
            pad_mode=recipe.pad_mode,
            norm="slaney",
            mel_scale=recipe.mel_scale,
        )

    def forward(self, waveforms: Tensor) -> Tensor:
        """The mels [b, n_mels, n_frames] of waveforms [b, segment_samples]."""
        power: Tensor = self._mel(waveforms)
        return 10.0 * power.clamp_min(self._floor).log10()


def log_mel_torch(
    waveform: NDArray[np.float32], recipe: FeatureRecipe, device: torch.device | str
) -> TrackMel:
    """The stored mel of a track, in dB, from its prepared waveform [n] at the recipe's rate."""
    front_end = _front_end(recipe, torch.device(device))
    layout = layout_of(len(waveform), recipe)
    segments = segments_of(len(waveform), recipe)
    frames = np.empty((layout.n_stored, recipe.n_mels), np.float32)
    for first in range(0, len(segments), _SEGMENTS_AT_ONCE):
        some = replace(segments, starts=segments.starts[first : first + _SEGMENTS_AT_ONCE])
        waveforms = torch.from_numpy(some.cut(waveform, recipe.sample_rate)).to(device)
        with torch.inference_mode():
            mels = front_end(waveforms).mT.contiguous().cpu().numpy()
        for i, mel in enumerate(mels, start=first):
            for in_segment, in_track in layout.places(i):
                frames[in_track] = mel[in_segment]
    return TrackMel(frames, len(waveform), recipe)


@lru_cache(maxsize=4)
def _front_end(recipe: FeatureRecipe, device: torch.device) -> TorchLogMel:
    return TorchLogMel(recipe).to(device)
