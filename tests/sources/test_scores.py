"""Which scores the demo library offers, and how it reads them."""

import zipfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.errors import UserError
from etude.sources.excerpt import Note, read_measured, read_parts
from etude.sources.scores import COLLECTIONS, Score, choose, corpus_root, library

MUSICXML = """<?xml version="1.0"?><score-partwise version="3.1">
<part-list><score-part id="P1"><part-name>x</part-name></score-part></part-list><part id="P1">
<measure number="1"><attributes><divisions>2</divisions><time>
<beats>2</beats><beat-type>4</beat-type></time></attributes><note><rest/><duration>2</duration></note>
<note><pitch><step>C</step><octave>4</octave></pitch><duration>2</duration><tie type="start"/></note>
</measure>
<measure number="2"><note><pitch><step>C</step><octave>4</octave></pitch><duration>4</duration>
<tie type="stop"/></note></measure>
<measure number="3"><note><pitch><step>G</step><octave>4</octave></pitch><duration>4</duration></note>
</measure></part></score-partwise>"""

KERN = "**kern\t**kern\n*M2/4\t*M2/4\n=1\t=1\n2c\t2e\n=2\t=2\n2d\t2f\n=3\t=3\n2e\t2g\n==\t==\n*-\t*-\n"

ABC = "X:1\nT:One\nM:2/4\nL:1/4\nK:C\nCD|EF|\n\nX:2\nT:Two\nM:2/4\nL:1/4\nK:C\n{g}c2|d2|\n"


@settings(max_examples=20)
@given(
    few=st.integers(1, 300),
    more=st.integers(0, 300),
    seed=st.integers(0, 2**31),
)
def test_fewer_pieces_are_the_first_of_more(few: int, more: int, seed: int) -> None:
    longer = choose(few + more, seed)
    assert choose(few, seed) == longer[:few]
    assert len({score.uri for score in longer}) == few + more


def test_120_pieces_mix_every_collection_in_proportion() -> None:
    count = Counter(score.collection for score in choose(120, 0))
    assert count.keys() == COLLECTIONS.keys()
    total = sum(collection.weight for collection in COLLECTIONS.values())
    for name, collection in COLLECTIONS.items():
        assert abs(count[name] - 120 * collection.weight / total) < 2


def test_seeds_choose_differently() -> None:
    assert choose(50, 0) != choose(50, 1)


def test_all_pieces_can_be_had_and_not_one_more() -> None:
    assert sorted(choose(len(library()), 3), key=lambda score: score.uri) == sorted(
        library(), key=lambda score: score.uri
    )
    with pytest.raises(UserError, match=f"has {len(library())} pieces"):
        choose(len(library()) + 1, 3)


def test_the_table_names_scores_that_are_installed() -> None:
    root = corpus_root()
    assert len(library()) > 1000
    for score in library():
        assert (root / score.path).is_file()
        assert score.title and score.composer and score.work and score.key.split()[1] in ("major", "minor")
        assert score.quarters >= 4 and score.parts >= 1


def test_movements_of_one_work_share_it() -> None:
    works: dict[str, set[str]] = {}
    for score in library():
        if score.path.startswith("haydn/opus74no1/"):
            works.setdefault(score.work, set()).add(score.path)
    assert [len(paths) for paths in works.values()] == [4]


def test_musicxml_joins_ties_and_starts_at_the_first_note(tmp_path: Path) -> None:
    plain = tmp_path / "a.xml"
    plain.write_text(MUSICXML)
    with zipfile.ZipFile(tmp_path / "a.mxl", "w") as archive:
        archive.writestr("META-INF/container.xml", "<container/>")
        archive.writestr("score.musicxml", MUSICXML)
    assert read_parts(plain) == [[Note(0, 3, 60), Note(3, 2, 67)]]
    assert read_parts(tmp_path / "a.mxl") == read_parts(plain)
    assert read_parts(plain, bars=2) == [[Note(0, 3, 60)]]


def test_the_first_note_is_found_in_its_bar(tmp_path: Path) -> None:
    rest, pickup, kern = tmp_path / "a.xml", tmp_path / "a.abc", tmp_path / "a.krn"
    rest.write_text(MUSICXML)
    pickup.write_text("X:1\nM:3/4\nL:1/4\nK:C\nG|CDE|FGA|G2|]\n")
    kern.write_text(KERN)
    assert read_measured(rest, 0, 0, bar=2)[1] == 1  # after a rest of one quarter
    assert read_measured(pickup, 0, 0, bar=3)[1] == 2
    assert read_measured(kern, 0, 0, bar=2) == (read_parts(kern), 0)


def test_kern_is_read_bar_by_bar(tmp_path: Path) -> None:
    file = tmp_path / "a.krn"
    file.write_text(KERN)
    assert sorted(read_parts(file, bars=2)) == [
        [Note(0, 2, 60), Note(2, 2, 62)],
        [Note(0, 2, 64), Note(2, 2, 65)],
    ]
    assert [len(part) for part in read_parts(file)] == [3, 3]


def test_one_tune_of_many_and_no_grace_notes(tmp_path: Path) -> None:
    file = tmp_path / "a.abc"
    file.write_text(ABC)
    assert read_parts(file, tune=2) == [[Note(0, 2, 72), Note(2, 2, 74)]]
    assert [note.pitch for note in read_parts(file, tune=1)[0]] == [60, 62, 64, 65]


def by_suffix(suffix: str) -> Score:
    return next(score for score in library() if score.path.endswith(suffix))


@pytest.mark.parametrize("suffix", [".mxl", ".xml", ".krn", ".abc", ".musicxml"])
def test_the_table_says_what_reading_finds(suffix: str) -> None:
    score = by_suffix(suffix)
    parts = read_parts(corpus_root() / score.path, score.tune, score.bars)
    assert len(parts) == score.parts
    assert min(part[0].onset for part in parts) == 0
    assert max(note.onset + note.length for part in parts for note in part) <= score.quarters + 1e-6
