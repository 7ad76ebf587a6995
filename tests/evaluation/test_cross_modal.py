"""Retrieval both ways counts tracks, is fair to ties and to shared captions, and knows its chance."""

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.evaluation.cross_modal import CrossModal, cross_modal

RNG = np.random.default_rng(0)
WAYS = ("text_to_music", "music_to_text")
FIGURES = ("recall_at_1", "recall_at_5", "recall_at_10", "median_rank", "mrr")


def _places(score: dict[int, float], own: int) -> list[float]:
    """Figures of the own track, averaged over every order of those that tie with it."""
    better = sum(s > score[own] + 1e-6 for s in score.values())
    tied = sum(abs(s - score[own]) <= 1e-6 for s in score.values())
    ranks = range(better + 1, better + tied + 1)
    recalls = [statistics.mean(float(rank <= k) for rank in ranks) for k in (1, 5, 10)]
    return [*recalls, statistics.mean(ranks), statistics.mean(1 / rank for rank in ranks)]


def by_hand(music, text, track, caption) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """The figures by their definition, one pair at a time."""

    def cosine(a, b) -> float:  # type: ignore[no-untyped-def]
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    of = {t: [c for c, owner in enumerate(track) if owner == t] for t in sorted(set(track))}
    carried = {t: {caption[c] for c in captions} for t, captions in of.items()}
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for own, captions in of.items():
        each = []
        for c in captions:
            rivals = [t for t in range(len(music)) if t == own or caption[c] not in carried.get(t, set())]
            each.append(_places({t: cosine(text[c], music[t]) for t in rivals}, own))
        found["text_to_music"].append([statistics.mean(column) for column in zip(*each, strict=True)])
        best = {}
        for t, theirs in of.items():
            scores = [
                cosine(music[own], text[c]) for c in theirs if t == own or caption[c] not in carried[own]
            ]
            if scores:
                best[t] = max(scores)
        found["music_to_text"].append(_places(best, own))
    middle = {"median_rank": statistics.median}
    return {
        f"{way}_{name}": middle.get(name, statistics.mean)([row[i] for row in rows])
        for way, rows in found.items()
        for i, name in enumerate(FIGURES)
    }


@settings(max_examples=80)
@given(st.data())
def test_figures_are_what_their_definition_says(data: st.DataObject) -> None:
    """Few directions, so that many tie; some captions are shared, some tracks have none."""
    n_tracks, n_captions = data.draw(st.integers(1, 14)), data.draw(st.integers(1, 30))
    directions = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(8, 3))
    pick = st.integers(0, 7)
    music = directions[data.draw(st.lists(pick, min_size=n_tracks, max_size=n_tracks))]
    caption = data.draw(st.lists(st.integers(0, 20), min_size=n_captions, max_size=n_captions))
    owner = st.integers(0, n_tracks - 1)
    track = data.draw(st.lists(owner, min_size=n_captions, max_size=n_captions))
    text = 2 * directions[[c % 8 for c in caption]]
    found = cross_modal(music, text, np.array(track), np.array(caption)).as_dict("x")
    for name, expected in by_hand(music, text, track, caption).items():
        assert found[f"x/{name}"] == pytest.approx(expected, abs=1e-9), name


def test_small_blocks_of_rows_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    music, text, track = RNG.normal(size=(30, 5)), RNG.normal(size=(90, 5)), np.arange(90) % 30
    whole = cross_modal(music, text, track, np.arange(90) % 77)
    monkeypatch.setattr("etude.evaluation.cross_modal._CELLS", 200)
    assert cross_modal(music, text, track, np.arange(90) % 77) == whole


def test_a_perfect_pair_of_encoders_is_perfect_both_ways() -> None:
    found = cross_modal(np.eye(20), np.repeat(np.eye(20), 3, axis=0), np.repeat(np.arange(20), 3))
    for way in WAYS:
        assert getattr(found, f"{way}_recall_at_1") == 1
        assert getattr(found, f"{way}_median_rank") == 1
        assert getattr(found, f"{way}_mrr") == 1
    assert (found.n_tracks, found.n_captions) == (20, 60)


def test_an_encoder_that_answers_always_the_same_is_at_chance() -> None:
    for music, text in itertools.product((np.ones((20, 4)), RNG.normal(size=(20, 4))), repeat=2):
        if music is text or (music.std() and text.std()):
            continue
        found = cross_modal(music, text, np.arange(20))
        for way, name in itertools.product(WAYS, FIGURES):
            figure, chance = (getattr(found, f"{way}_{name}{end}") for end in ("", "_chance"))
            assert figure == pytest.approx(chance), (way, name)


@pytest.mark.parametrize("even", [True, False])
def test_chance_is_what_noise_reaches(even: bool) -> None:
    """Also where tracks have unequal numbers of captions."""
    track = np.arange(36) % 12 if even else np.repeat(np.arange(12), [1, 1, 1, 1, 1, 1, 2, 2, 4, 6, 7, 9])
    rounds = [cross_modal(RNG.normal(size=(12, 8)), RNG.normal(size=(36, 8)), track) for _ in range(200)]
    harmonic = sum(1 / n for n in range(1, 13)) / 12
    for way in WAYS:
        chances = {"recall_at_1": 1 / 12, "recall_at_5": 5 / 12, "recall_at_10": 10 / 12, "mrr": harmonic}
        for name, chance in {**chances, "median_rank": 6.5}.items():
            assert getattr(rounds[0], f"{way}_{name}_chance") == pytest.approx(chance)
            mean = np.mean([getattr(found, f"{way}_{name}") for found in rounds])
            assert mean == pytest.approx(chance, rel=0.12), (way, name)


def test_several_captions_of_a_track_are_not_several_tracks() -> None:
    """The other track's ten captions all fit better than the second best, and take one place only."""
    music = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.2]])
    text = np.array([[0.8, 0.6], *[[1.0, 0.01]] * 10, [-1.0, 0.0]])
    found = cross_modal(music, text, np.array([0, *[1] * 10, 2]))
    assert found.music_to_text_recall_at_1 == pytest.approx(1 / 3)
    assert found.music_to_text_mrr == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    # Each of ten captions ranks track 1 second, and together they weigh as much as the one of track 0.
    assert found.text_to_music_mrr == pytest.approx((1 + 1 / 2 + 1) / 3)


def test_a_caption_that_two_tracks_carry_is_right_for_both() -> None:
    music, text = np.eye(3), np.array([[1.0, 0.5, 0.0], [1.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
    shared = cross_modal(music, text, np.arange(3), np.array(["a slow piece", "a slow piece", "a fast one"]))
    assert shared.text_to_music_recall_at_1 == shared.music_to_text_recall_at_1 == 1
    assert shared.text_to_music_recall_at_1_chance == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)
    apart = cross_modal(music, text, np.arange(3))
    assert apart.text_to_music_recall_at_1 == pytest.approx(2 / 3)
    assert apart.music_to_text_recall_at_1 == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)


def test_tracks_without_captions_are_rivals_of_music_only() -> None:
    music = np.array([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0]])
    found = cross_modal(music, np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 2]))
    assert found.text_to_music_recall_at_1 == pytest.approx(1 / 2)
    assert found.text_to_music_median_rank_chance == 2
    assert found.music_to_text_recall_at_1 == 1
    assert found.music_to_text_median_rank_chance == 1.5
    assert found.n_tracks == 2


def test_figures_are_plain_numbers_under_a_prefix() -> None:
    named = cross_modal(np.eye(2), np.eye(2), np.arange(2)).as_dict("test")
    assert set(named) == {f"test/{name}" for name in CrossModal.__dataclass_fields__}
    assert all(type(value) is float and math.isfinite(value) for value in named.values())


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_refused(broken: float) -> None:
    bad = np.eye(2)
    bad[0, 0] = broken
    for music, text in ((bad, np.eye(2)), (np.eye(2), bad)):
        with pytest.raises(ValueError, match="not finite"):
            cross_modal(music, text, np.arange(2))
    with pytest.raises(ValueError, match="no caption"):
        cross_modal(np.eye(2), np.empty((0, 2)), np.empty(0, dtype=int))
