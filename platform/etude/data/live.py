"""Batches from the original audio, changed before both the student and the teacher hear it.

Each segment costs fetching and decoding its whole track, and one run of the teacher, in every step of every
epoch: cached targets are for what has to be fast.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from etude.audio.augment import AugmentConfig
from etude.audio.augment_waveform import augment_waveforms
from etude.audio.decode import Audio, decode
from etude.audio.mel import segment_mel
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import Segments, segments_of
from etude.audio.waveform import prepare_waveform
from etude.data.batches import Batch, Dataset, TrackRow
from etude.errors import BadAudio, OutOfReach, UserError
from etude.sources.base import Track
from etude.teachers.base import Teacher
from etude.teachers.stored import StoredTeacher

CACHE_BYTES = 512 * 2**20  # of decoded music: three quarters of an hour at 48 kHz


class LiveSegments:
    """Collates segments of a dataset anew, with `fetch` bringing a track's original file.

    Decoded tracks are kept while they fit into `cache_bytes`, those used last. Raises UserError for a
    teacher that does not listen, and ValueError if the recipe is not the dataset's.
    """

    def __init__(
        self,
        dataset: Dataset,
        fetch: Callable[[Track], bytes],
        teacher: Teacher,
        augmentation: AugmentConfig,
        recipe: FeatureRecipe,
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if isinstance(teacher, StoredTeacher):
            raise UserError(
                f"{teacher.id} knows its vectors by name and cannot hear changed audio: set augment.targets "
                "to cached, or choose a teacher that listens"
            )
        if recipe != dataset.recipe:
            raise ValueError(f"the dataset has recipe {dataset.recipe.id}, not {recipe.id}")
        self._dataset = dataset
        self._fetch = fetch
        self._teacher = teacher
        self._augmentation = augmentation
        self._recipe = recipe
        self._decoded = _Recent(cache_bytes)

    def batch(self, items: Sequence[tuple[int, int]], key: Sequence[int]) -> Batch:
        """The (track index, segment index) pairs, with changes that depend on them and on `key` alone.

        The student's mel is that of preparing: clipped and rounded as the recipe says. The teacher gets the
        samples before that, as it does in preparing, and does with them what is its own. Raises OutOfReach
        if a file cannot be had now, BadAudio if it never can or cannot be decoded, and UserError if it is
        not the one that was prepared; all name the track.
        """
        recipe = self._recipe
        waveforms = torch.from_numpy(np.stack([self._segment(track, segment) for track, segment in items]))
        (seed,) = np.random.SeedSequence(list(key)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(seed >> np.uint64(1)))
        changed = augment_waveforms(waveforms, self._augmentation, generator, recipe).numpy()
        heard = np.stack([prepare_waveform(Audio(one, recipe.sample_rate), recipe) for one in changed])
        targets = [self._target(one, track) for one, (track, _) in zip(changed, items, strict=True)]
        return Batch(
            torch.from_numpy(segment_mel(heard, recipe)),
            torch.from_numpy(np.stack(targets)),
            torch.tensor([track for track, _ in items]),
        )

    def _target(self, waveform: NDArray[np.float32], track: int) -> NDArray[np.float32]:
        """The teacher's vector [dim] of a segment on its own."""
        row: TrackRow = self._dataset[track]
        audio = Audio(waveform, self._recipe.sample_rate)
        whole = Segments((0,), len(waveform), self._recipe.sample_rate)
        vectors_1D = self._teacher.embed(audio, whole, row.track).segments
        return np.asarray(vectors_1D[0], np.float32)

    def _segment(self, track: int, segment: int) -> NDArray[np.float32]:
        """The samples [segment_samples] of one segment at the recipe's rate, as decoded."""
        row: TrackRow = self._dataset[track]
        samples = self._decoded.get(track)
        if samples is None:
            samples = self._decode(row.track)
            if len(samples) != row.mel.n_samples:
                raise UserError(
                    f"{_name(row.track)} is not the file that was prepared: it has {len(samples)} samples, "
                    f"then it had {row.mel.n_samples}; run jobs/prepare_audio.py again"
                )
            self._decoded.put(track, samples)
        segments = segments_of(len(samples), self._recipe)
        one = Segments((segments.starts[segment],), segments.length, segments.sample_rate)
        (cut,) = one.cut(samples, self._recipe.sample_rate)
        return np.asarray(cut, np.float32)

    def _decode(self, track: Track) -> NDArray[np.float32]:
        """A whole track [n] at the recipe's rate."""
        try:
            return decode(self._fetch(track)).resampled(self._recipe.sample_rate)
        except BadAudio as error:
            raise BadAudio(f"{_name(track)} was prepared, but is no use now: {error}") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutOfReach(f"{_name(track)} cannot be fetched now: {reason}") from error


class _Recent:
    """Arrays by number, those used last, as many as fit; one that alone is too large is not kept."""

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes = n_bytes
        self._arrays: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def get(self, number: int) -> NDArray[np.float32] | None:
        if number in self._arrays:
            self._arrays.move_to_end(number)
        return self._arrays.get(number)

    def put(self, number: int, array: NDArray[np.float32]) -> None:
        if array.nbytes > self._n_bytes:
            return
        self._arrays[number] = array
        while sum(kept.nbytes for kept in self._arrays.values()) > self._n_bytes:
            self._arrays.popitem(last=False)


def _name(track: Track) -> str:
    return f"{track.title} ({track.id})"
