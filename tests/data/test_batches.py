"""Batches are a pure function of their arguments, whole over ranks, and true to the store."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.audio.recipe import FeatureRecipe
from etude.data.batches import (
    Splits,
    all_batches,
    epoch_order,
    open_splits,
    steps_per_epoch,
    training_batches,
)
from etude.data.split import SplitConfig
from etude.errors import UserError
from tests.support.library import DIM, TEACHER, made_up_library, made_up_splits


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return made_up_splits(tmp_path_factory.mktemp("store"))


def test_shapes_and_contents(splits: Splits) -> None:
    batch = next(training_batches(splits.train, seed=0, epoch=0, batch_size=4, segments_per_track=1))
    assert batch.mel.shape == (4, 128, 1001)
    assert batch.mel.dtype == torch.float32
    assert batch.target.shape == (4, DIM)
    row = splits.train[int(batch.track[0])]
    assert any(np.array_equal(batch.mel[0].numpy(), mel) for mel in row.mel.segments())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, 2, 4]), st.integers(1, 3))
def test_ranks_share_the_global_batch(
    splits: Splits, seed: int, epoch: int, world_size: int, segments_per_track: int
) -> None:
    common = {"seed": seed, "epoch": epoch, "batch_size": 4, "segments_per_track": segments_per_track}
    whole = list(training_batches(splits.train, **common))
    assert len(whole) == steps_per_epoch(splits.train, 4, segments_per_track)
    shares = [
        list(training_batches(splits.train, **common, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    for step, batch in enumerate(whole):
        together = torch.empty_like(batch.target)
        for rank in range(world_size):
            together[rank::world_size] = shares[rank][step].target
        assert torch.equal(together, batch.target)


def test_epochs_differ_and_repeat(splits: Splits) -> None:
    first, again, other = (epoch_order(splits.train, 1, epoch, 2) for epoch in (0, 0, 1))
    assert first == again
    assert first != other
    assert Counter(track for track, _ in first) == dict.fromkeys(range(len(splits.train)), 2)


def test_no_segment_comes_twice_before_all_came_once(splits: Splits) -> None:
    counts = Counter(epoch_order(splits.train, 0, 0, 5))
    for track, row in enumerate(splits.train):
        drawn = [counts[track, segment] for segment in range(len(row.segment_targets))]
        assert max(drawn) - min(drawn) <= 1


def test_fewer_segments_than_a_batch_still_train(splits: Splits) -> None:
    batches = list(training_batches(splits.train, seed=0, epoch=0, batch_size=64, segments_per_track=1))
    assert [len(batch.target) for batch in batches] == [64]


def test_every_segment_is_evaluated_once(splits: Splits) -> None:
    batches = list(all_batches(splits.test, 3))
    assert sum(len(batch.track) for batch in batches) == splits.test.n_segments


def test_another_recipe_or_teacher_is_refused_with_what_is_there(tmp_path: Path) -> None:
    store = made_up_library(tmp_path)
    recipe = FeatureRecipe()
    with pytest.raises(UserError, match=f"holds features of other recipes: {recipe.id}.*prepare_audio"):
        open_splits(store, "made-up", FeatureRecipe(n_mels=64), TEACHER, SplitConfig())
    with pytest.raises(UserError, match="teacher another-1"):
        open_splits(store, "made-up", recipe, "another-1", SplitConfig())
