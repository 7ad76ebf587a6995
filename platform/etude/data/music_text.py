"""Music with what is said of it: batches of segments and captions to learn from, and sets to be judged by."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.data.batches import Batch, Dataset, Splits, TrackRow
from etude.data.text import CachedTeacher
from etude.errors import UserError
from etude.students.tokens import Tokens, shorten


@dataclass(frozen=True)
class MusicTextBatch:
    """Segments, each beside a caption of its track."""

    audio: Batch
    input_ids: Tensor  # [b, t] int64
    attention_mask: Tensor  # [b, t] int64
    caption: Tensor  # [b] int64, equal where captions are
    text_target: Tensor | None  # [b, dim] what a text teacher says of the captions

    def to(self, device: torch.device) -> "MusicTextBatch":
        return MusicTextBatch(
            self.audio.to(device),
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.caption.to(device),
            None if self.text_target is None else self.text_target.to(device),
        )


@dataclass(frozen=True)
class Captioned:
    """The tracks of one split, and the captions of each."""

    dataset: Dataset
    captions: Sequence[tuple[str, ...]]  # by track
    tokens: Tokens
    text_teacher: CachedTeacher | None

    def batch(self, items: Sequence[tuple[int, int]], key: Sequence[int]) -> MusicTextBatch:
        """Collect (track, segment) pairs, each with a caption; `key` is (seed, epoch, step, rank).

        Which caption depends on the seed, the epoch and the pair alone, so on no number of workers.
        """
        texts = []
        for track, segment in items:
            captions = self.captions[track]
            texts.append(captions[np.random.default_rng([*key[:2], track, segment]).integers(len(captions))])
        input_ids, attention_mask = self.tokens.ids(texts)
        teacher = self.text_teacher
        text_target = None if teacher is None else torch.from_numpy(teacher.embed(texts))
        audio = self.dataset.batch(items)
        return MusicTextBatch(audio, input_ids, attention_mask, caption_ids(texts), text_target)

    def flat(self) -> tuple[list[str], NDArray[np.int64]]:
        """All captions, and the track [c] that each describes."""
        texts = [caption for captions in self.captions for caption in captions]
        return texts, np.repeat(np.arange(len(self.captions)), [len(some) for some in self.captions])

    def texts(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All captions in order as ids [b, t] and mask [b, t]."""
        texts, _ = self.flat()
        for start in range(0, len(texts), batch_size):
            yield self.tokens.ids(texts[start : start + batch_size])


@dataclass(frozen=True)
class MusicTextSplits:
    """A captioned library as training, validation and test set, and a hash of what they hold."""

    train: Captioned
    validation: Captioned
    test: Captioned
    data_hash: str


def add_captions(
    splits: Splits,
    captions: Mapping[str, tuple[str, ...]],
    tokens: Tokens,
    text_teacher: CachedTeacher | None,
) -> MusicTextSplits:
    """Put captions, by track id, to a library whose every track has some.

    Raises UserError if a caption has more tokens than the text encoder takes, or its teacher.
    """
    sets = []
    for dataset in (splits.train, splits.validation, splits.test):
        captioned = Captioned(dataset, [captions[row.track.id] for row in dataset], tokens, text_teacher)
        texts, _ = captioned.flat()
        if long := tokens.too_long(texts):
            raise UserError(
                f"the caption {shorten(texts[long[0]])!r} has more than {tokens.max_tokens} tokens: raise "
                "text.max_tokens"
            )
        if text_teacher and (long := text_teacher.too_long(texts)):
            raise UserError(
                f"the caption {shorten(texts[long[0]])!r} is longer than {text_teacher.id} takes: choose "
                "another text_teacher, or leave it out"
            )
        sets.append(captioned)
    said = [f"{row.track.id}:{text}" for one in sets for row, some in _rows(one) for text in some]
    digest = hashlib.sha256("\n".join([splits.data_hash, tokens.id, *said]).encode()).hexdigest()[:12]
    train, validation, test = sets
    return MusicTextSplits(train, validation, test, digest)


def caption_ids(captions: Sequence[str]) -> Tensor:
    """Numbers [n] int64 that are equal, on every machine, for captions equal but for case and spaces."""
    plain = (" ".join(caption.casefold().split()) for caption in captions)
    digests = [hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest() for text in plain]
    return torch.tensor([int.from_bytes(d, "big", signed=True) for d in digests], dtype=torch.int64)


def _rows(captioned: Captioned) -> Iterator[tuple[TrackRow, tuple[str, ...]]]:
    return zip(captioned.dataset, captioned.captions, strict=True)
