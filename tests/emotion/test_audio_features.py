"""128 numbers that are heard in a recording, each of its own."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from etude.audio.decode import decode
from etude.emotion.audio_features import FEATURES, SAMPLE_RATE, audio_features
from etude.sources.demo import DemoConfig, DemoSource

Samples = NDArray[np.float32]


def tone(*hz: float, seconds: float = 4.0, level: float = 0.3) -> Samples:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (level * sum(np.sin(2 * np.pi * one * time) for one in hz) / len(hz)).astype(np.float32)


def noise(seconds: float = 4.0) -> Samples:
    return (0.1 * np.random.default_rng(0).normal(size=round(seconds * SAMPLE_RATE))).astype(np.float32)


def clicks(per_minute: float, seconds: float = 12.0) -> Samples:
    samples = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    for beat in range(int(seconds * per_minute / 60)):
        start = round(beat * 60 / per_minute * SAMPLE_RATE)
        samples[start : start + 500] = noise(500 / SAMPLE_RATE)[: len(samples) - start]
    return samples


def heard(samples: Samples) -> dict[str, float]:
    return dict(zip(FEATURES, audio_features(samples).tolist(), strict=True))


def test_there_are_128_under_names_of_their_own() -> None:
    assert len(FEATURES) == len(set(FEATURES)) == 128
    features = audio_features(noise())
    assert features.shape == (128,) and features.dtype == np.float32
    assert np.array_equal(features, audio_features(noise()))


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0, np.float32),
        np.zeros(SAMPLE_RATE, np.float32),
        np.eye(1, 10 * SAMPLE_RATE, 5_000, dtype=np.float32)[0],
        np.full(SAMPLE_RATE, 1.0, np.float32),
        np.full(SAMPLE_RATE, 1e-30, np.float32),
        tone(440, seconds=1),
        noise(30),
        np.concatenate([np.zeros(3 * SAMPLE_RATE, np.float32), tone(440)]),
    ],
    ids=["nothing", "silence", "click", "constant", "faint", "1 s", "30 s", "begins with silence"],
)
def test_any_sound_gives_finite_numbers(samples: Samples) -> None:
    assert np.isfinite(audio_features(samples)).all()


@settings(max_examples=20)
@given(st.integers(0, 6_000), st.floats(0, 1, width=32), st.integers(0, 99))
def test_so_does_any_length_and_level(n_samples: int, level: float, seed: int) -> None:
    samples = np.random.default_rng(seed).uniform(-level, level, n_samples).astype(np.float32)
    assert np.isfinite(audio_features(samples)).all()


def test_pitch_is_heard_in_semitones() -> None:
    for hz, pitch in ((220.0, 57), (440.0, 69), (880.0, 81)):
        assert heard(tone(hz))["strongest_pitch_mean"] == pytest.approx(pitch, abs=0.5)
    two = heard(tone(110, level=0.1) + tone(880))
    assert two["bass_pitch_mean"] == pytest.approx(45, abs=0.6)
    assert two["pitch_range"] == pytest.approx(36, abs=1)


def test_mode_is_heard_in_any_key() -> None:
    def triad(root: int, third: int) -> dict[str, float]:
        return heard(tone(*(440 * 2 ** ((root + step) / 12) for step in (0, third, 7, 12))))

    for root in range(-6, 6):
        major, minor = triad(root, 4), triad(root, 3)
        assert major["major_fit"] > major["minor_fit"] and minor["minor_fit"] > minor["major_fit"]
        assert major["chroma_3_mean"] > 0.2 > major["chroma_b3_mean"]
        assert minor["chroma_b3_mean"] > 0.2 > minor["chroma_3_mean"]


def test_loudness_is_heard_in_decibels() -> None:
    soft, loud = heard(tone(440, level=0.05)), heard(tone(440, level=0.5))
    assert loud["loudness_mean"] - soft["loudness_mean"] == pytest.approx(20, abs=0.1)
    assert loud["rms_mean"] == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    assert loud["crest"] == pytest.approx(3.01, abs=0.05)
    swelling = heard(tone(440) * np.logspace(-2, 0, 4 * SAMPLE_RATE, dtype=np.float32))  # 40 dB in 4 s
    assert swelling["loudness_slope"] == pytest.approx(10, abs=0.5)
    assert swelling["loudness_range"] > 25 > heard(tone(440))["loudness_range"]


def test_timbre_is_heard() -> None:
    pure, rough = heard(tone(440)), heard(noise())
    assert rough["flatness_mean"] > -3 > pure["flatness_mean"]
    assert rough["entropy_mean"] > 0.9 > pure["entropy_mean"]
    assert pure["centroid_mean"] == pytest.approx(440, rel=0.1)
    assert pure["share_middle"] > 0.99
    assert pure["zero_crossings_mean"] == pytest.approx(880 / SAMPLE_RATE, rel=0.05)
    assert rough["flux_mean"] > 10 * pure["flux_mean"]


def test_tempo_is_heard() -> None:
    for per_minute in (80, 120, 150):
        beats = heard(clicks(per_minute))
        assert beats["tempo"] == pytest.approx(per_minute, rel=0.05)
        assert beats["onset_rate"] == pytest.approx(per_minute / 60, rel=0.1)
        assert beats["onset_irregularity"] < 0.1
        assert beats["pulse_clarity"] > 0.7
    assert heard(clicks(80))["pulse_1_to_2_hz"] > heard(clicks(150))["pulse_1_to_2_hz"]
    assert heard(noise(12))["pulse_clarity"] < 0.5


def test_in_real_music_every_one_says_something_of_its_own(tmp_path: Path) -> None:
    source = DemoSource(DemoConfig(pieces=12, max_duration_s=26), tmp_path)
    rows = []
    for track in source.tracks():
        samples = decode(asyncio.run(source.fetch(track))).resampled(SAMPLE_RATE)
        count = len(samples) // (2 * SAMPLE_RATE)
        rows += [audio_features(part) for part in np.split(samples[: count * 2 * SAMPLE_RATE], count)]
    features = np.array(rows, np.float64)
    assert len(features) > 128
    spread = features.std(axis=0)
    assert (spread > 1e-3 * np.abs(features).mean(axis=0)).all()
    standard = (features - features.mean(axis=0)) / spread
    assert np.linalg.matrix_rank(standard) == 128
    alike = np.abs(np.corrcoef(standard.T)) - np.eye(128)
    assert alike.max() < 0.99
