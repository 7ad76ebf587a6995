"""Weak labels follow the cues that listeners follow, stay inside their ranges and never jump."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.emotion.key import Key, find_key
from etude.emotion.performance import Performance
from etude.emotion.thesaurus import CATEGORIES, thesaurus
from etude.emotion.vad import VAD, checked
from etude.emotion.weak import ORDINARY, RULE, bent, cues_of, weak_vad

C_MAJOR, C_MINOR = (60, 64, 67), (60, 63, 67)


def played(
    chord: tuple[int, ...] = C_MAJOR,
    *,
    bpm: float = 100.0,
    velocity: int = 80,
    n_chords: int = 16,
    drum: bool = False,
) -> Performance:
    """A chord on every beat, an octave higher on every other one."""
    onset = np.repeat(np.arange(n_chords, dtype=np.float64), len(chord))
    pitch = (np.array(chord) + 12 * (np.arange(n_chords) % 2)[:, None]).ravel()
    beat_s = 60 / bpm
    return Performance(
        onset_s=onset * beat_s,
        length_s=np.full(len(onset), 0.9 * beat_s),
        onset_beats=onset,
        length_beats=np.full(len(onset), 0.9),
        pitch=pitch.astype(np.int64),
        velocity=np.full(len(onset), velocity, dtype=np.int64),
        drum=np.full(len(onset), drum),
        tempo_bpm=bpm,
        beats_per_bar=4.0,
        measured=True,
    )


def felt(performance: Performance) -> VAD:
    return weak_vad(performance, find_key(performance))


def test_minor_is_less_pleasant_than_major() -> None:
    assert felt(played(C_MAJOR)).valence > 0.2 > -0.2 > felt(played(C_MINOR)).valence


def test_fast_is_more_aroused_more_tense_and_more_pleasant() -> None:
    slow, fast = felt(played(bpm=60)), felt(played(bpm=160))
    assert fast.arousal > slow.arousal + 0.2
    assert fast.intensity > slow.intensity
    assert fast.valence > slow.valence
    assert fast.dominance == pytest.approx(slow.dominance)


def test_loud_is_powerful() -> None:
    soft, loud = felt(played(velocity=60)), felt(played(velocity=110))
    assert loud.dominance > soft.dominance + 0.2
    assert loud.arousal > soft.arousal
    assert loud.intensity > soft.intensity
    assert loud.valence == pytest.approx(soft.valence)


def test_low_is_powerful_and_high_is_pleasant() -> None:
    low, high = felt(played(tuple(p - 12 for p in C_MAJOR))), felt(played(tuple(p + 12 for p in C_MAJOR)))
    assert low.dominance > high.dominance + 0.2
    assert high.valence > low.valence


def test_dissonance_is_intense_unpleasant_and_without_power() -> None:
    key = Key(0, "major", 0.1, minorness=-0.1)
    consonant, rough = weak_vad(played(), key), weak_vad(played((60, 61, 66, 67)), key)
    assert rough.intensity > consonant.intensity + 0.2
    assert rough.valence < consonant.valence
    assert rough.dominance < consonant.dominance


@pytest.mark.parametrize(
    ("chord", "share"),
    [
        ((60,), 0.0),  # one line
        ((60, 72), 0.0),
        ((60, 64, 67), 0.0),
        ((60, 61), 1.0),
        ((60, 66), 1.0),
        ((60, 62), 0.5),
        ((60, 64, 67, 70), (1.0 + 0.5) / 6),  # the dominant seventh's tritone and whole tone
    ],
)
def test_roughness_is_the_dissonant_share_of_pairs(chord: tuple[int, ...], share: float) -> None:
    key = Key(0, "major", 0.1)
    assert cues_of(played(chord), key)["roughness"] == pytest.approx(share)


def test_cues_have_the_units_that_they_claim() -> None:
    cues = cues_of(played(bpm=128, velocity=70), Key(0, "major", 0.2, minorness=-0.25))
    assert set(cues) == set(ORDINARY)
    assert cues["speed"] == 7
    assert cues["density"] == pytest.approx(np.log2(16 / (15.9 * 60 / 128)))
    assert (cues["loudness"], cues["contrast"], cues["major"]) == (70, 0, 0.25)
    assert cues["height"] == pytest.approx(np.mean(C_MAJOR) + 6)


def test_notes_of_one_chord_are_one_moment() -> None:
    key = Key(0, "major", 0.1)
    assert cues_of(played((60,)), key)["density"] == cues_of(played((60, 64, 67, 72)), key)["density"]


def test_every_cue_of_the_rule_is_measured_and_each_is_used() -> None:
    assert set(RULE) == set(VAD._fields)
    assert {cue for rule in RULE.values() for cue in rule} == set(ORDINARY)
    assert RULE["intensity"].keys() != RULE["arousal"].keys()


def test_drums_alone_have_a_feeling_without_mode_or_register() -> None:
    drums = played((36, 42), drum=True)
    assert set(cues_of(drums, find_key(drums))) == {"speed", "density", "loudness", "contrast"}
    assert abs(felt(drums).valence) < 0.3


def test_one_note_has_a_feeling() -> None:
    checked(felt(played((60,), n_chords=1)), "one note")


def test_what_is_ordinary_is_in_the_middle() -> None:
    middle = {name: ordinary for name, (ordinary, _) in ORDINARY.items()}
    assert set(bent(middle).values()) == {0.0}


@settings(max_examples=60)
@given(
    chord=st.lists(st.integers(0, 127), min_size=1, max_size=8).map(tuple),
    bpm=st.floats(1, 2000),
    velocity=st.integers(1, 127),
    n_chords=st.integers(1, 40),
    drum=st.booleans(),
    minorness=st.floats(-1, 1),
)
def test_every_feeling_lies_strictly_inside_its_ranges(
    chord: tuple[int, ...], bpm: float, velocity: int, n_chords: int, drum: bool, minorness: float
) -> None:
    notes = played(chord, bpm=bpm, velocity=velocity, n_chords=n_chords, drum=drum)
    vad = weak_vad(notes, Key(0, "major", 0.0, minorness=minorness))
    assert -1 < vad.valence < 1
    assert all(0 < value < 1 for value in vad[1:])


def test_a_slightly_different_piece_feels_slightly_different() -> None:
    steps = [felt(played(bpm=bpm)) for bpm in np.linspace(40, 220, 60)]
    assert np.abs(np.diff(np.array(steps), axis=0)).max() < 0.06


def test_sets_of_cues_reach_all_six_categories() -> None:
    """Each played as the literature describes it."""
    pieces = {
        "joy": played((72, 76, 79), bpm=110, velocity=80),
        "sad": played((57, 60, 64), bpm=55, velocity=60),
        "anger": played((45, 48, 52), bpm=170, velocity=105),
        "fear": played((70, 73, 76, 79), bpm=150, velocity=62),
        "surprise": played((60, 64, 67, 69, 71, 74), bpm=190, velocity=95),
        "disgust": played((45, 48, 51), bpm=80, velocity=95),
    }
    vads = np.array([felt(piece) for piece in pieces.values()])
    found = [CATEGORIES[i // 36] for i in thesaurus().nearest(vads)[:, 0]]
    assert found == list(pieces), vads.round(2).tolist()
