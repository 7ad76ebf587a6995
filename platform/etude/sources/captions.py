"""Captions of tracks: who makes them, with which settings, and what counts as one.

`caption_templates` puts sentences together from facts, `caption_client` asks a language model; which of them
made a caption is part of where `etude.data.captions` keeps it. Others came with the music, and lie with the
track in the catalogue.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import Field, model_validator

from etude.config import Secret, Section
from etude.errors import UserError
from etude.sources.base import Track
from etude.sources.facts import Facts
from etude.sources.http import BaseUrl, check_sendable
from etude.sources.listing import digest

# Fewer words fit half a library; 40 are about 55 tokens, and CLAP reads 77 with their ends.
MIN_WORDS, MAX_WORDS = 3, 40
LATIN_SHARE = 0.9  # of a caption's letters
MAX_CAPTIONS = 10
KEY_VARIABLE = "OPENAI_API_KEY"
OPENAI_URL = "https://api.openai.com/v1"
# A model of which five captions cost about 0.0002 US dollars, and its prices in November 2026.
MODEL, INPUT_USD, OUTPUT_USD = "gpt-4o-mini", 0.15, 0.60
TEMPLATE_RULE = "2"  # goes into the captions' place: raise it when the templates say something else
PROMPT_RULE = "1"  # likewise, when the prompt does


class TemplateCaptions(Section):
    """English sentences put together from what is known; free, and the same every time."""

    name: Literal["template"] = "template"
    per_track: int = Field(5, ge=1, le=MAX_CAPTIONS, description="captions a track")
    seed: int = Field(0, description="chooses facts, their order and the sentences")

    @property
    def id(self) -> str:
        """`template-` and a hash of all that shapes the captions."""
        return f"template-{digest(TEMPLATE_RULE, str(self.per_track), str(self.seed))}"


class OpenAICaptions(Section):
    """Captions by a language model of OpenAI's, or of a server that speaks the same protocol."""

    name: Literal["openai"] = "openai"
    base_url: BaseUrl | None = Field(
        None, description="a server such as http://127.0.0.1:8080/v1; none: OpenAI's"
    )
    model: str = Field(MODEL, min_length=1)
    key: Secret | None = Field(
        None, description=f"the API key; none: {KEY_VARIABLE} of the environment or .env"
    )
    temperature: float | None = Field(0.7, ge=0, le=2, description="none: the server's own")
    per_track: int = Field(5, ge=1, le=MAX_CAPTIONS, description="captions a track")
    similar: int = Field(3, ge=0, le=20, description="similar tracks that the model is told of")
    max_tokens: int = Field(1000, ge=64, description="of one answer: bounds what it can cost")
    concurrency: int = Field(4, ge=1, description="requests under way at a time")
    requests_per_minute: float | None = Field(None, gt=0, description="none: as many as come")
    timeout_s: float = Field(60.0, gt=0, description="seconds for one answer")
    attempts: int = Field(5, ge=1, description="requests for a track before it goes to quarantine")
    budget_usd: float = Field(
        0.0, ge=0, description="US dollars that these captions may cost, all runs together"
    )
    input_usd: float | None = Field(None, ge=0, description="US dollars per million tokens sent")
    output_usd: float | None = Field(None, ge=0, description="US dollars per million tokens answered")

    @model_validator(mode="after")
    def _priced(self) -> "OpenAICaptions":
        known = self.base_url is None and self.model == MODEL
        if not known and (self.input_usd is None or self.output_usd is None):
            raise ValueError(
                "the prices of this model are not known: set input_usd and output_usd, in US dollars per "
                "million tokens (both 0 for a server of your own)"
            )
        return self

    @property
    def id(self) -> str:
        """`openai-` and a hash of all that shapes the captions: no key, and nothing of cost or speed."""
        shaping = (self.base_url or OPENAI_URL, self.model, self.temperature, self.per_track, self.similar)
        return f"openai-{digest(PROMPT_RULE, *map(repr, shaping))}"

    @property
    def api_key(self) -> str:
        """The key of the settings, else of the environment; empty if there is neither."""
        given = self.key.get_secret_value() if self.key else os.environ.get(KEY_VARIABLE, "")
        return given.strip()

    def check_key(self) -> None:
        """Raise UserError if there is no key for OpenAI, or one that cannot be sent."""
        where = f"{KEY_VARIABLE} in the environment or in .env, or captions.key"
        if not self.api_key and self.base_url is None:
            raise UserError(f"there is no key for OpenAI: set {where}")
        check_sendable(self.api_key, f"the API key ({where})")
        if not self.api_key.isascii():
            raise UserError(f"the API key ({where}) holds a letter that no key has: copy it again")

    def usd(self, tokens_in: int, tokens_out: int) -> float:
        """What so many tokens cost."""
        input_usd = INPUT_USD if self.input_usd is None else self.input_usd
        output_usd = OUTPUT_USD if self.output_usd is None else self.output_usd
        return (tokens_in * input_usd + tokens_out * output_usd) / 1e6


class OwnCaptions(Section):
    """The captions that came with the music, as long as they are and in any script."""

    name: Literal["own"] = "own"

    @property
    def id(self) -> str:
        """`own`: what they say is in the hash of the data."""
        return "own"


CaptionConfig = Annotated[TemplateCaptions | OpenAICaptions | OwnCaptions, Field(discriminator="name")]


@dataclass(frozen=True)
class Made:
    """The captions of one track and what they came from."""

    captions: tuple[str, ...]
    maker: str  # "template", or the model's name
    prompt: str  # a hash of what the maker was given
    tokens_in: int = 0
    tokens_out: int = 0


class NoCaptions(ValueError):  # noqa: N818
    """Why a track gets no captions: it goes to quarantine with this as its reason."""


def check_usable(facts: Facts) -> None:
    """Raise NoCaptions if too little is known of a track for any maker."""
    if not facts.usable:
        raise NoCaptions(
            "nothing is known of it but a title: give it tags, such as genre, key, tempo or instruments"
        )


class CaptionMaker(Protocol):
    """Whoever makes captions."""

    async def make(self, track: Track, facts: Facts, similar: Sequence[Facts]) -> Made:
        """Captions, as many as the settings say and all valid.

        Raises NoCaptions for this track, UserError if going on makes no sense.
        """
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...


def usable_captions(texts: Iterable[object], known: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Those of the texts that are captions and differ from `known` and each other; and why others are none.

    Spaces at the ends and runs of spaces go. Capitals and punctuation make no difference between captions.
    """
    seen = {_bare(caption) for caption in known}
    good: list[str] = []
    faults: list[str] = []
    for text in texts:
        caption = re.sub(r" +", " ", text).strip() if isinstance(text, str) else ""
        fault = caption_fault(caption) if isinstance(text, str) else "it is no text"
        if not fault and _bare(caption) in seen:
            fault = "it says the same as another"
        if fault:
            faults.append(fault)
            continue
        seen.add(_bare(caption))
        good.append(caption)
    return good, faults


def own_captions(texts: Iterable[object]) -> tuple[str, ...]:
    """Those of the texts that came with music that say something, each once and in one line.

    Case and spaces make no difference between captions, punctuation does: in some scripts, vowels are marks.
    """
    found: dict[str, str] = {}
    for text in texts:
        caption = _one_line(text) if isinstance(text, str) else ""
        if any(character.isalnum() for character in caption):
            found.setdefault(caption.casefold(), caption)
    return tuple(found.values())


def caption_fault(caption: str) -> str:
    """Why a text is no caption; empty if it is one: 3 to 40 words in one line, in Latin letters.

    Whether it is English cannot be told without a model: makers are asked for it. What is refused is another
    script; one letter in ten may be of any, so that a name can stand there.
    """
    if any(unicodedata.category(c)[0] == "C" or c in "\u2028\u2029" for c in caption):
        return "it holds a line break or another control character"
    n_words = sum(any(c.isalnum() for c in word) for word in caption.split())
    if not MIN_WORDS <= n_words <= MAX_WORDS:
        return f"it has {n_words} words, not {MIN_WORDS} to {MAX_WORDS}"
    letters = [c for c in caption if c.isalpha()]
    latin = sum(unicodedata.name(c, "").startswith(("LATIN", "FULLWIDTH LATIN")) for c in letters)
    if latin < LATIN_SHARE * len(letters) or not letters:
        return "it is not English: its letters are not Latin"
    return ""


def _one_line(text: str) -> str:
    """A text without control characters, lone surrogates and runs of spaces."""
    if not text.isprintable():  # a line break is the commonest of what is not
        text = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)
    return " ".join(text.split())


def _bare(caption: str) -> str:
    """The words of a caption without capitals and punctuation."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", caption).casefold()))
