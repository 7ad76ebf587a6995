"""Queries are a function of the settings, and no held-out combination is ever trained on."""

import json
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.data.queries import (
    QueryConfig,
    QuerySampler,
    combination,
    part_of,
)
from etude.errors import UserError
from etude.teachers.terms import DEFAULT_TERMS, read_terms

WORDS = {
    "Genre": ["pop", "Heavy Metal", "jazz", "folk", "house", "soul"],
    "Instrument": ["piano", "electric guitar", "violin", "drums", "flute", "harp"],
    "Mood": ["happy", "Sad", "calm", "dark", "tense"],
}


def _written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "terms.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def terms(tmp_path: Path) -> Path:
    return _written(tmp_path, WORDS)


def _found(query: str, terms: dict[str, tuple[str, ...]]) -> list[tuple[str, str]] | None:
    """(category, term) pairs that a query is made of, in order; None if it cannot be read so."""
    if not query:
        return []
    for category, values in terms.items():
        for term in values:
            for cased in (term, term.upper(), term.lower()):
                if query == cased or query.startswith(cased + " "):
                    rest = _found(query[len(cased) + 1 :], {k: v for k, v in terms.items() if k != category})
                    if rest is not None:
                        return [(category, term), *rest]
    return None


def test_a_query_is_some_categories_in_any_order_with_a_term_of_each(terms: Path) -> None:
    sampler = QuerySampler(QueryConfig(terms=terms, per_epoch=1500))
    read = [_found(query, sampler.terms) for query in sampler.training(0, 0)]
    assert None not in read
    orders = {tuple(category for category, _ in query or ()) for query in read}
    assert len(orders) == 3 + 6 + 6  # every ordered non-empty subset of three categories
    assert {term for query in read for _, term in query or ()} == {t for v in WORDS.values() for t in v}
    sizes = [len(query or ()) for query in read]
    assert all(0.2 < sizes.count(size) / len(sizes) < 0.5 for size in (1, 2, 3))


def test_every_case_comes(terms: Path) -> None:
    queries = QuerySampler(QueryConfig(terms=terms, per_epoch=2000)).training(0, 0)
    for form in ("Heavy Metal", "HEAVY METAL", "heavy metal"):
        assert any(form in query for query in queries)


def test_only_named_categories_are_drawn_from(terms: Path) -> None:
    sampler = QuerySampler(QueryConfig(terms=terms, categories=("Mood", "Genre"), per_epoch=400, evaluated=9))
    assert list(sampler.terms) == ["Mood", "Genre"]
    instruments = [term.lower() for term in WORDS["Instrument"]]
    for query in (*sampler.training(0, 0), *sampler.held_out("validation"), *sampler.held_out("test")):
        assert not any(instrument in query.lower() for instrument in instruments)


def test_an_unknown_category_is_refused_with_those_there_are(terms: Path) -> None:
    with pytest.raises(UserError, match=r"terms\.json has no category 'Moods'.*Genre, Instrument, Mood"):
        QuerySampler(QueryConfig(terms=terms, categories=("Genre", "Moods")))


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(5, 9), min_size=2, max_size=4),
    seed=st.integers(0, 2**32),
    training_seed=st.integers(0, 2**32),
    held_out=st.floats(0.15, 0.4),
    draw=st.data(),
)
def test_no_combination_is_trained_on_and_held_out(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    seed: int,
    training_seed: int,
    held_out: float,
    draw: st.DataObject,
) -> None:
    word = st.text(string.ascii_letters, min_size=1, max_size=3)
    term = st.lists(word, min_size=1, max_size=2).map(" ".join)
    content = {
        f"c{i}": draw.draw(st.lists(term, min_size=n, max_size=n, unique_by=str.lower))
        for i, n in enumerate(sizes)
    }
    path = _written(tmp_path_factory.mktemp("terms"), content)
    config = QueryConfig(terms=path, seed=seed, held_out=held_out, per_epoch=200, evaluated=10)
    try:
        sampler = QuerySampler(config)
    except UserError as error:
        assert "add terms or categories" in str(error)  # a share of few combinations can be none
        return
    parts = [
        {combination(query.split()) for query in queries}
        for queries in (
            [*sampler.training(training_seed, 0), *sampler.training(training_seed, 1)],
            sampler.held_out("validation"),
            sampler.held_out("test"),
        )
    ]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    for part in ("validation", "test"):
        queries = sampler.held_out(part)
        assert len({combination(query.split()) for query in queries}) == len(queries)


@settings(deadline=None)
@given(st.permutations(["Happy", "electric GUITAR", "pop"]), st.integers(0, 1000))
def test_order_case_and_repetition_leave_the_part(order: list[str], seed: int) -> None:
    config = QueryConfig(seed=seed, held_out=0.3)
    part = part_of(["happy", "Electric guitar", "POP"], config)
    assert part_of(order, config) == part
    assert part_of([term.upper() for term in order], config) == part
    assert part_of([*order, "pop"], config) == part
    assert part_of(["happy pop", "electric guitar"], config) == part


def test_shares_of_combinations_are_as_asked() -> None:
    config = QueryConfig(held_out=0.1)
    parts = [part_of([f"term {i}", f"other {i}"], config) for i in range(5000)]
    assert 0.08 < parts.count("validation") / 5000 < 0.12
    assert 0.08 < parts.count("test") / 5000 < 0.12


def test_epochs_and_seeds_differ_and_repeat(terms: Path) -> None:
    config = QueryConfig(terms=terms, per_epoch=100, evaluated=20)
    first = QuerySampler(config).training(3, 1)
    assert len(first) == 100
    assert QuerySampler(config).training(3, 1) == first
    assert QuerySampler(config).training(3, 2) != first
    assert QuerySampler(config).training(4, 1) != first


def test_the_held_out_sets_are_fixed_by_their_own_seed(terms: Path) -> None:
    first, same, other = (
        QuerySampler(QueryConfig(terms=terms, evaluated=20, seed=seed)) for seed in (0, 0, 1)
    )
    assert first.held_out("test") == same.held_out("test")
    assert first.held_out("test") != other.held_out("test")
    assert first.id == same.id != other.id
    assert QuerySampler(QueryConfig(terms=terms, evaluated=20, per_epoch=5)).held_out(
        "test"
    ) == first.held_out("test")


def test_the_default_terms_fill_every_set() -> None:
    sampler = QuerySampler(QueryConfig(per_epoch=10))
    counts = {category: len(values) for category, values in sampler.terms.items()}
    assert counts == {"Genre_Style": 30, "Instrumentation_Vocal": 45, "Emotion_Mood": 14, "Voice_Type": 14}
    assert len({term for values in sampler.terms.values() for term in values}) == 103
    assert len(sampler.held_out("validation")) == len(sampler.held_out("test")) == 256
    assert DEFAULT_TERMS.is_file()


def test_the_same_terms_have_the_same_id_wherever_they_lie(tmp_path: Path, terms: Path) -> None:
    other = tmp_path / "elsewhere.json"
    other.write_text(json.dumps(WORDS, indent=3))
    assert QuerySampler(QueryConfig(terms=terms)).id == QuerySampler(QueryConfig(terms=other)).id
    assert QuerySampler(QueryConfig(terms=terms)).id != QuerySampler(QueryConfig()).id


def test_spaces_and_doubles_are_tidied(tmp_path: Path) -> None:
    path = _written(tmp_path, {"Mood": [" very   happy ", "very happy", "sad"]})
    assert read_terms(path) == {"Mood": ("very happy", "sad")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "not valid JSON"),
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ({}, "holds no categories"),
        (["pop"], "holds no categories"),
        ({"Genre": []}, "'Genre' has no terms"),
        ({"Genre": "pop"}, "'Genre' has no terms"),
        ({"Genre": ["pop", ""]}, "'Genre' holds ''"),
        ({"Genre": ["pop", "  "]}, "'Genre' holds '  '"),
        ({"Genre": ["pop", 3]}, "'Genre' holds 3"),
        ({"Genre": ["pop", "\ud800"]}, "'Genre' holds"),
        ({"Genre": ["pop", "rock\u0000"]}, "'Genre' holds"),
    ],
)
def test_files_that_cannot_serve_are_named(tmp_path: Path, content: object, message: str) -> None:
    path = _written(tmp_path, content)
    with pytest.raises(UserError, match=message) as caught:
        QuerySampler(QueryConfig(terms=path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_that_is_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the query terms .*none\.json: No such file"):
        read_terms(tmp_path / "none.json")
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match=r"binary\.json is not valid JSON"):
        read_terms(binary)


def test_too_few_combinations_are_refused(tmp_path: Path) -> None:
    path = _written(tmp_path, {"Genre": ["pop"]})
    with pytest.raises(UserError, match=r"the 2 queries that the .* set needs at least: add terms"):
        QuerySampler(QueryConfig(terms=path))
