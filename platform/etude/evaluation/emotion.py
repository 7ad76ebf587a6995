"""How much better an emotion model is than the best constant, and how sure that is.

Seed 5 asks for a loss below 0.1, which an untrained constant meets in all five models
(facts/projection_and_emotion.md, b). Skill is 0 for the constant that fits the training pieces best, and 1
for a model without error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from etude.evaluation.figures import Line, shown

RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Hits:
    """Which examples were answered rightly [n]: by a model, and by the best constant."""

    model: NDArray[np.bool_]
    constant: NDArray[np.bool_]
    chance: float


@dataclass(frozen=True)
class Share:
    """How often an answer was right."""

    value: float
    constant: float  # the same for the classes that training showed most
    chance: float  # the same for classes drawn at random
    more_low: float  # 95 % interval over pieces of what the value is above the constant's
    more_high: float


@dataclass(frozen=True)
class EmotionFigures:
    """Skill with its 95 % interval over pieces, and figures of the kind that one model has."""

    skill: float
    skill_low: float
    skill_high: float
    loss: float
    constant_loss: float
    n_pieces: float
    n_examples: float
    shares: Mapping[str, Share] = field(default_factory=dict)  # of right answers, by question
    skills: Mapping[str, float] = field(default_factory=dict)  # of single numbers of the output

    @property
    def score(self) -> float:
        return self.skill

    def as_dict(self, prefix: str) -> dict[str, float]:
        names = ("skill", "skill_low", "skill_high", "loss", "constant_loss", "n_pieces", "n_examples")
        found = {name: float(getattr(self, name)) for name in names}
        for name, share in self.shares.items():
            found |= {name: share.value, f"{name}_constant": share.constant, f"{name}_chance": share.chance}
        found |= {f"skill_of_{name}": value for name, value in self.skills.items()}
        return {f"{prefix}/{name}": value for name, value in found.items()}

    def lines(self, things: str) -> list[Line]:
        interval = f"95 % interval {shown(self.skill_low)} to {shown(self.skill_high)}; best constant 0"
        lines = [Line("skill", shown(self.skill), interval)]
        for name, share in self.shares.items():
            beside = (
                f"best constant {100 * share.constant:.1f} %, {100 * share.more_low:+.1f} to "
                f"{100 * share.more_high:+.1f} above it; chance {100 * share.chance:.1f} %"
            )
            lines.append(Line(name.replace("_", " "), f"{100 * share.value:.1f} %", beside))
        best = sorted(self.skills.items(), key=lambda item: -item[1])
        for name, value in best:
            beside = "0 if another's would do as well" if name == "emotion" else "best constant 0"
            lines.append(Line(f"skill of {name}", shown(value), beside))
        lines.append(Line("loss", shown(self.loss, 4), f"best constant {shown(self.constant_loss, 4)}"))
        return lines

    def held_out(self, things: str) -> str:
        return f"{self.n_pieces:.0f} held-out pieces ({self.n_examples:.0f} examples)"


def figures(
    loss_N: NDArray[np.floating],
    constant_N: NDArray[np.floating],
    piece_N: NDArray[np.integer],
    *,
    shares: Mapping[str, Hits] | None = None,
    skills: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]] | None = None,
) -> EmotionFigures:
    """Compare a model's loss of every example [n] with that of the best constant [n]; a piece counts as one.

    `shares` holds hits, and `skills` the same two losses [n], of single questions.
    """
    loss_P, constant_P = (per_piece(values, piece_N) for values in (loss_N, constant_N))
    low, high = interval(loss_P, constant_P)
    return EmotionFigures(
        skill=skill(loss_P, constant_P),
        skill_low=low,
        skill_high=high,
        loss=float(loss_P.mean()),
        constant_loss=float(constant_P.mean()),
        n_pieces=float(len(loss_P)),
        n_examples=float(len(loss_N)),
        shares={name: _share(hits, piece_N) for name, hits in (shares or {}).items()},
        skills={
            name: skill(per_piece(loss, piece_N), per_piece(constant, piece_N))
            for name, (loss, constant) in (skills or {}).items()
        },
    )


def skill(loss_P: NDArray[np.floating], constant_P: NDArray[np.floating]) -> float:
    """1 minus the loss over the constant's; nan where the constant has none."""
    most = float(constant_P.mean())
    return 1.0 - float(loss_P.mean()) / most if most > 1e-12 else float("nan")


def interval(
    loss_P: NDArray[np.floating], constant_P: NDArray[np.floating], share: float = 0.95
) -> tuple[float, float]:
    """Where the skill lies in so many of 2,000 draws of the pieces with replacement (Efron's bootstrap)."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(loss_P), size=(RESAMPLES, len(loss_P)))
    most = constant_P[drawn].mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        skills = 1.0 - loss_P[drawn].mean(axis=1) / most
    low, high = np.quantile(skills, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def per_piece(values_N: NDArray[np.generic], piece_N: NDArray[np.integer]) -> NDArray[np.float64]:
    """The mean of each piece's examples [p], in the order of the pieces' numbers."""
    _, number = np.unique(piece_N, return_inverse=True)
    return np.asarray(np.bincount(number, weights=values_N.astype(np.float64)) / np.bincount(number))


def _share(hits: Hits, piece_N: NDArray[np.integer]) -> Share:
    value_P, constant_P = (per_piece(values, piece_N) for values in (hits.model, hits.constant))
    drawn = np.random.default_rng(0).integers(len(value_P), size=(RESAMPLES, len(value_P)))
    low, high = np.quantile((value_P - constant_P)[drawn].mean(axis=1), [0.025, 0.975])
    return Share(float(value_P.mean()), float(constant_P.mean()), hits.chance, float(low), float(high))


def top(scores_NC: NDArray[np.floating], answer_N: NDArray[np.integer], k: int) -> NDArray[np.bool_]:
    """Whether the answer [n] is among the k highest scores of its row [n, classes]; ties by number."""
    order = np.argsort(-scores_NC, axis=1, kind="stable")[:, :k]
    return np.asarray((order == answer_N[:, None]).any(axis=1))
