"""Text queries from terms in categories: fresh ones each epoch, and sets whose combinations are held out."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from etude.config import Section
from etude.errors import UserError
from etude.teachers.terms import DEFAULT_TERMS, read_terms

Part = Literal["train", "validation", "test"]
_CASES = (str, str.upper, str.lower)
_TRIES = 4  # times the draws that full sets would need, after which what was found has to do


class QueryConfig(Section):
    """Which queries a text student learns from. The seed is its own, so that the held-out queries stay."""

    terms: Path | None = Field(None, description="JSON of categories and their terms; Étude's own if not set")
    categories: tuple[str, ...] = Field((), description="those to draw from; all if empty")
    per_epoch: int = Field(4096, ge=1, description="fresh queries each epoch")
    held_out: float = Field(
        0.1, gt=0, le=0.4, description="share of term combinations for validation, and the same for test"
    )
    evaluated: int = Field(256, ge=2, description="queries in the validation set, and in the test set")
    seed: int = Field(0, ge=0)

    @field_validator("terms")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path and path.expanduser().absolute()


class QuerySampler:
    """Draws queries: some of the categories in any order, a term of each, each term in a case of its own.

    How many categories a query has is drawn evenly, then which and in what order. Raises UserError if the
    terms cannot be used, or are too few to hold some out.
    """

    def __init__(self, config: QueryConfig) -> None:
        self.config = config
        self.terms = read_terms(config.terms, config.categories)
        self._categories = tuple(self.terms.values())
        self._held_out = self._hold_out()

    @property
    def id(self) -> str:
        """`queries-` and a hash of the terms and of all settings."""
        settings = self.config.model_dump(mode="json", exclude={"terms", "categories"})
        digest = hashlib.sha256(json.dumps([self.terms, settings]).encode()).hexdigest()
        return f"queries-{digest[:8]}"

    def training(self, seed: int, epoch: int) -> list[str]:
        """The `per_epoch` queries of an epoch: always the same for the same seed and epoch."""
        generator = np.random.default_rng([self.config.seed, seed, epoch])
        drawn = (terms for terms in self._draws(generator) if part_of(terms, self.config) == "train")
        return [_worded(next(drawn), generator) for _ in range(self.config.per_epoch)]

    def held_out(self, part: Literal["validation", "test"]) -> tuple[str, ...]:
        """The fixed queries of a set, no two of the same terms: `evaluated`, or as many as were found."""
        return self._held_out[part]

    def _hold_out(self) -> dict[Part, tuple[str, ...]]:
        """The queries of both sets by the combination that each stands for, drawn until both are full."""
        config = self.config
        generator = np.random.default_rng([config.seed])
        found: dict[Part, dict[str, str]] = {"train": {}, "validation": {}, "test": {}}
        for tries, terms in enumerate(self._draws(generator)):
            queries, key = found[part_of(terms, config)], combination(terms)
            if key not in queries and len(queries) < config.evaluated:
                queries[key] = _worded(terms, generator)
            full = all(len(queries) == config.evaluated for queries in found.values())
            if full or tries > _TRIES * config.evaluated / config.held_out:
                break
        for part, queries in found.items():
            if len(queries) < 2:
                raise UserError(
                    f"{config.terms or DEFAULT_TERMS} with the categories {', '.join(self.terms)} and "
                    f"queries.held_out {config.held_out:g} has {len(queries)} of the 2 queries that the "
                    f"{part} set needs at least: add terms or categories, or change queries.held_out"
                )
        return {part: tuple(queries.values()) for part, queries in found.items()}

    def _draws(self, generator: np.random.Generator) -> Iterator[tuple[str, ...]]:
        """The terms of one query after another, whichever part they belong to."""
        n = len(self._categories)
        while True:
            order = generator.permutation(n)[: generator.integers(1, n + 1)]
            chosen = [self._categories[category] for category in order]
            yield tuple(terms[generator.integers(len(terms))] for terms in chosen)


def _worded(terms: Sequence[str], generator: np.random.Generator) -> str:
    """A query's text: every term as it is, in capitals or in small letters."""
    cases = generator.integers(len(_CASES), size=len(terms))
    return " ".join(_CASES[case](term) for case, term in zip(cases, terms, strict=True))


def combination(terms: Sequence[str]) -> str:
    """What queries of the same terms share, whatever their order or case.

    It goes by words, so that the terms `pop` and `piano` are no other combination than a term `pop piano`.
    """
    return " ".join(sorted({word for term in terms for word in term.casefold().split()}))


def part_of(terms: Sequence[str], config: QueryConfig) -> Part:
    """The set that a combination belongs to, by a hash: it depends on nothing but its words and the seed."""
    digest = hashlib.sha256(f"{config.seed}\n{combination(terms)}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < config.held_out:
        return "test"
    return "validation" if position < 2 * config.held_out else "train"
