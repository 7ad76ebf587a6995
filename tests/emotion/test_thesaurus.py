"""The thesaurus has 216 distinct feelings where facts put them, with relations that go both ways."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.emotion.thesaurus import CATEGORIES, LEVELS, N_NODES, thesaurus
from etude.emotion.vad import VAD, checked
from etude.errors import UserError

WHOLE = thesaurus()
IDS = st.integers(0, N_NODES - 1)


def test_every_id_name_and_path_is_there_once() -> None:
    assert [node.id for node in WHOLE.nodes] == list(range(216))
    assert len({node.name for node in WHOLE.nodes}) == 216
    assert len({node.path for node in WHOLE.nodes}) == 216
    assert len({node.vad for node in WHOLE.nodes}) == 216


def test_ids_count_levels_in_subcategories_in_categories() -> None:
    for node in WHOLE.nodes:
        assert node.category == CATEGORIES[node.id // 36]
        assert node.level == LEVELS[node.id % 6]
        assert node.subcategory == WHOLE.nodes[node.id // 6 * 6].subcategory


def test_every_node_lies_within_the_ranges() -> None:
    for node in WHOLE.nodes:
        assert checked(node.vad, node.path) == node.vad


@pytest.mark.parametrize(
    ("number", "vad", "tempo", "dynamics", "mode"),
    [  # as facts b has them, from the file of seed 5's project, which rounds to three digits
        (0, (0.65, 0.35, 0.525, 0.167), 0.94, 0.58, "major"),
        (25, (0.89, 0.4, 0.645, 0.333), 0.96, 0.67, "major"),
        (36, (-0.75, 0.175, 0.225, 0.167), 0.87, 0.58, "minor"),
        (50, (-0.63, 0.225, 0.285, 0.5), 0.89, 0.75, "minor"),
        (215, (-0.45, 0.5, 0.675, 1.0), 1.0, 1.0, "minor"),
    ],
)
def test_positions_and_factors_are_those_of_facts(
    number: int, vad: tuple[float, ...], tempo: float, dynamics: float, mode: str
) -> None:
    node = WHOLE.nodes[number]
    assert node.vad == pytest.approx(vad, abs=1e-3)
    assert (node.tempo_factor, node.dynamics_factor) == pytest.approx((tempo, dynamics), abs=5e-3)
    assert node.mode == mode


def test_only_joy_and_surprise_are_major() -> None:
    assert {node.category for node in WHOLE.nodes if node.mode == "major"} == {"joy", "surprise"}


def test_tempo_and_dynamics_span_what_facts_say() -> None:
    tempi = [node.tempo_factor for node in WHOLE.nodes]
    assert (min(tempi), max(tempi)) == pytest.approx((0.87, 1.12))
    loudness = [node.dynamics_factor for node in WHOLE.nodes]
    assert (min(loudness), max(loudness)) == pytest.approx((0.583, 1.0), abs=1e-3)


def test_every_relation_goes_both_ways_and_never_to_itself() -> None:
    for node in WHOLE.nodes:
        assert node.id not in node.related
        assert all(node.id in WHOLE.nodes[other].related for other in node.related), node.path


def test_every_node_has_relations_and_its_neighbours_are_among_them() -> None:
    """The file of seed 5's project leaves 177 of 216 without any."""
    for node in WHOLE.nodes:
        assert len(node.related) >= 6
        level = node.id % 6
        beside = {node.id + step for step in (-3, -2, -1, 1, 2, 3) if 0 <= level + step < 6}
        assert beside <= set(node.related), node.path


def test_relations_stay_in_the_category_unless_they_are_near() -> None:
    outside = 0
    for node in WHOLE.nodes:
        for other in node.related:
            if WHOLE.nodes[other].category != node.category:
                outside += 1
                assert WHOLE.distance(np.array([node.vad]), WHOLE.vad_N4[[other]])[0, 0] < 0.35
    assert outside > 0
    joy, grief = WHOLE.nodes[35], WHOLE.nodes[36]  # neighbours by id only
    assert grief.id not in joy.related


@given(IDS)
def test_weights_of_relations_sum_to_one_and_fall_with_distance(number: int) -> None:
    related = WHOLE.related(number)
    ids, weights = [one for one, _ in related], [weight for _, weight in related]
    assert sorted(ids) == list(WHOLE.nodes[number].related)
    assert sum(weights) == pytest.approx(1)
    assert min(weights) > 0
    assert weights == sorted(weights, reverse=True)
    far = WHOLE.distance(WHOLE.vad_N4[[number]], WHOLE.vad_N4[ids])[0]
    assert (np.diff(far) > -1e-12).all()


def test_distance_counts_valence_and_arousal_twice() -> None:
    here = np.zeros((1, 4))
    steps = np.eye(4)
    assert WHOLE.distance(here, steps)[0] ** 2 == pytest.approx([2, 2, 1, 1])
    assert WHOLE.distance(steps, here).shape == (4, 1)
    assert WHOLE.distance(here, np.ones((1, 4)))[0, 0] == pytest.approx(np.sqrt(6))


def test_every_node_is_nearest_to_itself() -> None:
    assert (WHOLE.nearest(WHOLE.vad_N4)[:, 0] == np.arange(N_NODES)).all()


@given(st.tuples(st.floats(-1, 1), *[st.floats(0, 1)] * 3), st.integers(1, N_NODES))
def test_nearest_nodes_come_in_the_order_of_their_distance(vad: tuple[float, ...], k: int) -> None:
    rows = np.array([vad])
    found = WHOLE.nearest(rows, k)
    assert found.shape == (1, k)
    far = WHOLE.distance(rows, WHOLE.vad_N4)[0]
    assert far[found[0]] == pytest.approx(np.sort(far)[:k])


def test_noise_of_a_twentieth_keeps_the_category() -> None:
    """Facts b: with a spread of 0.05 the category is found again nearly always, the node half the time."""
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(N_NODES), 20)
    found = WHOLE.nearest(WHOLE.vad_N4[ids] + rng.normal(scale=0.05, size=(len(ids), 4)))[:, 0]
    assert (found // 36 == ids // 36).mean() > 0.98
    assert 0.4 < (found == ids).mean() < 0.7


@given(IDS)
def test_a_node_is_found_by_path_name_and_id(number: int) -> None:
    node = WHOLE.nodes[number]
    assert node.path == f"{node.category}/{node.subcategory}/{node.level}"
    for name in (node.path, f" {node.path.upper()} ", node.name, node.name.title(), str(number)):
        assert WHOLE.find(name) is node


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("joy/elatoin/mild", "joy/elation/mild"),
        ("mild elatoin", "mild elation"),
        ("joy/elation", "joy/elation/subtle, joy/elation/mild"),
        ("joy/elation/", "joy/elation/subtle, joy/elation/mild"),
        ("joy", "joy/relief/subtle, joy/hope/subtle"),
        ("216", "id from 0 to 215"),
        ("-1", "id from 0 to 215"),
        ("9" * 5000, "id from 0 to 215"),
        ("²", "id from 0 to 215"),
        ("", "id from 0 to 215"),
    ],
)
def test_an_unknown_node_is_refused_with_close_ones(name: str, hint: str) -> None:
    with pytest.raises(UserError, match="the thesaurus has no node") as refused:
        WHOLE.find(name)
    assert hint in str(refused.value)
    assert len(str(refused.value)) < 400


@given(st.text(max_size=30))
def test_any_text_finds_a_node_or_is_refused(name: str) -> None:
    try:
        assert WHOLE.find(name) in WHOLE.nodes
    except UserError as refused:
        assert "\n" not in str(refused)


def test_a_position_is_a_feeling() -> None:
    assert isinstance(WHOLE.nodes[0].vad, VAD)
    assert WHOLE.vad_N4.shape == (N_NODES, 4)
    assert tuple(WHOLE.vad_N4[7]) == WHOLE.nodes[7].vad
