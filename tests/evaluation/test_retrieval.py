"""Rankings are compared as they are read: place by place, ties and few tracks included."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.errors import UserError
from etude.evaluation.metrics import unit
from etude.evaluation.retrieval import QUERIES, TIE, agreement, answers, best, chance, ranking, read_queries

SCORES = st.integers(0, 10_000)


def scores(seed: int, n_tracks: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n_tracks)


def naive(teacher: list[float], student: list[float]) -> list[float]:
    """The measures as the public evaluation words them, for scores without ties."""
    n = len(teacher)
    by_teacher = sorted(range(n), key=lambda i: -teacher[i])
    by_student = sorted(range(n), key=lambda i: -student[i])
    hits, precision = 0, 0.0
    for place, track in enumerate(by_student[:10], start=1):
        if track in by_teacher[:5]:
            hits += 1
            precision += hits / place
    return [
        float(by_teacher[0] == by_student[0]),
        len(set(by_teacher[:5]) & set(by_student[:5])) / 5,
        precision / 5,
        len(set(by_teacher[:10]) & set(by_student[:10])) / 10,
        sum(abs(by_student.index(track) - place) for place, track in enumerate(by_teacher[:10])) / 10,
    ]


@settings(max_examples=60)
@given(SCORES, SCORES, st.integers(11, 40))
def test_measures_are_those_of_the_public_evaluation(a: int, b: int, n_tracks: int) -> None:
    teacher, student = scores(a, n_tracks), scores(b, n_tracks)
    found = list(asdict(agreement(teacher, student)).values())
    assert found == pytest.approx(naive(teacher.tolist(), student.tolist()))


@given(SCORES, st.integers(11, 40), st.integers(1, 4))
def test_the_teacher_itself_is_perfect_also_with_ties(seed: int, n_tracks: int, levels: int) -> None:
    teacher = np.random.default_rng(seed).integers(0, levels, size=n_tracks) / levels
    assert list(asdict(agreement(teacher, teacher)).values()) == [1, 1, 1, 1, 0]


@given(SCORES, st.integers(12, 30))
def test_a_duplicate_that_comes_first_instead_is_no_error(seed: int, n_tracks: int) -> None:
    teacher = scores(seed, n_tracks)
    first = int(np.argmax(teacher))
    twin = (first + 1) % n_tracks
    teacher[twin] = teacher[first] - TIE / 2
    student = teacher.copy()
    student[twin] += TIE
    found = agreement(teacher, student)
    assert (found.recall_1, found.recall_5, found.map_10, found.overlap_10) == (1, 1, 1, 1)
    assert ranking(student)[0] == twin


@pytest.mark.parametrize(("n_tracks", "tied"), [(11, 0), (25, 0), (60, 0), (30, 8)])
def test_random_rankings_reach_chance(n_tracks: int, tied: int) -> None:
    teacher = scores(3, n_tracks)
    teacher[ranking(teacher)[: tied + 1]] = teacher.max()
    found = [list(asdict(agreement(teacher, scores(1000 + i, n_tracks))).values()) for i in range(800)]
    expected = list(asdict(chance(teacher)).values())
    if not tied:
        assert expected[:2] + expected[3:4] == pytest.approx([1 / n_tracks, 5 / n_tracks, 10 / n_tracks])
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / len(found) ** 0.5
    assert (np.abs(mean - expected) < 4.5 * error + 1e-12).all(), (mean, expected)


def test_too_few_tracks_leave_nothing_to_choose() -> None:
    one, seven = (asdict(agreement(scores(0, n), scores(1, n))) for n in (1, 7))
    assert np.isnan(list(one.values())).all()
    assert [name for name, value in seven.items() if np.isnan(value)] == ["overlap_10"]
    for n in (1, 7):
        found, expected = agreement(scores(0, n), scores(1, n)), chance(scores(0, n))
        assert (
            np.isnan(list(asdict(found).values())).tolist()
            == np.isnan(list(asdict(expected).values())).tolist()
        )


def test_the_best_are_counted_with_those_that_tie() -> None:
    assert best(np.array([0.5, 0.9, 0.5, 0.1]), 2).tolist() == [True, True, True, False]
    assert best(np.array([0.5, 0.9, 0.4, 0.1]), 2).tolist() == [True, True, False, False]


def test_answers_rank_each_side_by_its_own_texts_and_tracks() -> None:
    generator = np.random.default_rng(2)
    texts, tracks = unit(generator.normal(size=(3, 8))), unit(generator.normal(size=(20, 8)))
    turn = np.linalg.qr(generator.normal(size=(8, 8)))[0]
    queries = ("one", "two", "three")
    turned = answers(queries, (texts, tracks), (texts @ turn, tracks @ turn))
    assert turned.mean.recall_5 == 1  # another space, the same rankings
    assert turned.mean.rank_shift == 0
    mixed = answers(queries, (texts, tracks), (texts, tracks @ turn))
    assert mixed.mean.recall_5 < 1
    assert [one.recall_5 for one in mixed.each] == [
        agreement(t, s).recall_5 for t, s in zip(mixed.teacher_QT, mixed.student_QT, strict=True)
    ]
    assert mixed.chance.recall_5 == pytest.approx(5 / 20)


def test_the_usual_queries_are_the_fourteen_of_the_seed() -> None:
    queries = read_queries(QUERIES)
    assert len(queries) == 14
    assert queries[0] == "Calm Piano song"
    assert queries[-1] == "Ambient song"


def test_a_file_of_queries_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "queries.txt"
    path.write_bytes("\ufeffRuhiges Klavier\r\n\n  Musik für Gitarre \nRuhiges Klavier\n".encode())
    assert read_queries(path) == ("Ruhiges Klavier", "Musik für Gitarre")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no query"),
        (b" \n\n", "holds no query"),
        (b"\xff\xfe\x00", "not text"),
        (b"a\x00b", "control"),
    ],
)
def test_what_is_no_file_of_queries_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "queries.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_queries(path)
    with pytest.raises(UserError, match="cannot read the queries"):
        read_queries(tmp_path)
