"""Batches are a pure function of their arguments, whole over ranks, and true to the store."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.data.batches import Batch, Splits
from etude.data.sampling import SamplingConfig, TrainingSegments, epoch_groups, epoch_order
from etude.errors import UserError
from tests.support.library import DIM, made_up_splits


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return made_up_splits(tmp_path_factory.mktemp("store"))


def segments(splits: Splits, strategy: str = "segments", per_track: int = 1) -> TrainingSegments:
    return TrainingSegments(splits.train, SamplingConfig(strategy=strategy, segments_per_track=per_track))


def test_shapes_and_contents(splits: Splits) -> None:
    batch = next(segments(splits).batches(4, seed=0, epoch=0))
    assert batch.mel.shape == (4, 128, 1001)
    assert batch.mel.dtype == torch.float32
    assert batch.target.shape == (4, DIM)
    row = splits.train[int(batch.track[0])]
    assert any(np.array_equal(batch.mel[0].numpy(), mel) for mel in row.mel.segments())


@settings(max_examples=20)
@given(st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, 2, 4]), st.integers(1, 3))
def test_ranks_share_the_global_batch(
    splits: Splits, seed: int, epoch: int, world_size: int, per_track: int
) -> None:
    data = segments(splits, per_track=per_track)
    whole = list(data.batches(4, seed=seed, epoch=epoch))
    assert len(whole) == data.steps(4)
    shares = [
        list(data.batches(4, seed=seed, epoch=epoch, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    for step, batch in enumerate(whole):
        together = torch.empty_like(batch.target)
        for rank in range(world_size):
            together[rank::world_size] = shares[rank][step].target
        assert torch.equal(together, batch.target)


@settings(max_examples=20)
@given(st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, 2]), st.integers(1, 4))
def test_groups_stay_whole_on_every_rank(
    splits: Splits, seed: int, epoch: int, world_size: int, per_track: int
) -> None:
    data = segments(splits, "both", per_track)
    batch_size = 2 * per_track
    whole = list(data.batches(batch_size, seed=seed, epoch=epoch))
    assert len(whole) == data.steps(batch_size)
    for rank in range(world_size):
        share = list(data.batches(batch_size, seed=seed, epoch=epoch, rank=rank, world_size=world_size))
        for mine, everyone in zip(share, whole, strict=True):
            counts, all_counts = (Counter(b.track.tolist()) for b in (mine, everyone))
            assert len(counts) == 2 // world_size
            assert counts.items() <= all_counts.items()
            for track, n in counts.items():
                assert n == min(per_track, len(splits.train[track].segment_targets))  # no padding, none twice


def test_a_batch_too_small_for_a_track_or_for_the_workers_is_refused(splits: Splits) -> None:
    with pytest.raises(UserError, match="cannot hold the 4 of one track"):
        segments(splits, "average", 4).steps(3)
    with pytest.raises(UserError, match="cannot be shared by 2 workers"):
        next(segments(splits, "average", 4).batches(4, seed=0, epoch=0, world_size=2))


def test_epochs_differ_and_repeat(splits: Splits) -> None:
    segment_counts = [len(row.segment_targets) for row in splits.train]
    for order in (epoch_order, epoch_groups):
        first, again, other = (order(segment_counts, 1, epoch, 2) for epoch in (0, 0, 1))
        assert first == again
        assert first != other
    counts = Counter(track for track, _ in epoch_order(segment_counts, 1, 0, 2))
    assert counts == dict.fromkeys(range(len(splits.train)), 2)


def test_no_segment_comes_twice_before_all_came_once(splits: Splits) -> None:
    counts = Counter(epoch_order([len(row.segment_targets) for row in splits.train], 0, 0, 5))
    for track, row in enumerate(splits.train):
        drawn = [counts[track, segment] for segment in range(len(row.segment_targets))]
        assert max(drawn) - min(drawn) <= 1


def test_fewer_segments_than_a_batch_still_train(splits: Splits) -> None:
    batches = list(segments(splits).batches(64, seed=0, epoch=0))
    assert [len(batch.target) for batch in batches] == [64]


def test_another_way_to_make_a_batch_gets_a_key_of_its_own_every_time(splits: Splits, tmp_path: Path) -> None:
    keys = []

    def collate(items: list[tuple[int, int]], key: tuple[int, ...]) -> Batch:
        keys.append(key)
        return splits.train.batch(items)

    data = TrainingSegments(splits.train, SamplingConfig(), collate)
    for rank in (0, 1):
        for epoch in (0, 1):
            list(data.batches(4, seed=5, epoch=epoch, rank=rank, world_size=2))
    assert len(set(keys)) == len(keys) == 4 * data.steps(4)
