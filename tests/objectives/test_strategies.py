"""What is compared with the teacher: segments, tracks, or both, each as its name says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from etude.objectives.strategies import pairs

tracks = st.lists(st.integers(0, 5), min_size=1, max_size=12).map(torch.tensor)


def vectors(track: Tensor, seed: int) -> Tensor:
    return normalize(torch.randn(len(track), 4, generator=torch.Generator().manual_seed(seed)), dim=1)


@given(tracks)
def test_segments_are_compared_as_they_are(track: Tensor) -> None:
    student, teacher = vectors(track, 0), vectors(track, 1)
    assert pairs(student, teacher, track, "segments", normalized=True) == (student, teacher, None)


@given(tracks, st.booleans())
def test_a_track_is_the_mean_of_its_segments(track: Tensor, normalized: bool) -> None:
    student, teacher = vectors(track, 0), vectors(track, 1)
    means, targets, weight = pairs(student, teacher, track, "average", normalized=normalized)
    assert weight is None
    for row, name in enumerate(sorted(set(track.tolist()))):
        for found, of in ((means, student), (targets, teacher)):
            mean = of[track == name].mean(dim=0)
            expected = normalize(mean, dim=0) if normalized else mean
            torch.testing.assert_close(found[row], expected)


@given(tracks)
def test_both_weighs_every_track_alike(track: Tensor) -> None:
    student, teacher = vectors(track, 0), vectors(track, 1)
    found, targets, weight = pairs(student, teacher, track, "both", normalized=True)
    names = sorted(set(track.tolist()))
    assert len(found) == len(targets) == len(track) + len(names)
    assert torch.equal(found[: len(track)], student)
    assert weight is not None
    for row, name in enumerate(names):
        assert float(weight[: len(track)][track == name].sum() + weight[len(track) + row]) == pytest.approx(1)


def test_mixed_precision_averages_in_float32() -> None:
    track = torch.tensor([0, 0, 1])
    student = vectors(track, 0).bfloat16()
    means, _, _ = pairs(student, vectors(track, 1), track, "average", normalized=True)
    assert means.dtype == torch.float32
