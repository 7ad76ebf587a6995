"""Captions without a model: English sentences over facts, chosen by a seed and the track's id.

A track's captions each say another selection of its facts, and together all that is heard; title and composer
are said only where nothing else is known, since a search looks for what is heard.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence

from etude.sources.base import Track
from etude.sources.captions import (
    Made,
    NoCaptions,
    TemplateCaptions,
    caption_fault,
    check_usable,
    usable_captions,
)
from etude.sources.facts import Facts

AT_LEAST, AT_ONCE = 2, 4  # facts in a sentence; one alone would fit half a library
TRIES = 200  # sentences drawn for a track; a single fact has a dozen

# What takes "an": a vowel that is heard as one (not "UK", "Euro", "unison"), consonants that are spelt out
# ("R&B", "MPB") and the figures of "80s" and "18th century".
_AN = re.compile(
    r"(?!(?i:eu|one\b|uni(?!n)|uto)|U[A-Z]+\b)[AEIOUaeiou]|[FHLMNRSX][B-DF-HJ-NP-TV-Zn&]*(?![A-Za-z])|8|1[18](?!\d)"
)

Said = dict[str, str]  # what a sentence is to say, by kind


class Templates:
    """The maker of template captions."""

    def __init__(self, config: TemplateCaptions) -> None:
        self._config = config

    async def make(self, track: Track, facts: Facts, similar: Sequence[Facts] = ()) -> Made:
        """The track's captions; similar tracks change nothing. Raises NoCaptions if too little is known."""
        return Made(captions_of(track.id, facts, self._config), "template", facts.hash)

    async def aclose(self) -> None:
        """Nothing is open."""


def captions_of(track_id: str, facts: Facts, config: TemplateCaptions) -> tuple[str, ...]:
    """`config.per_track` captions, the same for the same seed, track and facts. Raises NoCaptions."""
    check_usable(facts)
    # Seeded by a text: only random() and its kind keep their sequence from one Python to the next.
    draw = random.Random(f"{config.seed}/{track_id}").random
    found: list[str] = []
    kinds = _kinds(facts, draw)
    for sentence in _sentences(kinds, config.per_track, draw) if kinds else ():
        found += usable_captions([sentence], found)[0]
        if len(found) == config.per_track:
            return tuple(found)
    raise NoCaptions(
        f"what is known of it in Latin letters makes {len(found)} different captions, not "
        f"{config.per_track}: give it more tags, or lower captions.per_track"
    )


def _sentences(kinds: dict[str, list[str]], n: int, draw: Callable[[], float]) -> Iterator[str]:
    """Sentences in which the first n say all facts between them; then others, of any selection."""
    order = _shuffled(list(kinds), draw)
    chosen: set[frozenset[str]] = set()
    for i in range(TRIES):
        own = order[i::n] if i < n else []
        others = _shuffled([kind for kind in order if kind not in own], draw)
        fill = AT_LEAST + int(draw() * (AT_ONCE - AT_LEAST + 1))
        selection = [*own, *others[: max(0, fill - len(own))]]
        if frozenset(selection) in chosen and others:  # rather another selection than other words
            selection = [*own, *others[: max(AT_LEAST - len(own), 1 + int(draw() * len(others)))]]
        chosen.add(frozenset(selection))
        yield _sentence({kind: _pick(kinds[kind], draw) for kind in selection}, draw)


def _kinds(facts: Facts, draw: Callable[[], float]) -> dict[str, list[str]]:
    """Each kind of fact in its wordings; where a kind has several facts, each few of them are one kind."""
    kinds: dict[str, list[str]] = {}
    if facts.tempo:
        kinds["tempo"] = [facts.tempo] if facts.tempo != "moderate" else ["moderately paced", "mid-tempo"]
    for i, (mood, _) in enumerate(facts.moods):
        kinds[f"mood {i}"] = [mood]
    if facts.energetic:
        kinds["energy"] = ["energetic", "loud"]
    for i, genre in enumerate(g for g in facts.genres if _fits(g)):
        kinds[f"genre {i}"] = [genre]
    instruments = [name for name in facts.instruments if _fits(name)]
    for start in range(0, len(instruments), AT_ONCE):
        kinds[f"players {start}"] = [_listed(_shuffled(instruments[start : start + AT_ONCE], draw))]
    if facts.voice:
        kinds["voice"] = ["without vocals"] if facts.voice == "no vocals" else [f"with {facts.voice}"]
    if facts.mode:
        article = "an" if facts.mode[0] in "aeiou" else "a"
        named = [f"in {facts.key}"] if facts.key else []
        tonal = ("major", "minor")
        kinds["key"] = [*named, f"in {article} {facts.mode} {'key' if facts.mode in tonal else 'mode'}"]
    if facts.metre:
        kinds["metre"] = [f"in {facts.metre} time"]
    if facts.era:
        kinds["era"] = [f"from {facts.era}"]
    if not kinds and facts.year is not None:
        kinds["era"] = [f"from {facts.year}", f"from the {facts.year // 10 * 10}s"]
    if not facts.audible and _fits(facts.composer):
        kinds["composer"] = [f"by {facts.composer}"]
        if _fits(facts.title):
            kinds["title"] = [f'called "{facts.title}"']
    return kinds


def _sentence(said: Said, draw: Callable[[], float]) -> str:
    """One sentence that says all of this."""
    adjectives = [text for kind, text in said.items() if kind.split()[0] in ("tempo", "mood", "energy")]
    genres = [text for kind, text in said.items() if kind.startswith("genre")]
    players = [text for kind, text in said.items() if kind.startswith("players")]
    ends = [
        text for kind, text in said.items() if kind in ("voice", "key", "metre", "era", "composer", "title")
    ]
    start = " ".join([", ".join(_shuffled(adjectives, draw)), " and ".join(genres)]).strip()
    nouns = ["piece", "track", "tune", "recording"]
    noun = _pick([noun for noun in nouns if not start.lower().endswith(noun)], draw)  # no "soundtrack track"
    sung = any(word in " ".join(players) for word in ("choir", "voice", "vocal"))
    if players and draw() < 0.3:  # those who play come first
        music = f"{start} music".strip()
        frames = ["{} performing {}", "{} can be heard in {}", "{} in {}"]
        body = _pick(frames, draw).format(_listed(players), " ".join([music, *_shuffled(ends, draw)]))
        return f"{_capital(body)}."
    if players:
        joint = _pick(["for", "with", "with" if sung else "played on"], draw)
        ends = [f"{joint} {_listed(players)}", *ends]
    end = " ".join(["", *_shuffled(ends, draw)])
    count, mass = f"{start} {noun}".strip(), f"{start} music".strip()
    one = f"{'an' if _AN.match(count) else 'a'} {count}{end}"
    some = f"{mass}{end}"
    frames = [
        one, one, some, some, f"this is {one}", f"this is {some}", f"a recording of {some}",
        f"one hears {some}", f"an example of {some}", f"here is {one}", f"the sound of {some}",
    ]  # fmt: skip
    return f"{_capital(_pick(frames, draw))}."


def _fits(text: str) -> bool:
    """Whether a term can stand in an English sentence: it is in Latin letters."""
    return bool(text) and not caption_fault(f"{text} {text} {text}")


def _listed(names: Sequence[str]) -> str:
    """`flute, oboe and cello`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _pick(items: Sequence[str], draw: Callable[[], float]) -> str:
    return items[int(draw() * len(items))]


def _shuffled(items: Sequence[str], draw: Callable[[], float]) -> list[str]:
    return sorted(items, key=lambda _: draw())
