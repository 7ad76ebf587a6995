"""The changes of `etude.audio.augment` made to waveforms, so that the teacher can hear them too.

Masks have no waveform; they stay with the student's mel. Waveforms are float32 tensors [b, n] on the CPU.
"""

import torch
from torch import Generator, Tensor

from etude.audio.augment import AugmentConfig, draw_gains, draw_mix, draw_noise, draw_shifts
from etude.audio.recipe import FeatureRecipe


def augment_waveforms(
    waveform_BN: Tensor, config: AugmentConfig, generator: Generator, recipe: FeatureRecipe
) -> Tensor:
    """Roll, gain, noise and mixup, those that `config` asks for, of waveforms at the recipe's rate.

    The result may be louder than 1: clipping is left to whoever computes features. The input stays.
    """
    n = len(waveform_BN)
    if config.roll_frames:
        shifts = draw_shifts(n, config.roll_frames, generator)
        pairs = zip(waveform_BN, shifts, strict=True)
        waveform_BN = torch.stack([one.roll(shift * recipe.hop_length) for one, shift in pairs])
    if config.gain_db:
        waveform_BN = waveform_BN * amplitude(draw_gains(n, config.gain_db, generator))[:, None]
    if config.noise_share:
        chosen, snr = draw_noise(n, config.noise_share, config.noise_snr_db, generator)
        waveform_BN = waveform_BN.index_copy(0, chosen, add_white_noise(waveform_BN[chosen], snr, generator))
    if config.mixup_alpha:
        share, partner = draw_mix(n, config.mixup_alpha, generator)
        waveform_BN = mix(waveform_BN, waveform_BN[partner], share)
    return waveform_BN


def add_white_noise(waveform_BN: Tensor, snr_B: Tensor, generator: Generator) -> Tensor:
    """Waveforms with white noise `snr_B` [b] dB under each one's own mean power; silence stays silent."""
    level = waveform_BN.square().mean(dim=1).sqrt() * amplitude(-snr_B)
    noise = torch.randn(waveform_BN.shape, generator=generator)
    return waveform_BN + level[:, None] * noise


def mix(first_BN: Tensor, second_BN: Tensor, share_B: Tensor) -> Tensor:
    """Waveforms of which `share_B` [b] of the first's power and the rest of the second's are left."""
    share = share_B[:, None]
    return share.sqrt() * first_BN + (1.0 - share).sqrt() * second_BN


def amplitude(db: Tensor) -> Tensor:
    """The factor of a waveform that changes its level by so many dB."""
    return torch.pow(10.0, db / 20.0)
