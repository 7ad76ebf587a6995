"""Changes to mels that leave the music recognisable; all randomness comes from an explicit generator.

A mel is a float32 tensor [b, n_mels, n_frames] in dB on any device. Random numbers are drawn on the
generator's device, so a CPU generator gives the same changes on every device.
"""

import math

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor
from torch.nn import functional

from etude.audio.recipe import FeatureRecipe

FLOOR_DB: float = FeatureRecipe.model_fields["floor_db"].default
_DB_TO_LOG = math.log(10.0) / 10.0


class AugmentConfig(BaseModel):
    """How strongly to change mels; by default not at all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    roll_frames: int = Field(default=0, ge=0)  # largest shift in time, either way
    gain_db: float = Field(default=0.0, ge=0.0)  # largest change of level, either way
    mixup_alpha: float = Field(default=0.0, ge=0.0)  # of Beta(alpha, alpha); 0 mixes nothing
    freq_masks: int = Field(default=0, ge=0)
    freq_width: int = Field(default=16, ge=0)  # bands, at most
    time_masks: int = Field(default=0, ge=0)
    time_width: int = Field(default=100, ge=0)  # frames, at most


def augment(
    mel: Tensor, targets: Tensor, config: AugmentConfig, generator: Generator, floor_db: float = FLOOR_DB
) -> tuple[Tensor, Tensor]:
    """Roll, gain, mixup and masks, those that `config` asks for, of mel [b, ...] and its targets [b, d]."""
    if config.roll_frames:
        mel = time_roll(mel, config.roll_frames, generator)
    if config.gain_db:
        mel = gain(mel, config.gain_db, generator, floor_db)
    if config.mixup_alpha:
        mel, targets = mixup(mel, targets, config.mixup_alpha, generator)
    if config.freq_masks or config.time_masks:
        mel = spec_augment(
            mel,
            config.freq_masks,
            config.freq_width,
            config.time_masks,
            config.time_width,
            floor_db,
            generator,
        )
    return mel, targets


def time_roll(mel: Tensor, max_frames: int, generator: Generator) -> Tensor:
    """Shift each item by up to `max_frames` either way; what leaves at one end enters at the other."""
    shifts = _integers(-max_frames, max_frames, (len(mel),), generator).tolist()
    return torch.stack([item.roll(shift, dims=-1) for item, shift in zip(mel, shifts, strict=True)])


def gain(mel: Tensor, max_db: float, generator: Generator, floor_db: float = FLOOR_DB) -> Tensor:
    """Add to each item one gain, uniform in +-max_db; what is at the floor is silence and stays there."""
    gains = max_db * (2.0 * torch.rand(len(mel), 1, 1, generator=generator, device=generator.device) - 1.0)
    # In place after the first step: in batches this size, new memory costs more than the arithmetic.
    return functional.threshold(mel, floor_db, -math.inf).add_(gains.to(mel)).clamp_min_(floor_db)


def mixup(mel: Tensor, targets: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Mix each item with another of the batch, in power, as sounds mix (Zhang et al., 2018).

    The shares are Beta(alpha, alpha), one an item. Targets [b, d] are mixed by the same shares and not
    normalised: a mix of unit vectors is shorter than 1.
    """
    seed = int(_integers(0, 2**62, (), generator))  # PyTorch's Beta takes no generator
    shares = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, len(mel)).astype(np.float32))
    partners = torch.randperm(len(mel), generator=generator, device=generator.device).to(mel.device)
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
