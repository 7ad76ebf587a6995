"""Windows cover all of the music, hold nothing else, and lie where they should."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from etude.teachers.windows import window_targets, windows_of

RATE = 100


@settings(max_examples=60)
@given(st.integers(1, 5_000), st.integers(1, 800), st.integers(1, 800))
def test_windows_cover_every_sample_and_are_full(n: int, length: int, hop: int) -> None:
    assume(hop <= length)
    windows = windows_of(n, RATE, length / RATE, hop / RATE)
    starts = windows.starts
    assert windows.length == min(n, length)
    assert starts[0] == 0 and starts[-1] + windows.length == n  # so all but a short one are full
    assert all(after - before <= hop for before, after in pairwise(starts))
    assert list(starts) == sorted(set(starts))
    on_grid = starts if starts[-1] % hop == 0 else starts[:-1]
    assert all(start % hop == 0 for start in on_grid)
    waveform = np.arange(1, n + 1, dtype=np.float32)
    cut = windows.cut(waveform, RATE)
    assert (cut > 0).all()  # no silence was added
    np.testing.assert_array_equal(cut[-1], waveform[-windows.length :])


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [
        (10, [0]),  # MusicBench's clips: one window of their own length
        (120, [0]),
        (120.5, [0, 0.5]),
        (135, [0, 15]),  # the grid ends with the music: no window twice
        (140, [0, 15, 20]),
    ],
)
def test_the_tail_has_a_window_only_where_the_grid_leaves_one(seconds: float, starts: list[float]) -> None:
    windows = windows_of(round(seconds * RATE), RATE, 120, 15)
    assert [start / RATE for start in windows.starts] == starts


def test_what_has_no_windows_is_refused() -> None:
    with pytest.raises(ValueError, match="0 samples has no windows"):
        windows_of(0, RATE, 30, 5)
    with pytest.raises(ValueError, match="windows of 5 s every 30 s would leave music out"):
        windows_of(10, RATE, 5, 30)


def test_a_track_is_the_mean_of_its_windows() -> None:
    targets = window_targets(np.array([[1.0, 2.0], [3.0, 6.0]], np.float32))
    assert targets.segments.tolist() == [[1, 2], [3, 6]] and targets.track.tolist() == [2, 4]
    assert targets.track.dtype == np.float32
