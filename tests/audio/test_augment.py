"""Augmentation changes what it says and nothing else, and the same way for the same generator."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from etude.audio.augment import (
    FLOOR_DB,
    AugmentConfig,
    augment,
    draw_noise,
    gain,
    masks_only,
    mixup,
    noise,
    spec_augment,
    time_roll,
)
from etude.audio.augment_waveform import add_white_noise, augment_waveforms, mix
from etude.audio.mel import segment_mel
from etude.audio.mel_noise import add_white_noise as add_mel_noise
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import segments_of

EVERYTHING = AugmentConfig(
    roll_frames=50, gain_db=6, noise_share=0.5, mixup_alpha=0.3, freq_masks=2, time_masks=2
)
RECIPES = [FeatureRecipe(), FeatureRecipe(n_fft=1024, n_mels=64, fmin=50.0)]


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


@settings(max_examples=20)
@given(st.floats(0.1, 30), st.integers(0, 9))
def test_gain_moves_every_bin_above_the_floor_alike(mel, max_db, seed):
    music = mel.clamp_min(FLOOR_DB + 31)
    moved = gain(music, max_db, generator(seed)) - music
    assert (moved.amax(dim=(1, 2)) - moved.amin(dim=(1, 2)) < 1e-4).all()
    assert (moved.abs() <= max_db + 1e-4).all()


@pytest.mark.parametrize("recipe", RECIPES, ids=["student", "clap"])
@pytest.mark.parametrize("snr_db", [-10.0, 10.0, 30.0])
def test_noise_in_the_mel_is_what_noise_in_the_waveform_gives(recipe, snr_db):
    """A tone at 1 kHz, and white noise so many dB under it, away from the tone where only noise is."""
    tone = 0.2 * np.sin(2 * np.pi * 1000 * np.arange(480_000) / 48_000).astype(np.float32)
    expected = tone + 0.2 / np.sqrt(2) * 10 ** (-snr_db / 20) * np.random.default_rng(0).normal(size=480_000)
    mel = torch.from_numpy(segment_mel(tone[None], recipe))
    expected = torch.from_numpy(segment_mel(expected.astype(np.float32)[None], recipe))[0]
    noisy = add_mel_noise(mel, torch.tensor([snr_db]), generator(), recipe)[0]
    away = mel[0].mean(dim=1) < mel[0].mean(dim=1).max() - snr_db - 40  # no leak of the tone's
    away[:2] = False  # its filter lies over the constant part, whose noise has no mirror image
    assert away.sum() > recipe.n_mels / 3
    found, wanted = (10 ** (x[away].double() / 10) for x in (noisy, expected))
    means = 10 * (found.mean(dim=1) / wanted.mean(dim=1)).log10()
    assert abs(float(means.mean())) < 0.1
    assert float(means.abs().max()) < 1.0  # what is left is the chance in one real noise
    spreads = [x.std(dim=1) / x.mean(dim=1) for x in (found, wanted)]
    assert torch.allclose(spreads[0].mean(), spreads[1].mean(), rtol=0.05)
    assert torch.allclose(noisy[~away].mean(dim=1)[2:], expected[~away].mean(dim=1)[2:], atol=3.0)


def test_noise_on_music_has_the_ratio_that_was_asked_for(waveform):
    """The power that is heard over the music, per segment, is that of white noise at the ratio."""
    music = segments_of(len(waveform), FeatureRecipe()).cut(waveform, 48_000)
    mel = torch.from_numpy(segment_mel(music, FeatureRecipe()))
    snr = torch.tensor([0.0, 5.0, 10.0, 20.0])
    noisy = add_mel_noise(mel, snr, generator(), FeatureRecipe())
    real = add_white_noise(torch.from_numpy(music), snr, generator())
    real = torch.from_numpy(segment_mel(real.numpy(), FeatureRecipe()))
    for ours, theirs in zip(noisy[:, 100:], real[:, 100:], strict=True):  # high up the music is faint
        assert abs(float(10 * ((10 ** (ours / 10)).mean() / (10 ** (theirs / 10)).mean()).log10())) < 0.3


def test_noise_leaves_silence_and_what_was_not_chosen_alone(mel):
    silent = mel.clone()
    silent[1:3] = FLOOR_DB
    noisy = noise(silent, 1.0, 10.0, generator(), FeatureRecipe())
    assert torch.equal(noisy[1:3], silent[1:3])
    assert (noisy[3, :, 800:] > FLOOR_DB).float().mean() > 0.99
    some = noise(mel, 0.5, 10.0, generator(4), FeatureRecipe())
    chosen = draw_noise(4, 0.5, 10.0, generator(4))[0].tolist()
    assert 0 < len(chosen) < 4
    assert [i for i in range(4) if not torch.equal(some[i], mel[i])] == chosen
    assert noise(mel, 1e-9, 10.0, generator(), FeatureRecipe()) is mel


@settings(max_examples=20)
@given(st.floats(-20, 60), st.floats(0, 1), st.integers(0, 9))
def test_noise_ratios_and_shares_are_as_drawn(snr_db, share, seed):
    chosen, ratios = draw_noise(2000, share, snr_db, generator(seed))
    assert len(chosen) == pytest.approx(2000 * share, abs=120)
    assert ((ratios >= snr_db - 1e-4) & (ratios <= snr_db + 20 + 1e-4)).all()
    if len(ratios) > 200:
        assert float(ratios.mean()) == pytest.approx(snr_db + 10, abs=2)


@settings(max_examples=20)
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


def test_waveform_noise_has_the_ratio_that_was_asked_for(waveform):
    music = torch.from_numpy(waveform[None, :480_000]).repeat(3, 1)
    music[2] = 0
    noisy = add_white_noise(music, torch.tensor([0.0, 25.0, 0.0]), generator()) - music
    ratios = 10 * (music.square().mean(dim=1) / noisy.square().mean(dim=1)).log10()
    assert ratios[:2].tolist() == pytest.approx([0, 25], abs=0.05)
    assert (noisy[2] == 0).all()


def test_waveforms_mix_in_power():
    first, second = torch.randn(2, 5, 100_000, generator=generator())
    share = torch.linspace(0, 1, 5)
    power = mix(first, 3 * second, share).square().mean(dim=1)
    assert torch.allclose(power, share + 9 * (1 - share), rtol=0.03)


def test_waveforms_get_the_changes_that_mels_get(waveform):
    """From the same numbers: the mel of a changed waveform is the changed mel, but for its first frames."""
    recipe = FeatureRecipe()
    music = segments_of(len(waveform), recipe).cut(waveform, 48_000)[:2]
    config = AugmentConfig(roll_frames=50, gain_db=6)
    changed = augment_waveforms(torch.from_numpy(music), config, generator(1), recipe).numpy()
    expected, _ = augment(
        torch.from_numpy(segment_mel(music, recipe)), torch.zeros(2, 3), config, generator(1), recipe
    )
    found = torch.from_numpy(segment_mel(changed, recipe))
    error = (found - expected).abs()[expected > -80]
    assert error.median() < 0.01
    assert (error < 0.1).float().mean() > 0.95  # frames at the ends and over the seam see other samples
    assert np.abs(changed - music).max() > 0


def test_changed_waveforms_depend_on_the_generator_alone(waveform):
    music = torch.from_numpy(waveform[: 4 * 100_000].reshape(4, -1).copy())
    before = music.clone()
    first, again, other = (
        augment_waveforms(music, EVERYTHING, generator(seed), FeatureRecipe()) for seed in (0, 0, 1)
    )
    assert torch.equal(music, before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_waveforms_went_through_is_not_done_to_mels_again(mel, targets):
    config = EVERYTHING.model_copy(update={"targets": "recomputed"})
    with pytest.raises(AssertionError, match="masks_only"):
        augment(mel, targets, config, generator())
    masked, same = augment(mel, targets, masks_only(config), generator())
    assert same is targets
    changed = masked != mel
    assert changed.any()
    assert (masked[changed] == FLOOR_DB).all()


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
