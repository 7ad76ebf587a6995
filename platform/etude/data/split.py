"""Training, validation and test sets that share no piece and no work (album, mass, quartet)."""

import hashlib
from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from etude.config import Section
from etude.errors import UserError
from etude.sources.base import Track

SplitName = Literal["train", "validation", "test"]


class SplitConfig(Section):
    """How much is held out. The seed is its own, so that another training seed keeps the same test set."""

    validation: float = Field(0.12, gt=0, lt=0.5, description="share of works for choosing a student")
    test: float = Field(0.15, gt=0, lt=0.5, description="share of works that no choice ever sees")
    seed: int = 0

    @model_validator(mode="after")
    def _leave_some(self) -> "SplitConfig":
        if self.validation + self.test >= 0.8:
            raise ValueError("validation and test together leave too little for training")
        return self


def split(tracks: Iterable[Track], config: SplitConfig) -> dict[SplitName, list[Track]]:
    """Assign whole works by a hash of their name, so that a growing library moves no work.

    Only where a set would be empty, the work whose hash comes nearest is moved into it. Raises UserError
    below three works.
    """
    by_work: dict[str, list[Track]] = {}
    for track in tracks:
        by_work.setdefault(track.work, []).append(track)
    if len(by_work) < 3:
        raise UserError(
            f"{len(by_work)} usable works (albums, or tracks without an album) cannot be split into "
            "training, validation and test: at least 3 are needed; add music or album tags"
        )
    ranked = sorted(by_work, key=lambda work: _position(work, config.seed))
    held_out = config.validation + config.test
    n_test = sum(_position(work, config.seed) < config.test for work in ranked)
    n_held = sum(_position(work, config.seed) < held_out for work in ranked)
    n_test = min(max(n_test, 1), len(ranked) - 2)
    n_held = min(max(n_held, n_test + 1), len(ranked) - 1)
    works: dict[SplitName, list[str]] = {
        "train": ranked[n_held:],
        "validation": ranked[n_test:n_held],
        "test": ranked[:n_test],
    }
    return {
        name: sorted((track for work in chosen for track in by_work[work]), key=lambda track: track.id)
        for name, chosen in works.items()
    }


def _position(work: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the work and the seed."""
    digest = hashlib.sha256(f"{seed}\n{work}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
