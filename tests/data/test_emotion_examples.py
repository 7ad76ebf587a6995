"""What the five emotion models are given, and what they must not be given."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from etude.data.emotion import EmotionRow, data_hash, read_rows
from etude.data.emotion_examples import AugmentationConfig, EmotionStream, examples_of, history_of
from etude.data.emotion_synthetic import synthetic_row
from etude.emotion.models import MODELS, Model
from etude.emotion.vad import VAD, embed
from etude.errors import UserError
from tests.support.emotion import synthetic_experiment

SIZES = {
    "recognizer": (128, 64),
    "melody": (64, 128),
    "harmony": (128, 64),
    "dynamics": (32, 16),
    "groove": (64, 32),
}
ROWS = [synthetic_row(number, f"made-{number:03d}") for number in range(40)]


@pytest.mark.parametrize("model", MODELS)
def test_every_model_gets_the_sizes_of_the_seed(model: Model) -> None:
    examples = examples_of(model, ROWS)
    batch = examples.batch(np.arange(5))
    assert (batch.inputs.shape[1], batch.targets.shape[1]) == SIZES[model]
    assert len(set(examples.piece)) == len(ROWS)


def test_nothing_of_a_label_is_among_the_recognisers_inputs() -> None:
    other = [replace(row, vad=VAD(-0.5, 0.1, 0.2, 0.9), node=7) for row in ROWS]
    there, here = (examples_of("recognizer", rows) for rows in (ROWS, other))
    assert np.array_equal(there.batch(np.arange(9)).inputs, here.batch(np.arange(9)).inputs)
    assert not np.array_equal(there.targets, here.targets)


def test_harmony_knows_the_chords_before_and_never_the_next() -> None:
    row = replace(ROWS[0], chords=np.array([3, 5, 3]))
    first, second, third = examples_of("harmony", [row]).batch(np.arange(3)).inputs[:, 64:].numpy()
    assert not first.any()
    assert second[3] == 1
    assert (third[5], third[3]) == pytest.approx((2 / 3, 1 / 3))
    assert history_of(row.chords).sum() == pytest.approx(1)


def test_dynamics_gets_the_quarters_of_arousal_and_intensity() -> None:
    example = examples_of("dynamics", ROWS[:1]).batch(np.arange(1)).inputs[0].numpy()
    whole = embed(np.array([ROWS[0].vad]))[0]
    np.testing.assert_allclose(example, np.concatenate([whole[16:32], whole[48:]]), atol=1e-6)


def test_an_epoch_draws_every_piece_as_often_and_workers_share_its_batches() -> None:
    stream = EmotionStream(examples_of("harmony", ROWS), AugmentationConfig(related=0), per_piece=4)
    whole = list(stream.batches(8, seed=1, epoch=2))
    assert len(whole) == stream.steps(8) == 20
    parts = [list(stream.batches(8, seed=1, epoch=2, rank=rank, world_size=2)) for rank in range(2)]
    for both, one, other in zip(whole, *parts, strict=True):
        assert np.array_equal(both.inputs[0::2], one.inputs)
        assert np.array_equal(both.inputs[1::2], other.inputs)
    with pytest.raises(UserError, match="multiple of workers"):
        next(stream.batches(8, seed=1, epoch=2, world_size=3))


def test_moved_examples_lie_towards_related_nodes_and_count_less() -> None:
    examples = examples_of("melody", ROWS)
    chosen = np.arange(len(examples))
    moved = examples.moved(chosen, AugmentationConfig(related=1), np.random.default_rng(0))
    kept = examples.batch(chosen)
    changed = (moved.inputs != kept.inputs).any(dim=1)
    assert changed.float().mean() > 0.9
    assert bool((moved.weight[changed] < 1).all())
    assert bool((moved.weight > 0).all())
    assert np.array_equal(moved.targets, kept.targets)
    assert moved.nodes.shape == (len(ROWS), 216)
    heard = examples_of("recognizer", ROWS)
    same = heard.moved(chosen, AugmentationConfig(related=1), np.random.default_rng(0))
    assert np.array_equal(same.inputs, heard.batch(chosen).inputs)


def test_a_set_without_what_a_model_needs_is_refused() -> None:
    silent = [replace(row, audio=np.zeros((0, 128), dtype=np.float32)) for row in ROWS]
    with pytest.raises(UserError, match="recognizer learns from"):
        examples_of("recognizer", silent)


def test_rows_come_back_from_the_store_and_from_json_as_they_were(tmp_path: Path) -> None:
    settings = synthetic_experiment(tmp_path, n=40)
    ids = [f"synthetic-40-{number:05d}" for number in range(40)]
    rows = read_rows(settings.store, settings.analysis.part, ids)
    expected = [synthetic_row(number, track_id) for number, track_id in enumerate(ids)]
    again = [EmotionRow.of(row.as_dict()) for row in rows]
    for one, other, third in zip(rows, expected, again, strict=True):
        assert one.as_dict() == EmotionRow.of(other.as_dict()).as_dict() == third.as_dict()
    assert data_hash(rows) == data_hash(again) != data_hash(rows[1:])


def test_no_work_is_in_two_sets(tmp_path: Path) -> None:
    settings = synthetic_experiment(tmp_path, n=240)
    tracks = [
        replace(track, clip=f"song {number // 3}")
        for number, track in enumerate(settings.store.read_catalogue(settings.source_id))
    ]
    settings.store.write_catalogue(settings.source_id, tracks)
    song = {track.id: track.work for track in tracks}
    works = [{song[row.track_id] for row in rows} for rows in settings.sets().values()]
    assert sum(map(len, works)) == len(set.union(*works)) == 80
    assert 0.05 < len(settings.sets()["test"]) / 240 < 0.2
