"""The tail rule, and that segments cover every sample of a track."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etude.audio.decode import Audio
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import segments_of
from etude.audio.track_mel import layout_of
from etude.audio.waveform import prepare_waveform

RECIPE = FeatureRecipe()
LENGTH, HOP = RECIPE.segment_samples, RECIPE.hop_samples


@given(st.integers(1, 200 * LENGTH))
@example(LENGTH)
@example(LENGTH + 1)
@example(720_000)
def test_segments_cover_every_sample_in_order(n):
    segments = segments_of(n, RECIPE)
    starts = np.array(segments.starts)
    assert len(segments) == (1 if n <= LENGTH else (n - LENGTH) // HOP + 2)
    assert starts[0] == 0
    assert (np.diff(starts) >= 0).all()
    assert (np.diff(starts) <= HOP).all()
    assert starts[-1] + LENGTH == max(n, LENGTH)


def test_known_counts():
    """Two tracks of facts/audiomuse.md, b: a tail that repeats a segment, and one of 482.7 s."""
    assert segments_of(720_000, RECIPE).starts == (0, 240_000, 240_000)
    assert len(segments_of(round(482.7 * 48_000), RECIPE)) == 96
    with pytest.raises(ValueError, match="no segments"):
        segments_of(0, RECIPE)


@given(st.integers(1, 1_500), st.sampled_from([48_000, 16_000, 44_100]))
def test_cut_is_the_same_music_at_any_rate(n_ms, sample_rate):
    recipe = FeatureRecipe(segment_samples=24_000, hop_samples=12_000)
    samples = np.arange(1, n_ms * sample_rate // 1_000 + 1, dtype=np.float32)
    segments = segments_of(n_ms * 48, recipe)
    rows = segments.cut(samples, sample_rate)
    assert rows.shape == (len(segments), sample_rate // 2)
    for row, start in zip(rows, segments.starts, strict=True):
        first = round(start * sample_rate / 48_000)
        held = samples[first : first + len(row)]
        np.testing.assert_array_equal(row[: len(held)], held)
        assert not row[len(held) :].any()


def test_prepare_clips_and_rounds_towards_zero_to_16_bits():
    samples = np.array([2.0, -2.0, 0.5, -0.5, 1.99 / 32_767, -1.99 / 32_767, 0.0], np.float32)
    steps = prepare_waveform(Audio(samples, 48_000), RECIPE) * 32_767
    np.testing.assert_allclose(steps, [32_767, -32_767, 16_383, -16_383, 1, -1, 0], atol=1e-3)
    kept = prepare_waveform(Audio(samples, 48_000), FeatureRecipe(quantise="none"))
    np.testing.assert_array_equal(kept, np.clip(samples, -1, 1))
    assert samples[0] == 2.0  # the caller's samples stay as they were


def test_prepare_equals_the_production_formula(chorale):
    """facts/audiomuse.md, b."""
    samples = chorale[0] * 1.7
    integers = (np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)
    expected = (integers / 32767.0).astype(np.float32)
    np.testing.assert_array_equal(prepare_waveform(Audio(samples, 48_000), RECIPE), expected)


def test_prepare_resamples(chorale):
    audio = Audio(np.ascontiguousarray(chorale[0, ::2]), 24_000)
    assert len(prepare_waveform(audio, RECIPE)) == pytest.approx(2 * len(audio.samples), abs=1)


def upstream_starts(n: int) -> list[int]:
    """AudioMuse-AI's loop (facts/audiomuse.md, b), told anew."""
    if n <= LENGTH:
        return [0]
    starts = []
    while len(starts) * HOP + LENGTH <= n:
        starts.append(len(starts) * HOP)
    if len(starts) * HOP < n:
        starts.append(n - LENGTH)
    return starts


def test_every_length_around_every_boundary_up_to_a_minute_is_cut_by_the_rule():
    """A boundary is where a segment begins or ends, or where one more fits."""
    boundaries = range(0, 60 * RECIPE.sample_rate + 1, HOP)
    for n in sorted({b + step for b in boundaries for step in range(-50, 51) if b + step > 0}):
        segments = segments_of(n, RECIPE)
        assert list(segments.starts) == upstream_starts(n), n
        layout = layout_of(n, RECIPE)
        assert layout.n_segments == len(segments), n
        assert all(len(range(*place.indices(10**9))) > 0 for _, place in layout.places(len(segments) - 1)), n
