"""Both paths agree with librosa, and the stored layout with segments on their own."""

import librosa
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etude.audio.mel import TrackMel, log_mel, mel_basis, segment_mel
from etude.audio.mel_torch import log_mel_torch
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import segments_of

RECIPE = FeatureRecipe()
SMALL = FeatureRecipe(segment_samples=24_000, hop_samples=12_000)  # the same frames, 0.5 s segments


def librosa_mel(segment):
    power = librosa.feature.melspectrogram(
        y=segment, sr=48_000, n_fft=2048, hop_length=480, n_mels=128, fmin=0, fmax=14_000, pad_mode="reflect"
    )
    return librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)


@pytest.fixture(scope="module")
def reference(waveform):
    """The chorale's mel by librosa [n_segments, n_mels, n_frames]."""
    return np.stack([librosa_mel(row) for row in segments_of(len(waveform), RECIPE).cut(waveform, 48_000)])


@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "n_mels", "fmin", "fmax"),
    [(48_000, 2048, 128, 0, 14_000), (48_000, 1024, 64, 50, 14_000), (16_000, 512, 96, 0, 8_000)],
)
def test_basis_is_librosas(sample_rate, n_fft, n_mels, fmin, fmax):
    expected = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
    np.testing.assert_allclose(mel_basis(sample_rate, n_fft, n_mels, fmin, fmax), expected, atol=1e-6)


@pytest.mark.parametrize("path", ["scipy", "torch", "per segment"])
def test_every_path_agrees_with_librosa(waveform, reference, path):
    if path == "per segment":
        mels = segment_mel(segments_of(len(waveform), RECIPE).cut(waveform, 48_000), RECIPE)
    else:
        track = log_mel(waveform, RECIPE) if path == "scipy" else log_mel_torch(waveform, RECIPE, "cpu")
        mels = track.segments()
    assert mels.dtype == np.float32
    assert mels.shape == reference.shape == (4, 128, 1001)
    difference = np.abs(mels - reference)
    assert difference[reference > -80].max() < 0.05
    assert difference.mean() < 1e-4


@settings(max_examples=25)
@given(st.sampled_from([24_000, 36_000, 48_000, 60_000]), st.integers(-600, 600))
@example(24_000, 0)
@example(24_000, 1)
@example(36_000, 0)
@example(36_000, -1)
@example(24_000, -23_999)
def test_stored_frames_are_those_of_each_segment_alone(waveform, boundary, off):
    music = waveform[48_000 : 48_000 + boundary + off]
    stored = log_mel(music, SMALL)
    alone = segment_mel(segments_of(len(music), SMALL).cut(music, 48_000), SMALL)
    assert len(stored) == len(alone)
    np.testing.assert_allclose(stored.segments(), alone, atol=0.011)
    np.testing.assert_array_equal(stored.segment(len(stored) - 1), stored.segments()[-1])


@pytest.mark.parametrize("hop_samples", [7_200, 12_000, 24_000])
@pytest.mark.parametrize(("n_fft", "hop_length"), [(2048, 480), (1024, 480), (1024, 400), (512, 600)])
def test_the_layout_follows_from_the_recipe(waveform, hop_samples, n_fft, hop_length):
    recipe = SMALL.model_copy(update={"hop_samples": hop_samples, "n_fft": n_fft, "hop_length": hop_length})
    music = waveform[:100_000]
    alone = segment_mel(segments_of(len(music), recipe).cut(music, 48_000), recipe)
    np.testing.assert_allclose(log_mel(music, recipe).segments(), alone, atol=0.011)


def test_segments_that_share_no_frames_are_refused(waveform):
    with pytest.raises(ValueError, match="multiple of hop_length"):
        log_mel(waveform, FeatureRecipe(hop_samples=200_000))


def test_sharing_halves_the_storage(waveform):
    music = np.tile(waveform, 8)  # 3 minutes
    stored = log_mel(music, RECIPE)
    assert len(stored.frames) < 0.56 * len(stored) * RECIPE.n_frames


def test_a_short_track_is_padded_with_silence(waveform):
    mel = log_mel(waveform[:48_000], RECIPE)
    assert len(mel) == 1
    assert mel.segments().shape == (1, 128, 1001)
    assert (mel.segment(0)[:, 110:] == RECIPE.floor_db).all()


def test_a_mel_is_rebuilt_from_a_memory_map_without_a_copy(waveform, tmp_path):
    computed = log_mel(waveform, RECIPE)
    np.save(tmp_path / "mel.npy", computed.frames.astype(np.float16))
    mapped = np.load(tmp_path / "mel.npy", mmap_mode="r")
    rebuilt = TrackMel(mapped, computed.n_samples, RECIPE)
    assert rebuilt.frames is mapped
    assert rebuilt.segment(1).dtype == np.float32
    np.testing.assert_allclose(rebuilt.segment(1), computed.segment(1), atol=0.05)


def test_wrong_frames_and_wrong_segments_are_refused(waveform):
    mel = log_mel(waveform, RECIPE)
    with pytest.raises(ValueError, match="another recipe"):
        TrackMel(mel.frames[:-1], mel.n_samples, RECIPE)
    for i in (-1, len(mel)):
        with pytest.raises(IndexError):
            mel.segment(i)


@settings(max_examples=20)
@given(st.integers(1, 60_000))
def test_both_paths_store_the_same_layout(waveform, n_samples):
    music = waveform[48_000 : 48_000 + n_samples]
    by_scipy, by_torch = log_mel(music, SMALL), log_mel_torch(music, SMALL, "cpu")
    difference = np.abs(by_scipy.frames - by_torch.frames)
    assert difference[by_scipy.frames > -80].max(initial=0.0) < 0.05
