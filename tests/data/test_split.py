"""Splits share no work, are stable, and are never empty."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.split import SplitConfig, split
from etude.errors import UserError
from etude.sources.base import Track


def track(number: int, album: str = "", clip: str = "", held_out: bool = False) -> Track:
    return Track(f"t{number}", f"{number}.mp3", str(number), album=album, clip=clip, held_out=held_out)


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


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=120), st.integers(0, 5))
def test_what_is_held_out_is_the_test_set_with_all_of_its_clip(
    clips: list[tuple[int, bool]], seed: int
) -> None:
    tracks = [track(i, f"album {i % 3}", f"clip {clip}", out) for i, (clip, out) in enumerate(clips)]
    works, apart = {one.work for one in tracks}, {one.work for one in tracks if one.held_out}
    assert works == {one.clip for one in tracks}
    if len(works) < 3 or (apart and len(works - apart) < 2):
        with pytest.raises(UserError, match=r"at least [23]"):
            split(tracks, SplitConfig(seed=seed))
        return
    sets = split(tracks, SplitConfig(seed=seed))
    assert sorted(t.id for members in sets.values() for t in members) == sorted(t.id for t in tracks)
    divided = [{t.work for t in members} for members in sets.values()]
    assert all(divided)
    assert sum(map(len, divided)) == len(set.union(*divided))
    if apart:
        assert {t.work for t in sets["test"]} == apart
        assert split(tracks, SplitConfig(seed=seed, test=0.4)) == sets  # the share has no say


@given(st.lists(st.booleans(), max_size=160))
def test_a_growing_library_with_a_test_set_moves_no_work(more: list[bool]) -> None:
    first = [track(i, held_out=i % 4 == 0) for i in range(80)]
    grown = [track(80 + i, held_out=out) for i, out in enumerate(more)]
    before, after = split(first, SplitConfig()), split(first + grown, SplitConfig())
    for name, members in before.items():
        assert {t.id for t in members} <= {t.id for t in after[name]}


def test_the_share_for_validation_is_of_what_is_not_held_out() -> None:
    sets = split([track(i, held_out=i < 1000) for i in range(3000)], SplitConfig(validation=0.2))
    assert len(sets["test"]) == 1000
    assert len(sets["validation"]) == pytest.approx(400, rel=0.15)


def test_a_work_is_held_out_also_where_the_track_that_says_so_is_not_usable() -> None:
    usable = [track(i, clip=f"clip {i % 20}") for i in range(40)]
    sets = split(usable, SplitConfig(), held_out={"clip 3", "clip 99"})
    assert {t.work for t in sets["test"]} == {"clip 3"}
    with pytest.raises(UserError, match="none of the tracks that the source holds out"):
        split(usable, SplitConfig(), held_out={"clip 99"})


def test_a_library_that_is_all_for_testing_is_refused() -> None:
    with pytest.raises(UserError, match=r"holds 5 usable works .* and leaves 0: at least 2 others"):
        split([track(i, held_out=True) for i in range(5)], SplitConfig())
