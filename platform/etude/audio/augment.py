"""Changes to mels that leave the music recognisable; all randomness comes from an explicit generator.

A mel is a float32 tensor [b, n_mels, n_frames] in dB on any device. Random numbers are drawn on the
generator's device, so a CPU generator gives the same changes on every device. The same changes to
waveforms, for a teacher to hear too, are in `etude.audio.augment_waveform`.
"""

import math
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor
from torch.nn import functional

from etude.audio.mel_noise import add_white_noise
from etude.audio.recipe import FeatureRecipe

FLOOR_DB: float = FeatureRecipe.model_fields["floor_db"].default
NOISE_RANGE_DB = 20.0  # the weakest noise lies this far under the strongest
_DB_TO_LOG = math.log(10.0) / 10.0


class AugmentConfig(BaseModel):
    """How strongly to change mels; by default not at all."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # cached: the targets of the unchanged music (mix-up mixes them); recomputed: the teacher hears every
    # change but the masks, at the cost of decoding and of running it in every step
    targets: Literal["cached", "recomputed"] = "cached"
    roll_frames: int = Field(default=0, ge=0)  # largest shift in time, either way
    gain_db: float = Field(default=0.0, ge=0.0)  # largest change of level, either way
    noise_share: float = Field(default=0.0, ge=0.0, le=1.0)  # of the items that get white noise
    noise_snr_db: float = 20.0  # music over noise at the strongest noise; at the weakest it is 20 dB more
    mixup_alpha: float = Field(default=0.0, ge=0.0)  # of Beta(alpha, alpha); 0 mixes nothing
    freq_masks: int = Field(default=0, ge=0)
    freq_width: int = Field(default=16, ge=0)  # bands, at most
    time_masks: int = Field(default=0, ge=0)
    time_width: int = Field(default=100, ge=0)  # frames, at most


def masks_only(config: AugmentConfig) -> AugmentConfig:
    """What is left to do to the mels of a batch whose waveforms were changed as `config` says."""
    done = {"targets": "cached", "roll_frames": 0, "gain_db": 0.0, "noise_share": 0.0, "mixup_alpha": 0.0}
    return config.model_copy(update=done)


def augment(
    mel: Tensor,
    targets: Tensor,
    config: AugmentConfig,
    generator: Generator,
    recipe: FeatureRecipe | None = None,
) -> tuple[Tensor, Tensor]:
    """The changes that `config` asks for, in its order, of mel [b, ...] and its targets [b, d].

    Where targets are recomputed, the waveforms are changed instead and this gets `masks_only`.
    """
    assert config.targets == "cached", "only masks are left where targets are recomputed: masks_only(config)"
    recipe = recipe or FeatureRecipe()
    if config.roll_frames:
        mel = time_roll(mel, config.roll_frames, generator)
    if config.gain_db:
        mel = gain(mel, config.gain_db, generator, recipe.floor_db)
    if config.noise_share:
        mel = noise(mel, config.noise_share, config.noise_snr_db, generator, recipe)
    if config.mixup_alpha:
        mel, targets = mixup(mel, targets, config.mixup_alpha, generator)
    if config.freq_masks or config.time_masks:
        mel = spec_augment(
            mel,
            config.freq_masks,
            config.freq_width,
            config.time_masks,
            config.time_width,
            recipe.floor_db,
            generator,
        )
    return mel, targets


def time_roll(mel: Tensor, max_frames: int, generator: Generator) -> Tensor:
    """Shift each item by up to `max_frames` either way; what leaves at one end enters at the other."""
    shifts = draw_shifts(len(mel), max_frames, generator)
    return torch.stack([item.roll(shift, dims=-1) for item, shift in zip(mel, shifts, strict=True)])


def gain(mel: Tensor, max_db: float, generator: Generator, floor_db: float = FLOOR_DB) -> Tensor:
    """Add to each item one gain, uniform in +-max_db; what is at the floor is silence and stays there."""
    gains = draw_gains(len(mel), max_db, generator)[:, None, None]
    # In place after the first step: in batches this size, new memory costs more than the arithmetic.
    return functional.threshold(mel, floor_db, -math.inf).add_(gains.to(mel)).clamp_min_(floor_db)


def noise(mel: Tensor, share: float, snr_db: float, generator: Generator, recipe: FeatureRecipe) -> Tensor:
    """Add white noise to about `share` of the items, `snr_db` to `snr_db` + 20 dB under their mean power."""
    chosen, snrs = draw_noise(len(mel), share, snr_db, generator)
    if not len(chosen):
        return mel
    chosen, noisy = chosen.to(mel.device), mel.clone()
    noisy[chosen] = add_white_noise(mel[chosen], snrs, generator, recipe)
    return noisy


def mixup(mel: Tensor, targets: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Mix each item with another of the batch, in power, as sounds mix (Zhang et al., 2018).

    The shares are Beta(alpha, alpha), one an item. Targets [b, d] are mixed by the same shares and not
    normalised: a mix of unit vectors is shorter than 1.
    """
    shares, partners = draw_mix(len(mel), alpha, generator)
    partners = partners.to(mel.device)
    power = (mel * _DB_TO_LOG).exp_()
    share = shares.to(mel)[:, None, None]
    mixed = torch.lerp(power[partners], power, share).log_().div_(_DB_TO_LOG)
    return mixed, torch.lerp(targets[partners], targets, shares.to(targets)[:, None])


def spec_augment(
    mel: Tensor,
    freq_masks: int,
    freq_width: int,
    time_masks: int,
    time_width: int,
    floor_db: float,
    generator: Generator,
) -> Tensor:
    """Silence bands and stretches of each item (SpecAugment; Park et al., 2019).

    Each of `freq_masks` covers 0 to `freq_width` bands, each of `time_masks` 0 to `time_width` frames.
    """
    n, n_mels, n_frames = mel.shape
    bands = _masks(n, freq_masks, freq_width, n_mels, generator)
    frames = _masks(n, time_masks, time_width, n_frames, generator)
    ceiling = torch.tensor([math.inf, floor_db]).to(mel)
    masked = torch.minimum(mel, ceiling[bands.to(mel.device)][:, :, None])
    return torch.minimum(masked, ceiling[frames.to(mel.device)][:, None, :], out=masked)


def draw_shifts(n: int, largest: int, generator: Generator) -> list[int]:
    """One whole number an item [n], uniform in +-largest."""
    return [int(shift) for shift in _integers(-largest, largest, (n,), generator)]


def draw_gains(n: int, max_db: float, generator: Generator) -> Tensor:
    """One gain an item [n] in dB, uniform in +-max_db."""
    return max_db * (2.0 * torch.rand(n, generator=generator, device=generator.device) - 1.0)


def draw_noise(n: int, share: float, snr_db: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Which of n items get noise [k], each with probability `share`, and their ratios [k] in dB."""
    chance, place = torch.rand(2, n, generator=generator, device=generator.device)
    chosen = (chance < share).nonzero()[:, 0]
    return chosen, snr_db + NOISE_RANGE_DB * place[chosen]


def draw_mix(n: int, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """The share [n] that an item keeps, of Beta(alpha, alpha), and with which it is mixed [n]."""
    seed = int(_integers(0, 2**62, (), generator))  # PyTorch's Beta takes no generator
    shares = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, n).astype(np.float32))
    return shares, torch.randperm(n, generator=generator, device=generator.device)


def _masks(n: int, n_masks: int, max_width: int, length: int, generator: Generator) -> Tensor:
    """Where at least one of n_masks intervals of 0 to max_width lies: 1 there, else 0, [n, length]."""
    widths = _integers(0, min(max_width, length), (n, n_masks, 1), generator)
    room = torch.rand(n, n_masks, 1, generator=generator, device=generator.device)
    starts = (room * (length - widths + 1)).long()
    positions = torch.arange(length, device=generator.device)
    return ((positions >= starts) & (positions < starts + widths)).any(dim=1).long()


def _integers(low: int, high: int, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Uniform integers from low to high, both included."""
    return torch.randint(low, high + 1, shape, generator=generator, device=generator.device)
