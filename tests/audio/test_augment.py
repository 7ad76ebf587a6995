"""Augmentation changes what it says and nothing else, and the same way for the same generator."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from etude.audio.augment import FLOOR_DB, AugmentConfig, augment, gain, mixup, spec_augment, time_roll
from etude.audio.mel import segment_mel
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import segments_of

EVERYTHING = AugmentConfig(roll_frames=50, gain_db=6, mixup_alpha=0.3, freq_masks=2, time_masks=2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def mel(waveform):
    """Four segments of the chorale [4, 128, 1001], the last with silence at its end."""
    mels = segment_mel(segments_of(len(waveform), FeatureRecipe()).cut(waveform, 48_000), FeatureRecipe())
    mels[3, :, 800:] = FLOOR_DB
    return torch.from_numpy(mels)


@pytest.fixture(scope="module")
def targets():
    return torch.nn.functional.normalize(torch.randn(4, 8, generator=generator()), dim=1)


def test_gain_is_one_offset_an_item_and_silence_stays_silent(mel):
    louder = gain(mel, 6.0, generator())
    assert (louder[3, :, 800:] == FLOOR_DB).all()
    for before, after in zip(mel, louder, strict=True):
        offsets = (after - before)[before > -90]
        assert offsets.max() - offsets.min() < 1e-4
        assert 0 < offsets.abs().max() <= 6
    assert louder.min() >= FLOOR_DB


def test_gain_is_what_a_louder_waveform_gives(waveform):
    segment = waveform[None, 480_000:960_000]
    mel = torch.from_numpy(segment_mel(segment, FeatureRecipe()))
    louder = gain(mel, 6.0, generator(3))
    db = float(louder[0, 5, 500] - mel[0, 5, 500])
    expected = segment_mel(segment * np.float32(10 ** (db / 20)), FeatureRecipe())
    np.testing.assert_allclose(louder.numpy(), expected, atol=0.01)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 3), st.integers(0, 40), st.integers(0, 3), st.integers(0, 200), st.integers(0, 9))
def test_masks_are_at_most_so_many_and_so_wide(mel, freq_masks, freq_width, time_masks, time_width, seed):
    music = mel.clamp_min(FLOOR_DB + 1)
    masked = spec_augment(music, freq_masks, freq_width, time_masks, time_width, FLOOR_DB, generator(seed))
    changed = masked != music
    assert (masked[changed] == FLOOR_DB).all()
    bands, frames = changed.all(dim=2), changed.all(dim=1)
    assert torch.equal(changed, bands[:, :, None] | frames[:, None, :])
    assert (bands.sum(dim=1) <= freq_masks * freq_width).all()
    assert (frames.sum(dim=1) <= time_masks * time_width).all()


def test_masks_reach_everywhere_and_differ_between_items():
    music = torch.zeros(400, 16, 30)
    changed = spec_augment(music, 1, 4, 1, 8, FLOOR_DB, generator()) < 0
    assert changed.any(dim=2).any(dim=0).all()
    assert changed.any(dim=1).any(dim=0).all()
    assert len(torch.unique(changed.flatten(1), dim=0)) > 100


def test_mixup_adds_powers_and_mixes_targets_alike(mel, targets):
    mixed, mixed_targets = mixup(mel, targets, 1.0, generator(1))
    power, mixed_power = (10 ** (x.double().flatten(1) / 10) for x in (mel, mixed))
    for i in range(4):
        shares = torch.linalg.lstsq(power.T, mixed_power[i][:, None]).solution[:, 0]
        assert float(shares.sum()) == pytest.approx(1.0, abs=1e-3)
        assert torch.allclose(shares.float() @ targets, mixed_targets[i], atol=2e-3)


def test_roll_keeps_every_frame(mel):
    rolled = time_roll(mel, 50, generator())
    for before, after in zip(mel, rolled, strict=True):
        shifts = [s for s in range(-50, 51) if torch.equal(before.roll(s, dims=1), after)]
        assert shifts
    assert not torch.equal(rolled, mel)


def test_by_default_nothing_changes(mel, targets):
    assert augment(mel, targets, AugmentConfig(), generator()) == (mel, targets)


def test_the_same_generator_gives_the_same_batch_and_inputs_stay(mel, targets):
    before = mel.clone(), targets.clone()
    first, again, other = (augment(mel, targets, EVERYTHING, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(mel, before[0])
    assert torch.equal(targets, before[1])
    assert first[0].shape == mel.shape
    assert torch.isfinite(first[0]).all()


def test_global_random_state_is_left_alone(mel, targets):
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    augment(mel, targets, EVERYTHING, generator())
    assert (torch.rand(1), np.random.rand()) == expected


def test_unknown_and_negative_settings_are_refused():
    with pytest.raises(ValidationError, match="gain_dB"):
        AugmentConfig(gain_dB=3)
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        AugmentConfig(mixup_alpha=-1)
