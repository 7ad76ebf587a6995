"""Live batches are the prepared ones without changes, and with changes what the teacher really hears."""

import io
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
import soundfile
import torch

from etude.audio.augment import AugmentConfig
from etude.audio.decode import Audio, decode
from etude.audio.mel import TrackMel, log_mel, segment_mel
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import Segments, segments_of
from etude.audio.waveform import prepare_waveform
from etude.data.batches import Dataset, TrackRow
from etude.data.live import LiveSegments
from etude.errors import BadAudio, OutOfReach, UserError
from etude.sources.base import Track
from etude.teachers.base import Targets
from etude.teachers.musicnn import MusiCNN
from etude.teachers.stored import StoredTeacher

RECIPE = FeatureRecipe()
RATE = RECIPE.sample_rate
NOTHING = AugmentConfig(targets="recomputed")
ALL = AugmentConfig(roll_frames=40, gain_db=6, noise_share=0.7, mixup_alpha=0.5)


@pytest.fixture(scope="module")
def files(chorale_wav: bytes) -> dict[str, bytes]:
    """The chorale of 23 s, loud enough to clip here and there, and its first 6 s at another rate."""
    samples = soundfile.read(io.BytesIO(chorale_wav), dtype="float32")[0]
    made = {}
    for name, content, rate in [("long", samples * 9, 48_000), ("short", samples[:288_000] * 3, 44_100)]:
        buffer = io.BytesIO()
        soundfile.write(buffer, content, rate, format="WAV", subtype="FLOAT")
        made[name] = buffer.getvalue()
    assert np.abs(samples * 9).mean(axis=1).max() > 1
    return made


@pytest.fixture(scope="module")
def teacher() -> MusiCNN:
    return MusiCNN("MTT_musicnn")


@pytest.fixture(scope="module")
def dataset(files: dict[str, bytes], teacher: MusiCNN) -> Dataset:
    """Both tracks as preparing stores them."""
    rows = []
    for name, data in files.items():
        audio, track = decode(data), Track(f"test-{name}", name, name.title())
        waveform = prepare_waveform(audio, RECIPE)
        mel = log_mel(waveform, RECIPE)
        stored = TrackMel(mel.frames.astype(np.float16), len(waveform), RECIPE)
        targets = teacher.embed(audio, segments_of(len(waveform), RECIPE), track)
        rows.append(TrackRow(track, stored, targets.segments, targets.track))
    return Dataset(rows, RECIPE)


EVERY = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]


def live(dataset, files, teacher, augmentation=NOTHING, **options) -> LiveSegments:
    return LiveSegments(dataset, lambda track: files[track.uri], teacher, augmentation, RECIPE, **options)


def segment_of(dataset: Dataset, files, track: int, segment: int) -> np.ndarray:
    samples = decode(files[dataset[track].track.uri]).resampled(RATE)
    return segments_of(len(samples), RECIPE).cut(samples, RATE)[segment]


def heard(teacher: MusiCNN, waveform: np.ndarray) -> np.ndarray:
    return teacher.embed(Audio(waveform, RATE), Segments((0,), len(waveform), RATE)).segments[0]


def test_without_changes_it_is_what_was_prepared(dataset, files, teacher) -> None:
    batch, stored = live(dataset, files, teacher).batch(EVERY, (0,)), dataset.batch(EVERY)
    assert torch.equal(batch.track, stored.track)
    assert torch.equal(batch.mel.half().float(), stored.mel)
    torch.testing.assert_close(batch.target, stored.target, atol=1e-4, rtol=1e-4)


def test_a_gain_is_heard_by_student_and_teacher(dataset, files, teacher) -> None:
    gained = live(dataset, files, teacher, AugmentConfig(gain_db=12)).batch([(0, 2)], (3,))
    samples = segment_of(dataset, files, 0, 2)
    plain = segment_mel(prepare_waveform(Audio(samples, RATE), RECIPE)[None], RECIPE)[0]
    # Where rounding to 16 bits does not matter, the mel tells how large the gain was.
    loud = plain > plain.max() - 40
    db = float(np.median((gained.mel[0].numpy() - plain)[loud]))
    assert 0.5 < abs(db) <= 12
    louder = samples * np.float32(10 ** (db / 20))
    expected = heard(teacher, louder)
    np.testing.assert_allclose(gained.target[0].numpy(), expected, atol=2e-3)
    assert np.abs(expected - dataset[0].segment_targets[2]).max() > 0.02
    mel = segment_mel(prepare_waveform(Audio(louder, RATE), RECIPE)[None], RECIPE)[0]
    np.testing.assert_allclose(gained.mel[0].numpy()[loud], mel[loud], atol=0.05)


def test_a_mix_is_of_powers_and_student_and_teacher_hear_the_same(dataset, files, teacher) -> None:
    class Listening(MusiCNN):
        heard: ClassVar[list[np.ndarray]] = []

        def embed(self, audio, segments, track=None):
            self.heard.append(audio.samples)
            return super().embed(audio, segments, track)

    items = [(0, 0), (0, 3), (1, 0)]
    batch = live(dataset, files, Listening("MTT_musicnn"), AugmentConfig(mixup_alpha=1)).batch(items, (2,))
    sources = np.stack([segment_of(dataset, files, *item) for item in items], axis=1)
    mixed = np.stack(Listening.heard)
    shares = np.linalg.lstsq(sources, mixed.T, rcond=None)[0] ** 2
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-3)
    assert (shares > 0.01).sum() > 3
    for waveform, mel, target in zip(mixed, batch.mel.numpy(), batch.target.numpy(), strict=True):
        np.testing.assert_array_equal(target, heard(teacher, waveform))
        expected = segment_mel(prepare_waveform(Audio(waveform, RATE), RECIPE)[None], RECIPE)[0]
        np.testing.assert_array_equal(mel, expected)


def test_the_batch_depends_on_items_and_key_alone(dataset, files, teacher) -> None:
    one = live(dataset, files, teacher, ALL)
    first = one.batch(EVERY[:3], (1, 2))
    one.batch(EVERY[3:], (5,))
    torch.manual_seed(99)
    again, anew = one.batch(EVERY[:3], (1, 2)), live(dataset, files, teacher, ALL).batch(EVERY[:3], (1, 2))
    other = one.batch(EVERY[:3], (1, 3))
    for same in (again, anew):
        assert torch.equal(first.mel, same.mel)
        assert torch.equal(first.target, same.target)
    assert not torch.equal(first.mel, other.mel)
    assert (first.target - other.target).abs().max() > 1e-3


def test_decoded_tracks_are_kept_while_they_fit(dataset, files) -> None:
    class Quick:
        def embed(self, audio: Audio, segments: Segments, track: Track) -> Targets:
            return Targets(np.zeros((1, 200), np.float32), np.zeros(200, np.float32))

    def fetches(cache_bytes: int) -> Counter[str]:
        counts: Counter[str] = Counter()

        def fetch(track: Track) -> bytes:
            counts[track.uri] += 1
            return files[track.uri]

        one = LiveSegments(dataset, fetch, Quick(), NOTHING, RECIPE, cache_bytes=cache_bytes)
        one.batch([(0, 0), (1, 0), (0, 1), (1, 0)], (0,))
        return counts

    long, short = (4 * row.mel.n_samples for row in dataset)
    assert fetches(long + short) == {"long": 1, "short": 1}
    assert fetches(long) == {"long": 2, "short": 2}
    assert fetches(short) == {"long": 2, "short": 1}
    assert fetches(0) == {"long": 2, "short": 2}


@pytest.mark.parametrize(
    ("error", "raised", "reason"),
    [
        (OutOfReach("it tried three times"), OutOfReach, "cannot be fetched now: it tried three times"),
        (FileNotFoundError(2, "No such file"), OutOfReach, "cannot be fetched now: No such file"),
        (BadAudio("the file is empty"), BadAudio, "no use now: the file is empty"),
    ],
)
def test_a_file_that_has_gone_is_named(dataset, teacher, error, raised, reason) -> None:
    def fetch(track: Track) -> bytes:
        raise error

    with pytest.raises(raised, match=rf"^Short \(test-short\) .*{reason}"):
        LiveSegments(dataset, fetch, teacher, NOTHING, RECIPE).batch([(1, 0)], (0,))


def test_another_file_than_prepared_is_refused(dataset, files, teacher) -> None:
    swapped = {"long": files["short"], "short": files["short"]}
    with pytest.raises(UserError, match=r"Long .* not the file that was prepared.*prepare_audio"):
        live(dataset, swapped, teacher).batch([(0, 0)], (0,))


def test_a_teacher_that_does_not_listen_is_refused(dataset, files) -> None:
    stored = object.__new__(StoredTeacher)  # none is at hand without a database
    stored.id = "stored-clap_embedding-clap_htsat-1"
    with pytest.raises(UserError, match=r"stored-clap.*set augment\.targets to cached"):
        live(dataset, files, stored)


def test_another_recipe_than_the_datasets_is_refused(dataset, files, teacher) -> None:
    with pytest.raises(ValueError, match="recipe"):
        LiveSegments(dataset, files.get, teacher, NOTHING, FeatureRecipe(n_mels=64))
