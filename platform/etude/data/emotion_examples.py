"""Inputs and targets of the five emotion models, made of what is known of pieces.

Melody, harmony, dynamics and groove are told an emotion and say what music sounds like that was labelled so;
the recogniser hears music and says the emotion. No label, and nothing made of one, is among its inputs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from etude.config import Section
from etude.data.emotion import EmotionRow
from etude.data.sampling import epoch_order
from etude.emotion.chords import CHORDS
from etude.emotion.models import Model
from etude.emotion.thesaurus import CATEGORIES, N_NODES, thesaurus
from etude.emotion.vad import EMBEDDING, embed
from etude.errors import UserError

UNSEEN = 1e-3  # share that the best constant leaves to pitches and chords that training never showed
MEMORY = 0.5  # of a chord that lies one further back in the history
QUARTER = EMBEDDING // 4
CATEGORY_NODES = N_NODES // len(CATEGORIES)


class AugmentationConfig(Section):
    """Examples of related emotions, beside those that were labelled (seed 5's node-aware training)."""

    related: float = Field(
        0.3, ge=0, le=1, description="share of examples that are moved towards a related node"
    )
    reach: float = Field(0.5, ge=0, le=1, description="how far they are moved: 1 is as far as that node lies")


@dataclass(frozen=True)
class EmotionBatch:
    """Examples of one model."""

    inputs: Tensor  # [b, in]
    targets: Tensor  # [b, out]
    node: Tensor  # [b] int64
    nodes: Tensor  # [b, 216]: how much an example is of each, its own and those related to it; sums to 1
    weight: Tensor  # [b]

    def to(self, device: torch.device) -> "EmotionBatch":
        return EmotionBatch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class Examples:
    """All examples of one model in one set; those of a piece stand together."""

    model: Model
    features: NDArray[np.float32]  # [n, k]: what else than the emotion goes in; k is 0 where nothing does
    targets: NDArray[np.float32]  # [n, out]
    vad: NDArray[np.float32]  # [n, 4]
    node: NDArray[np.int64]  # [n]
    piece: NDArray[np.int64]  # [n]: a number that the examples of a piece share
    labels: frozenset[str]  # who labelled them

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def width(self) -> int:
        """Numbers that go into the model."""
        return len(self.inputs(self.vad[:1], np.arange(1))[0])

    def first(self, n: int) -> "Examples":
        """The first n of them."""
        arrays = {name: getattr(self, name)[:n] for name in ("features", "targets", "vad", "node", "piece")}
        return replace(self, **arrays)

    def misled(self) -> "Examples":
        """The same with every piece's emotion being that of another."""
        _, first, number = np.unique(self.piece, return_index=True, return_inverse=True)
        vad = np.roll(self.vad[first], 1, axis=0)[number]
        return replace(self, vad=vad)

    def inputs(self, vad_N4: NDArray[np.float32], chosen: NDArray[np.integer]) -> NDArray[np.float32]:
        """What the model is given [n, in] for the chosen examples, were the emotion this."""
        return inputs_of(self.model, vad_N4, self.features[chosen])

    def batch(self, chosen: NDArray[np.integer]) -> EmotionBatch:
        """The chosen examples as they were labelled."""
        nodes = np.eye(N_NODES, dtype=np.float32)[self.node[chosen]]
        return self._batch(chosen, self.vad[chosen], nodes, np.ones(len(chosen), dtype=np.float32))

    def moved(
        self, chosen: NDArray[np.integer], config: AugmentationConfig, generator: np.random.Generator
    ) -> EmotionBatch:
        """The chosen examples, some of them moved towards a node that is related to their own.

        Which one is drawn by its closeness, and what was moved counts less the further it went: half at the
        distance at which two nodes lie that are neighbours in the median. What the recogniser hears cannot be
        moved: to it, every example is a share of its related nodes, by their closeness.
        """
        vad, weight = self.vad[chosen].copy(), np.ones(len(chosen), dtype=np.float32)
        nodes = np.eye(N_NODES, dtype=np.float32)[self.node[chosen]]
        if self.model == "recognizer":
            nodes = (1 - config.related) * nodes + config.related * _related_nodes()[self.node[chosen]]
        else:
            places = thesaurus().vad_N4
            for place in np.flatnonzero(generator.random(len(chosen)) < config.related):
                own = int(self.node[chosen[place]])
                ids, shares = zip(*thesaurus().related(own), strict=True)
                other = int(generator.choice(ids, p=shares))
                step = config.reach * generator.random() * (places[other] - places[own])
                moved = np.clip(vad[place] + step, (-1, 0, 0, 0), 1).astype(np.float32)
                far = thesaurus().distance(vad[place][None], moved[None])[0, 0]
                vad[place], weight[place] = moved, 2 ** -(far / NEIGHBOURS_APART)
        return self._batch(chosen, vad, nodes, weight)

    def _batch(
        self,
        chosen: NDArray[np.integer],
        vad_N4: NDArray[np.float32],
        nodes: NDArray[np.float32],
        weight_N: NDArray[np.float32],
    ) -> EmotionBatch:
        inputs = self.inputs(vad_N4, chosen)
        arrays = (inputs, self.targets[chosen], self.node[chosen], nodes.astype(np.float32), weight_N)
        return EmotionBatch(*(torch.from_numpy(array) for array in arrays))


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Examples to be judged by, with what the best constant of the training pieces says of them."""

    examples: Examples
    constant: NDArray[np.float32]  # [out]
    frequency: NDArray[np.float64]  # [216]: how often each node was a label

    @classmethod
    def beside(cls, examples: Examples, stream: "EmotionStream") -> "HeldOut":
        """A held-out set, and what there was to learn from."""
        constant, _ = stream.target_statistics()
        if examples.model in ("melody", "harmony"):
            constant = (1 - UNSEEN) * constant + np.float32(UNSEEN / len(constant))
        node = stream.examples.node
        frequency = np.bincount(node, weights=stream.weight(), minlength=N_NODES).astype(np.float64)
        return cls(examples, constant.astype(np.float32), frequency)


@cache
def _related_nodes() -> NDArray[np.float32]:
    """[216, 216]: of every node the shares of those related to it."""
    shares = np.zeros((N_NODES, N_NODES), dtype=np.float32)
    for node in thesaurus().nodes:
        for other, share in thesaurus().related(node.id):
            shares[node.id, other] = share
    return shares


NEIGHBOURS_APART = 0.09  # facts/projection_and_emotion.md, b: the median distance to the nearest node


def inputs_of(
    model: Model, vad_N4: NDArray[np.floating], features_NK: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What a model is given [n, in]: the recogniser features alone, the others the emotion first.

    `features_NK` is the 128 audio features of the recogniser, the history of chords [n, 64] of harmony, and
    [n, 0] for the others. Dynamics takes the quarters of the embedding that hold arousal and intensity.
    """
    if model == "recognizer":
        return features_NK
    emotion = embed(vad_N4)
    if model == "dynamics":
        emotion = np.concatenate([emotion[:, QUARTER : 2 * QUARTER], emotion[:, 3 * QUARTER :]], axis=1)
    return np.concatenate([emotion, features_NK], axis=1).astype(np.float32)


def history_of(chords: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float32]:
    """What harmony is told of the chords so far [64]: each half as much as the one after it; sum 1, or 0."""
    history = np.zeros(len(CHORDS), dtype=np.float32)
    for chord in chords:
        history *= MEMORY
        history[chord] += 1
    return history / history.sum() if len(chords) else history


def examples_of(model: Model, rows: Sequence[EmotionRow]) -> Examples:
    """The examples of a model. Raises UserError if none of the pieces has what it needs."""
    found = [(row, features, targets) for row in rows for features, targets in _MAKERS[model](row)]
    if not found:
        raise UserError(
            f"none of the {len(rows)} pieces in one of the three sets has what {model} learns from "
            f"({_NEEDS[model]}): prepare others"
        )
    number = {row.track_id: index for index, row in enumerate(rows)}
    return Examples(
        model,
        features=np.stack([features for _, features, _ in found]).astype(np.float32),
        targets=np.stack([targets for *_, targets in found]).astype(np.float32),
        vad=np.array([row.vad for row, *_ in found], dtype=np.float32),
        node=np.array([row.node for row, *_ in found], dtype=np.int64),
        piece=np.array([number[row.track_id] for row, *_ in found], dtype=np.int64),
        labels=frozenset(row.label_of for row, *_ in found),
    )


Made = Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]
_NONE = np.zeros(0, dtype=np.float32)


def _recognizer(row: EmotionRow) -> Made:
    target = embed(np.array([row.vad]))[0]
    for window in row.audio:
        yield window, target


def _harmony(row: EmotionRow) -> Made:
    for place, chord in enumerate(row.chords):
        yield history_of(row.chords[:place]), np.eye(len(CHORDS), dtype=np.float32)[chord]


def _whole(name: Literal["melody", "expression", "groove"]) -> Callable[[EmotionRow], Made]:
    def made(row: EmotionRow) -> Made:
        if len(target := getattr(row, name)):
            yield _NONE, target

    return made


_MAKERS: dict[Model, Callable[[EmotionRow], Made]] = {
    "recognizer": _recognizer,
    "melody": _whole("melody"),
    "harmony": _harmony,
    "dynamics": _whole("expression"),
    "groove": _whole("groove"),
}
_NEEDS: dict[Model, str] = {
    "recognizer": "audio",
    "melody": "notes",
    "harmony": "chords",
    "dynamics": "notes",
    "groove": "notes in a metre",
}


class EmotionStream:
    """Examples to learn from: a `TrainingData` of `etude.systems.base`.

    Every piece gives as many examples an epoch as every other, so that a long one counts no more; where it
    has fewer, they come again, moved otherwise.
    """

    def __init__(self, examples: Examples, augmentation: AugmentationConfig, per_piece: int) -> None:
        self.examples = examples
        self._augmentation = augmentation
        _, self._starts, self._counts = np.unique(examples.piece, return_index=True, return_counts=True)
        self._per_piece = per_piece

    def steps(self, batch_size: int) -> int:
        """Batches an epoch."""
        return max(1, len(self._counts) * self._per_piece // batch_size)

    def batches(
        self, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[EmotionBatch]:
        """This rank's share of every global batch of an epoch; what does not fill one is left out.

        Raises UserError if the workers cannot share a batch evenly.
        """
        if batch_size % world_size:
            raise UserError(
                f"a batch of {batch_size} examples cannot be shared by {world_size} workers: choose a "
                "training.batch_size that is a multiple of workers.workers"
            )
        order = epoch_order(self._counts.tolist(), seed, epoch, self._per_piece)
        chosen = np.array([self._starts[piece] + item for piece, item in order])
        if len(chosen) < batch_size:
            chosen = np.resize(chosen, batch_size)
        for step in range(len(chosen) // batch_size):
            generator = np.random.default_rng([seed, epoch, step])
            batch = self.examples.moved(
                chosen[step * batch_size : (step + 1) * batch_size], self._augmentation, generator
            )
            parts = (getattr(batch, name)[rank::world_size] for name in batch.__dataclass_fields__)
            yield EmotionBatch(*parts)

    def target_statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean [out] and standard deviation [out] of the targets, every piece as one."""
        weight = self.weight()
        mean = weight @ self.examples.targets
        spread = np.sqrt(weight @ (self.examples.targets - mean) ** 2)
        return mean.astype(np.float32), spread.astype(np.float32)

    def input_statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same of the inputs [in]."""
        inputs = self.examples.inputs(self.examples.vad, np.arange(len(self.examples)))
        weight = self.weight()
        mean = weight @ inputs
        return mean.astype(np.float32), np.sqrt(weight @ (inputs - mean) ** 2).astype(np.float32)

    def weight(self) -> NDArray[np.float64]:
        """What each example counts [n] where every piece counts the same; sum 1."""
        weight = np.repeat(1.0 / self._counts, self._counts)
        return np.asarray(weight / weight.sum())
