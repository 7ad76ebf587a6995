from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.sources.base import Track
from etude.sources.demo import DemoConfig, DemoSource
from etude.sources.facts import Facts, facts_of


def facts(title: str = "Aria", artist: str = "", **tags: str) -> Facts:
    return facts_of(Track("id", "file:///srv/music/secret.mp3", title, artist, tags=tags))


def test_the_demo_library_tells_who_plays_what_and_how(tmp_path: Path) -> None:
    tracks = list(DemoSource(DemoConfig(pieces=40), tmp_path).tracks())
    known = [facts_of(track) for track in tracks]
    assert all(fact.tempo and fact.instruments for fact in known)
    assert {"chorale", "Irish folk"} <= {genre for fact in known for genre in fact.genres}
    assert any("drums" in fact.instruments for fact in known)
    # A book's title or a composer's name is nothing that one hears, and a fiddle tune here has no fiddle.
    assert not any(
        name in genre for fact in known for genre in fact.genres for name in ("Bach", "Ryan", "fiddle")
    )


def test_audiomuse_tags_are_parsed() -> None:
    known = facts(
        tempo="131.4",
        key="F#",
        scale="minor",
        moods="rock:0.560,sad:0.550,80s:0.540,female vocalists:0.530,guitar:0.510",
        features="danceable:0.62,aggressive:0.65,happy:0.10",
        energy="0.81",
        year="1984",
    )
    assert (known.tempo, known.bpm, known.key, known.mode) == ("fast", 131, "F sharp minor", "minor")
    assert known.genres == ("rock",)
    assert known.moods == (("aggressive", 0.65), ("sad", 0.55))
    assert (known.voice, known.era, known.instruments) == ("female vocals", "the 1980s", ("guitar",))
    assert known.energetic
    assert known.year == 1984


def test_tags_of_files_and_servers_are_read() -> None:
    known = facts("Song", "The Band", genre="Rock; Pop/Funk;rock", date="1999-05-01", bpm="72")
    assert known.genres == ("Rock", "Pop", "Funk")
    assert (known.year, known.tempo, known.composer) == (1999, "slow", "The Band")


def test_a_genre_is_a_term_that_fits_before_the_word_music() -> None:
    known = facts(genre="Folk, World, & Country; Classical music; Other; unknown; Music; R&B")
    assert known.genres == ("Folk", "World", "Country", "Classical", "R&B")
    assert facts(genre="Other") == facts()


def test_of_two_moods_that_exclude_each_other_the_stronger_is_kept() -> None:
    assert facts(moods="sad:0.6", features="happy:0.9").moods == (("happy", 0.9),)
    loud = facts(moods="chill:0.7,aggressive:0.6,sad:0.55", energy="0.9")
    assert loud.moods == (("relaxed", 0.7), ("sad", 0.55))
    assert not loud.energetic


def test_a_collection_loses_its_composers_name() -> None:
    known = facts(artist="Johann Sebastian Bach", collection="Bach inventions")
    assert known.genres == ("inventions",)


@pytest.mark.parametrize(
    ("key", "scale", "expected", "mode"),
    [
        ("D minor", "", "D minor", "minor"),
        ("Bb major", "", "B flat major", "major"),
        ("Bbm", "", "B flat minor", "minor"),
        ("c#", "min", "C sharp minor", "minor"),
        ("D dorian", "", "D dorian", "dorian"),
        ("", "dorian", "", "dorian"),
        ("minor", "", "", "minor"),
        ("C", "", "", ""),
        ("H major", "", "", ""),
        ("nonsense", "x", "", ""),
    ],
)
def test_keys(key: str, scale: str, expected: str, mode: str) -> None:
    known = facts(key=key, scale=scale)
    assert (known.key, known.mode) == (expected, mode)


@pytest.mark.parametrize(
    ("bpm", "word"),
    [("59", "very slow"), ("60", "slow"), ("100", "moderate"), ("120", "fast"), ("168", "very fast")]
    + [(bad, "") for bad in ("0", "-5", "nan", "inf", "9999", "quick")],
)
def test_tempo_words(bpm: str, word: str) -> None:
    assert facts(tempo_bpm=bpm).tempo == word


def test_a_low_energy_says_nothing_and_what_cannot_be_read_is_left_out() -> None:
    known = facts(energy="0.07", metre="unmeasured", moods="rock=0.5", date="soon", genre="(;/" + "word " * 9)
    assert known == Facts(title="Aria")


def test_a_title_alone_is_too_weak() -> None:
    assert not facts("01 Track").usable
    assert facts("01 Track", "Someone").usable
    assert not facts("01 Track", "Various Artists").usable
    assert facts(scale="minor").audible


def test_the_hash_changes_with_the_facts_only() -> None:
    one = Track("a", "file:///x", "Aria", tags={"genre": "Rock", "file_path": "/x"})
    other = Track("b", "file:///y", "Aria", tags={"genre": "Rock", "file_path": "/y"})
    assert facts_of(one).hash == facts_of(other).hash
    assert facts_of(one).hash != facts(genre="Pop").hash


NAMES = [
    "genre",
    "collection",
    "key",
    "scale",
    "metre",
    "tempo",
    "tempo_bpm",
    "instruments",
    "drums",
    "moods",
]
NAMES += ["features", "energy", "year", "date", "other"]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), st.text()), st.text(), st.text())
def test_any_tags_give_facts_in_plain_text(tags: dict[str, str], title: str, artist: str) -> None:
    known = facts_of(Track("id", "uri", title, artist, tags=tags))
    for text in (known.title, known.composer, *known.genres, *known.instruments):
        text.encode()
        assert text.isprintable()
        assert len(text) <= 80
    assert len(known.hash) == 16
