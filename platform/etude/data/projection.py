"""Captions beside the vectors of the music that they describe: what a text projection learns from.

The music's vectors are a teacher's, of the windows that it heard, enriched as they are read. Those of a wide
space are never held for a whole library while learning, only for the set that is judged: 0.3 MB a track of
76,800 numbers, and as much for each of its captions.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.data.batches import Dataset, Splits
from etude.data.music_text import caption_ids
from etude.data.sampling import epoch_order
from etude.errors import UserError
from etude.teachers.enrichment import Enrichment

Pair = tuple[int, int]  # a track of a split, and one of its captions
_KEPT_BYTES = 256 << 20  # a set whose vectors take no more is enriched once
_SAMPLE = 1024  # tracks that the mean and spread of the vectors are taken from


@dataclass(frozen=True)
class ProjectionBatch:
    """Vectors of music, each beside one of its captions."""

    audio: Tensor  # [b, dim] float32
    text: tuple[Tensor, ...]  # what `Reader.read` gives
    track: Tensor  # [b] int64
    caption: Tensor  # [b] int64, equal where captions are

    def to(self, device: torch.device) -> "ProjectionBatch":
        text = tuple(part.to(device) for part in self.text)
        return ProjectionBatch(self.audio.to(device), text, self.track.to(device), self.caption.to(device))


class Reader(Protocol):
    """Makes of captions what a projection takes."""

    def read(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        """A frozen encoder's vectors [b, text_dim]; or ids [b, t] and mask [b, t] for one that learns."""
        ...


@dataclass(frozen=True)
class Described:
    """The tracks of one split, with their captions and where they lie in the space."""

    dataset: Dataset
    captions: Sequence[tuple[str, ...]]  # by track
    enrichment: Enrichment
    reader: Reader | None  # None: for who wants no texts

    def __len__(self) -> int:
        return len(self.dataset)

    def audio(self, tracks: Sequence[int]) -> NDArray[np.float32]:
        """Where tracks lie [n, dim], at length 1."""
        width = self.dataset[0].segment_targets.shape[1]
        if len(self) * self.enrichment.dim(width) * 4 <= _KEPT_BYTES:
            return self._all[list(tracks)]
        return self._enriched(tracks)

    @cached_property
    def _all(self) -> NDArray[np.float32]:
        return self._enriched(range(len(self)))

    def _enriched(self, tracks: Sequence[int]) -> NDArray[np.float32]:
        return np.stack([self.enrichment.apply(self.dataset[track].segment_targets) for track in tracks])

    def batch(self, pairs: Sequence[Pair]) -> ProjectionBatch:
        """Collect (track, caption) pairs."""
        tracks = [track for track, _ in pairs]
        texts = [self.captions[track][caption] for track, caption in pairs]
        assert self.reader, "batches hold texts"
        audio = torch.from_numpy(self.audio(tracks))
        return ProjectionBatch(audio, self.reader.read(texts), torch.tensor(tracks), caption_ids(texts))

    def only(self, track_ids: Collection[str]) -> "Described":
        """The same without other tracks."""
        places = [place for place, row in enumerate(self.dataset) if row.track.id in track_ids]
        if len(places) == len(self):
            return self
        dataset = self.dataset.chosen(places)
        return replace(self, dataset=dataset, captions=[self.captions[place] for place in places])

    def pairs(self) -> list[Pair]:
        """Every caption once: all tracks' first ones, then the second ones, so that neighbours differ."""
        most = max(len(captions) for captions in self.captions)
        return [
            (track, number)
            for number in range(most)
            for track, captions in enumerate(self.captions)
            if number < len(captions)
        ]


class TrainingPairs:
    """Captions of a split in the order of an epoch: a `TrainingData` of `etude.systems.base`.

    All tracks come once before any comes again, so that a batch holds a track twice only where one round of
    them ends within it; the loss knows these for the same.
    """

    def __init__(self, described: Described, captions_per_track: int) -> None:
        self.described = described
        self.captions_per_track = captions_per_track

    def steps(self, batch_size: int) -> int:
        """Batches an epoch."""
        return max(1, len(self.described) * self.captions_per_track // batch_size)

    def batches(
        self, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[ProjectionBatch]:
        """This rank's share of every global batch of an epoch: each takes every n-th pair of it.

        What does not fill a global batch is left out, unless it would be everything. Raises UserError if
        the workers cannot share a batch evenly.
        """
        if batch_size % world_size:
            raise UserError(
                f"a batch of {batch_size} captions cannot be shared by {world_size} workers: choose a "
                "training.batch_size that is a multiple of workers.workers"
            )
        counts = [len(captions) for captions in self.described.captions]
        pairs = epoch_order(counts, seed, epoch, self.captions_per_track)
        if len(pairs) < batch_size:
            pairs = (pairs * -(-batch_size // len(pairs)))[:batch_size]
        for start in range(0, len(pairs) - batch_size + 1, batch_size):
            yield self.described.batch(pairs[start : start + batch_size][rank::world_size])

    def target_statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean [dim] and standard deviation [dim] of the music's vectors, of the first thousand tracks."""
        vectors_ND = self.described.audio(range(min(_SAMPLE, len(self.described))))
        return vectors_ND.mean(axis=0), vectors_ND.std(axis=0)


@dataclass(frozen=True)
class ProjectionSplits:
    """A captioned library as training, validation and test set, and a hash of what they hold."""

    train: Described
    validation: Described
    test: Described
    data_hash: str


def describe(
    splits: Splits, captions: Mapping[str, tuple[str, ...]], enrichment: Enrichment, reader: Reader | None
) -> ProjectionSplits:
    """Put captions, by track id, to a library whose every track has some."""
    train, validation, test = sets = [
        Described(dataset, [captions[row.track.id] for row in dataset], enrichment, reader)
        for dataset in (splits.train, splits.validation, splits.test)
    ]
    said = hashlib.sha256(splits.data_hash.encode())
    for described in sets:
        for row, texts in zip(described.dataset, described.captions, strict=True):
            said.update("\n".join([row.track.id, *texts]).encode("utf-8", "surrogateescape"))
    return ProjectionSplits(train, validation, test, said.hexdigest()[:12])
