"""What can be said of a track in words, from the tags that sources have: demo, files, servers, AudioMuse-AI.

A number becomes a word where the word means the same for every source. Nothing of where a file lies gets in.
"""

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from etude.sources.audiomuse import Analysis
from etude.sources.base import Track
from etude.sources.fact_words import (
    ERAS,
    GENRES,
    INSTRUMENTS,
    MODES,
    MOODS,
    NO_GENRES,
    OPPOSITES,
    SINGERS,
)

TEXT_CHARACTERS = 80  # of a title or a name; what is longer is cut
TERM_WORDS, TERM_CHARACTERS = 4, 40  # a longer genre or instrument is a sentence, not a term
TERMS = 12  # of a kind
# Beats a minute, up to which a tempo is called so; bounds as musicians' Italian words have them.
TEMPI = ((60, "very slow"), (80, "slow"), (120, "moderate"), (168, "fast"), (math.inf, "very fast"))
# Of AudioMuse-AI's energy, 0 to 1. Its scale differs between versions (0.07 was common in one, 0.2 in
# another), so a low figure says nothing; this one is loud in all of them.
ENERGETIC = 0.75
MOOD_SHARE = 0.5  # below, AudioMuse-AI itself holds a label to be absent
_KEY = re.compile(r"([A-Ga-g])[ -]?(#|b|♯|♭|sharp|flat)?[ -]?([A-Za-z]*)")
_METRE = re.compile(r"([1-9][0-9]?)/(1|2|4|8|16|32)")


@dataclass(frozen=True)
class Facts:
    """What is known of a track; empty where nothing is."""

    title: str = ""
    composer: str = ""  # or whoever else made it
    genres: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()  # drums included
    voice: str = ""  # "female vocals"
    tempo: str = ""  # a word: "slow"
    bpm: int | None = None
    key: str = ""  # "D minor"; a tonic alone is none
    mode: str = ""  # "minor"
    metre: str = ""  # "3/4"
    moods: tuple[tuple[str, float], ...] = ()  # with their shares, 0 to 1, the strongest first
    energetic: bool = False
    era: str = ""  # "the 1980s", as a listener hears it
    year: int | None = None

    @property
    def audible(self) -> bool:
        """Whether anything is known of how the track sounds."""
        silent = {"title", "composer", "year"}
        return any(value for name, value in asdict(self).items() if name not in silent)

    @property
    def usable(self) -> bool:
        """Whether a caption can be made; a title alone, often a file's name, is too weak."""
        return self.audible or bool(self.composer) or self.year is not None

    @property
    def hash(self) -> str:
        """Sixteen digits that change with anything known."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, object]:
        """What is known, as plain values for a prompt; what is not known is left out."""
        known: dict[str, object] = {name: value for name, value in asdict(self).items() if value}
        if self.moods:
            known["moods"] = dict(self.moods)
        return known


def facts_of(track: Track) -> Facts:
    """The facts in a track's fields and tags; never raises, what cannot be read is left out."""
    tags = track.tags
    analysis = Analysis.of(tags)
    labels = [(_plain(label).casefold(), share) for label, share in analysis.moods.items()]
    labels = [(label, share) for label, share in labels if label and share >= MOOD_SHARE]
    tempo, bpm = _tempo(tags.get("tempo_bpm") or tags.get("tempo") or tags.get("bpm") or "")
    key, mode = _key(f"{tags.get('key', '')} {tags.get('scale', '')}".strip())
    composer = "" if track.artist.casefold().startswith(("various", "unknown")) else _text(track.artist)
    metre = tags.get("metre", "").replace(" ", "")
    moods = _moods(labels, analysis.features)
    loud = analysis.energy is not None and ENERGETIC <= analysis.energy <= 1
    return Facts(
        title=_text(track.title),
        composer=composer,
        genres=_genres(tags, composer, [label for label, _ in labels]),
        instruments=_instruments(tags, [label for label, _ in labels]),
        voice=next((SINGERS[label] for label, _ in labels if label in SINGERS), ""),
        tempo=tempo,
        bpm=bpm,
        key=key,
        mode=mode,
        metre=metre if _METRE.fullmatch(metre) else "",
        moods=moods,
        energetic=loud and not any({"energetic", mood} in OPPOSITES for mood, _ in moods),
        era=next((ERAS[label] for label, _ in labels if label in ERAS), ""),
        year=_year(tags.get("year") or tags.get("date") or ""),
    )


def _tempo(text: str) -> tuple[str, int | None]:
    """A tempo's word and beats a minute; nothing outside 20 to 400, where it is a mistake."""
    try:
        bpm = float(text)
    except ValueError:
        return "", None
    if not 20 <= bpm <= 400:
        return "", None
    return next(word for bound, word in TEMPI if bpm < bound), round(bpm)


def _key(text: str) -> tuple[str, str]:
    """`Bbm`, `B flat minor` and `Bb` with the scale `minor` are all "B flat minor", "minor"."""
    words = " ".join(text.split())
    # The mode alone comes first: else `dorian` would begin with the tonic D.
    match = None if words.casefold() in MODES else _KEY.fullmatch(words)
    if not match:
        return "", MODES.get(words.casefold(), "")
    tonic, sign, mode = match[1].upper(), match[2] or "", match[3]
    mode = "minor" if mode == "m" else MODES.get(mode.casefold(), "")
    sign = {"#": " sharp", "♯": " sharp", "b": " flat", "♭": " flat"}.get(sign, f" {sign}" if sign else "")
    return (f"{tonic}{sign} {mode}" if mode else ""), mode


def _genres(tags: Mapping[str, str], composer: str, labels: Iterable[str]) -> tuple[str, ...]:
    """Genres of the file or server, what a collection is called, then those that a network heard."""
    found = _terms(tags.get("genre", ""))
    collection = tags.get("collection", "")
    if collection in GENRES:
        found += [GENRES[collection]] if GENRES[collection] else []
    else:
        names = set(composer.casefold().split())
        kept = [word for word in _plain(collection).split() if word.casefold() not in names]
        found += _terms(" ".join(kept))
    kinds = (MOODS, SINGERS, ERAS, INSTRUMENTS)
    found += [label for label in labels if not any(label in kind for kind in kinds)]
    found = [re.sub(r" music$", "", genre, flags=re.IGNORECASE) for genre in found]  # sentences add the word
    return _unique(genre for genre in found if genre.casefold() not in NO_GENRES)[:TERMS]


def _instruments(tags: Mapping[str, str], labels: Iterable[str]) -> tuple[str, ...]:
    found = [term.lower() for term in _terms(tags.get("instruments", ""))]
    found = [INSTRUMENTS.get(term, term) for term in found]
    found += [INSTRUMENTS[label] for label in labels if label in INSTRUMENTS]
    if tags.get("drums", "").casefold() == "yes":
        found.append("drums")
    return _unique(found)[:TERMS]


def _moods(
    labels: Iterable[tuple[str, float]], features: Mapping[str, float]
) -> tuple[tuple[str, float], ...]:
    """Labels that are moods, and the strongest of AudioMuse-AI's six features; of opposites the stronger.

    Two ways of computing the features are about, and a figure of 0.6 is high in one and middling in the
    other: only which of them leads can be trusted.
    """
    found: dict[str, float] = {}
    leading = max(features.items(), key=lambda item: item[1], default=("", 0.0))
    for label, share in (*labels, (_plain(leading[0]).casefold(), leading[1])):
        if label in MOODS and MOOD_SHARE <= share <= 1:
            found[MOODS[label]] = max(share, found.get(MOODS[label], 0.0))
    kept: dict[str, float] = {}
    for mood, share in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        if not any({mood, other} in OPPOSITES for other in kept):
            kept[mood] = share
    return tuple(kept.items())


def _year(text: str) -> int | None:
    match = re.match(r"\s*(1[0-9]{3}|20[0-9]{2})(?![0-9])", text)
    return int(match[1]) if match else None


def _terms(text: str) -> list[str]:
    """The terms in a list such as `Rock; Pop/Funk`."""
    parts = (_plain(part).strip(" &+") for part in re.split(r"[;,/|\0\n]", text))
    return [
        part
        for part in parts
        if len(part.split()) <= TERM_WORDS
        and len(part) <= TERM_CHARACTERS
        and any(character.isalpha() for character in part)
    ]


def _unique(terms: Iterable[str]) -> tuple[str, ...]:
    """Each term once, whatever its capitals, in order."""
    first: dict[str, str] = {}
    for term in terms:
        first.setdefault(term.casefold(), term)
    return tuple(first.values())


def _text(text: str) -> str:
    return _plain(text)[:TEXT_CHARACTERS].rstrip()


def _plain(text: str) -> str:
    """The text in one line, without control and formatting characters."""
    spaced = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    return " ".join(unicodedata.normalize("NFC", spaced).split())
