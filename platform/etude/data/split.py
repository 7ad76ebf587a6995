"""Training, validation and test sets that share no piece and no work (album, mass, quartet, clip)."""

import hashlib
from collections.abc import Collection, Iterable
from typing import Literal

from pydantic import Field, model_validator

from etude.config import Section
from etude.errors import UserError
from etude.sources.base import Track

SplitName = Literal["train", "validation", "test"]


class SplitConfig(Section):
    """How much is held out. The seed is its own, so that another training seed keeps the same test set."""

    validation: float = Field(0.12, gt=0, lt=0.5, description="share of works for choosing a student")
    test: float = Field(
        0.15, gt=0, lt=0.5,
        description="share of works that no choice ever sees; it has no say where the source holds works out",
    )  # fmt: skip
    seed: int = 0

    @model_validator(mode="after")
    def _leave_some(self) -> "SplitConfig":
        if self.validation + self.test >= 0.8:
            raise ValueError("validation and test together leave too little for training")
        return self


def split(
    tracks: Iterable[Track], config: SplitConfig, held_out: Collection[str] = ()
) -> dict[SplitName, list[Track]]:
    """Assign whole works by a hash of their name, so that a growing library moves no work.

    Where a track says that it is held out, or there are works in `held_out`, exactly those works are the test
    set, and the hash divides the others. Only where a set would be empty, the work whose hash comes nearest
    is moved into it. Raises UserError if there are too few works for three sets.
    """
    by_work: dict[str, list[Track]] = {}
    for track in tracks:
        by_work.setdefault(track.work, []).append(track)
    apart = {work for work, members in by_work.items() if any(track.held_out for track in members)}
    apart.update(held_out)
    named = by_work.keys() & apart
    ranked = sorted(by_work.keys() - apart, key=lambda work: _position(work, config.seed))
    if apart:
        _check_apart(len(named), len(ranked))
    elif len(ranked) < 3:
        raise UserError(
            f"{len(ranked)} usable works (albums, or tracks without an album) cannot be split into "
            "training, validation and test: at least 3 are needed; add music or album tags"
        )
    share_test = 0.0 if apart else config.test
    share_held = share_test + config.validation
    n_test = sum(_position(work, config.seed) < share_test for work in ranked)
    n_held = sum(_position(work, config.seed) < share_held for work in ranked)
    n_test = 0 if apart else min(max(n_test, 1), len(ranked) - 2)
    n_held = min(max(n_held, n_test + 1), len(ranked) - 1)
    works: dict[SplitName, Iterable[str]] = {
        "train": ranked[n_held:],
        "validation": ranked[n_test:n_held],
        "test": named or ranked[:n_test],
    }
    return {
        name: sorted((track for work in chosen for track in by_work[work]), key=lambda track: track.id)
        for name, chosen in works.items()
    }


def _check_apart(n_named: int, n_others: int) -> None:
    """Raise UserError if a source that holds tracks out leaves a set empty."""
    if not n_named:
        raise UserError(
            "none of the tracks that the source holds out for testing is usable: prepare them, or see why "
            "they are in quarantine"
        )
    if n_others < 2:
        raise UserError(
            f"the source holds {n_named} usable works (clips, albums, or tracks with neither) out for "
            f"testing and leaves {n_others}: at least 2 others are needed, for training and validation"
        )


def _position(work: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the work and the seed."""
    digest = hashlib.sha256(f"{seed}\n{work}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
