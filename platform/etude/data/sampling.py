"""Batches as a pure function of (seed, epoch, step, world size).

The global order of segments does not depend on the number of workers: each takes every n-th item of the
same global batch. A resumed run asks for the same epoch and step and sees the same segments.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from etude.config import Section
from etude.data.batches import Dataset
from etude.errors import UserError


class SamplingConfig(Section):
    """Which segments an epoch draws, and what of them is compared with the teacher."""

    strategy: Literal["segments", "average", "both"] = Field(
        "segments",
        description="segments: each on its own; average: the mean of a track's segments; both together",
    )
    segments_per_track: int = Field(2, ge=1, description="segments drawn from every track each epoch")


Collate = Callable[[Sequence[tuple[int, int]], tuple[int, ...]], Any]


class TrainingSegments:
    """Segments of a split in the order of an epoch: a `TrainingData` of `etude.systems.base`.

    With `segments` a batch holds `batch_size` segments, as a rule of as many tracks. With `average` and
    `both` it holds whole groups, the segments drawn of `batch_size // segments_per_track` tracks: a track
    that has fewer gives those it has, once, and nothing is padded.
    """

    def __init__(self, dataset: Dataset, sampling: SamplingConfig, collate: Collate | None = None) -> None:
        """`collate` makes a batch of (track, segment) pairs and a key; without one, a stored `Batch`."""
        self.dataset = dataset
        self.sampling = sampling
        self._collate = collate or (lambda items, key: dataset.batch(items))

    def steps(self, batch_size: int) -> int:
        """How many batches an epoch has. Raises UserError if a batch cannot hold one track's segments."""
        if self.sampling.strategy == "segments":
            return max(1, len(self.dataset) * self.sampling.segments_per_track // batch_size)
        return max(1, len(self.dataset) // self._tracks_at_once(batch_size))

    def batches(
        self, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[Any]:
        """This rank's share of every global batch of an epoch.

        What does not fill a global batch is left out, unless it would be everything. Raises UserError if
        the workers cannot share a batch evenly.
        """
        for step, groups in enumerate(self._groups(batch_size, seed, epoch)):
            if len(groups) % world_size:
                raise UserError(
                    f"a batch of {len(groups)} tracks cannot be shared by {world_size} workers: choose "
                    "training.batch_size and sampling.segments_per_track so that it can"
                )
            items = [item for group in groups[rank::world_size] for item in group]
            yield self._collate(items, (seed, epoch, step, rank))

    def target_statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean [dim] and standard deviation [dim] of the segments' targets."""
        return self.dataset.target_statistics()

    def _groups(self, batch_size: int, seed: int, epoch: int) -> Iterator[list[list[tuple[int, int]]]]:
        """Every global batch as the groups of items that must stay together."""
        counts = [len(row.segment_targets) for row in self.dataset]
        if self.sampling.strategy == "segments":
            at_once = batch_size
            groups = [[item] for item in epoch_order(counts, seed, epoch, self._per_track)]
        else:
            at_once = self._tracks_at_once(batch_size)
            groups = epoch_groups(counts, seed, epoch, self._per_track)
        if len(groups) < at_once:
            groups = (groups * -(-at_once // len(groups)))[:at_once]
        for start in range(0, len(groups) - at_once + 1, at_once):
            yield groups[start : start + at_once]

    @property
    def _per_track(self) -> int:
        return self.sampling.segments_per_track

    def _tracks_at_once(self, batch_size: int) -> int:
        if batch_size < self._per_track:
            raise UserError(
                f"a batch of {batch_size} segments cannot hold the {self._per_track} of one track: raise "
                "training.batch_size or lower sampling.segments_per_track"
            )
        return batch_size // self._per_track


def epoch_order(counts: Sequence[int], seed: int, epoch: int, per_track: int) -> list[tuple[int, int]]:
    """The (track, item) pairs of an epoch, where track i has `counts[i]` items: segments, or captions.

    They come in rounds of all tracks, and no item of a track twice before all came once.
    """
    generator = np.random.default_rng([seed, epoch])
    rounds: list[tuple[int, int]] = []
    drawn = [generator.permutation(count) for count in counts]
    for turn in range(per_track):
        for track in generator.permutation(len(counts)):
            choice = drawn[track]
            rounds.append((int(track), int(choice[turn % len(choice)])))
    return rounds


def epoch_groups(counts: Sequence[int], seed: int, epoch: int, per_track: int) -> list[list[tuple[int, int]]]:
    """Each track's (track, item) pairs of an epoch, as many as there are and never one twice."""
    generator = np.random.default_rng([seed, epoch])
    drawn = [generator.permutation(count)[:per_track] for count in counts]
    return [[(int(t), int(item)) for item in drawn[t]] for t in generator.permutation(len(counts))]
