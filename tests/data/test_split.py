"""Splits share no work, are stable, and are never empty."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.split import SplitConfig, split
from etude.errors import UserError
from etude.sources.base import Track


def track(number: int, album: str = "") -> Track:
    return Track(id=f"t{number}", uri=f"{number}.mp3", title=str(number), album=album)


@given(st.lists(st.integers(0, 40), min_size=3, max_size=120), st.integers(0, 5))
def test_every_track_is_in_one_set_and_no_work_in_two(albums: list[int], seed: int) -> None:
    tracks = [track(i, f"album {album}") for i, album in enumerate(albums)]
    if len(set(albums)) < 3:
        with pytest.raises(UserError, match="at least 3"):
            split(tracks, SplitConfig(seed=seed))
        return
    sets = split(tracks, SplitConfig(seed=seed))
    assert sorted(t.id for members in sets.values() for t in members) == sorted(t.id for t in tracks)
    works = [{t.work for t in members} for members in sets.values()]
    assert all(works)
    assert sum(map(len, works)) == len(set.union(*works))


@given(st.integers(40, 200))
def test_a_growing_library_moves_no_work(n: int) -> None:
    before = split([track(i) for i in range(40)], SplitConfig())
    after = split([track(i) for i in range(n)], SplitConfig())
    for name, members in before.items():
        assert {t.id for t in members} <= {t.id for t in after[name]}


def test_shares_are_about_what_was_asked() -> None:
    sets = split([track(i) for i in range(2000)], SplitConfig(validation=0.2, test=0.1))
    assert len(sets["validation"]) == pytest.approx(400, rel=0.15)
    assert len(sets["test"]) == pytest.approx(200, rel=0.2)


def test_too_much_held_out_is_refused() -> None:
    with pytest.raises(ValueError, match="too little for training"):
        SplitConfig(validation=0.45, test=0.45)
