"""A prepared library as datasets, read straight from the store's shards."""

import hashlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.audio.mel import TrackMel
from etude.audio.recipe import FeatureRecipe
from etude.data.split import SplitConfig, SplitName, split
from etude.data.store import Store, features_part, targets_part
from etude.errors import UserError
from etude.sources.base import Track


@dataclass(frozen=True)
class Batch:
    """Segments with what their teacher says of them."""

    mel: Tensor  # [b, n_mels, n_frames] dB, float32
    target: Tensor  # [b, dim] float32
    track: Tensor  # [b] index of the track in its dataset
    also: tuple[Tensor, ...] = ()  # [b, dim] each: what other teachers say

    def to(self, device: torch.device) -> "Batch":
        also = tuple(target.to(device) for target in self.also)
        return Batch(self.mel.to(device), self.target.to(device), self.track.to(device), also)


@dataclass(frozen=True)
class Targets:
    """What one teacher says of a track; views of memory-mapped shards."""

    segments: NDArray[np.float32]  # [n_segments, dim]
    track: NDArray[np.float32]  # [dim]


@dataclass(frozen=True)
class Features:
    """One prepared track, whatever teachers say of it; the mel is a view of a memory-mapped shard."""

    track: Track
    mel: TrackMel


@dataclass(frozen=True)
class TrackRow(Features):
    """One prepared track with a teacher's targets; arrays are views of memory-mapped shards."""

    segment_targets: NDArray[np.float32]  # [n_segments, dim]
    track_target: NDArray[np.float32]  # [dim]
    also: tuple[Targets, ...] = ()  # of other teachers


class Dataset(Sequence[TrackRow]):
    """The prepared tracks of one split."""

    def __init__(self, rows: Sequence[TrackRow], recipe: FeatureRecipe) -> None:
        self._rows = list(rows)
        self.recipe = recipe

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._rows[index]

    @property
    def n_segments(self) -> int:
        """Segments of all tracks together."""
        return sum(len(row.segment_targets) for row in self._rows)

    def targets(self, teacher: int = 0) -> NDArray[np.float32]:
        """The vectors [n_segments, dim] of one of the teachers, by its place."""
        return np.concatenate(
            [row.also[teacher - 1].segments if teacher else row.segment_targets for row in self._rows]
        )

    def target_statistics(self, teacher: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean [dim] and standard deviation [dim] of a teacher's vectors of segments."""
        targets = self.targets(teacher)
        return targets.mean(axis=0), targets.std(axis=0)

    def chosen(self, places: Sequence[int]) -> "Dataset":
        """Some of the tracks."""
        return Dataset([self._rows[place] for place in places], self.recipe)

    def batch(self, items: Sequence[tuple[int, int]]) -> Batch:
        """Collect (track index, segment index) pairs."""
        mel = np.stack([self._rows[track].mel.segment(segment) for track, segment in items])
        target = np.stack([self._rows[track].segment_targets[segment] for track, segment in items])
        also = [
            np.stack([self._rows[track].also[other].segments[segment] for track, segment in items])
            for other in range(len(self._rows[0].also))
        ]
        return Batch(
            torch.from_numpy(mel),
            torch.from_numpy(target),
            torch.tensor([track for track, _ in items]),
            tuple(torch.from_numpy(one) for one in also),
        )


@dataclass(frozen=True)
class Splits:
    """The three datasets of a library, and a hash of what they hold."""

    train: Dataset
    validation: Dataset
    test: Dataset
    data_hash: str


def open_splits(
    store: Store,
    source_id: str,
    recipe: FeatureRecipe,
    teacher_ids: Sequence[str],
    config: SplitConfig,
    only: Container[str] | None = None,
) -> Splits:
    """Open what a library has of every teacher, the first being `TrackRow.track_target`'s.

    `only` are the ids of the tracks that count. Raises UserError if it was not prepared with this recipe
    and these teachers.
    """
    features = _Shards(store, features_part(recipe))
    targets = [_Shards(store, targets_part(teacher_id, recipe)) for teacher_id in teacher_ids]
    tracks: list[Track] = []
    held_out: set[str] = set()
    for track in store.read_catalogue(source_id):
        if track.held_out:  # usable or not: a work must not change sides when more of it is prepared
            held_out.add(track.work)
        if all(track.id in part for part in (features, *targets)) and (only is None or track.id in only):
            tracks.append(track)
    if not tracks:
        others = [part.split("/")[1] for part in store.parts("features") if part != features.part]
        also = f" (it holds features of other recipes: {', '.join(others)})" if others else ""
        raise UserError(
            f"{store.root} has no track of {source_id} prepared with recipe {recipe.id} and teacher "
            f"{' and '.join(teacher_ids)}{also}: run jobs/prepare_audio.py with the same configuration"
        )
    chosen = split(tracks, config, held_out)
    sets: dict[SplitName, Dataset] = {
        name: Dataset([_row(track, features, targets, recipe) for track in members], recipe)
        for name, members in chosen.items()
    }
    for name, dataset in sets.items():
        if dataset.n_segments < 2:
            raise UserError(
                f"the {name} set of {source_id} is a single segment of 10 s, from which nothing can be told: "
                "add music, or longer tracks"
            )
    names = [f"{name}:{track.id}" for name, members in chosen.items() for track in members]
    digest = hashlib.sha256("\n".join([recipe.id, *teacher_ids, *names]).encode()).hexdigest()[:12]
    return Splits(sets["train"], sets["validation"], sets["test"], digest)


def open_features(store: Store, source_id: str, recipe: FeatureRecipe) -> list[Features]:
    """The tracks of a source that have features, in the catalogue's order; no teacher is needed.

    Raises UserError if none was prepared with this recipe.
    """
    features = _Shards(store, features_part(recipe))
    found = [_features(t, features, recipe) for t in store.read_catalogue(source_id) if t.id in features]
    if not found:
        raise UserError(
            f"{store.root} has no track of {source_id} prepared with recipe {recipe.id}: run "
            "jobs/prepare_audio.py with that recipe"
        )
    return found


def open_targets(
    store: Store, source_id: str, recipe: FeatureRecipe, teacher_id: str
) -> list[tuple[Track, Targets]]:
    """The tracks of a source that a teacher has heard, in the catalogue's order, with what it says of them.

    Raises UserError if there is none.
    """
    part = _Shards(store, targets_part(teacher_id, recipe))
    found = [(t, _targets(t.id, part)) for t in store.read_catalogue(source_id) if t.id in part]
    if not found:
        raise UserError(
            f"{store.root} has no track of {source_id} prepared with the teacher {teacher_id}: run "
            "jobs/prepare_audio.py with it"
        )
    return found


def all_batches(dataset: Dataset, batch_size: int) -> Iterator[Batch]:
    """Every segment once, in order."""
    items = [(i, j) for i, row in enumerate(dataset) for j in range(len(row.segment_targets))]
    for start in range(0, len(items), batch_size):
        yield dataset.batch(items[start : start + batch_size])


class _Shards:
    """Rows of one part by track id; shards are opened once and stay memory-mapped."""

    def __init__(self, store: Store, part: str) -> None:
        self.part = part
        self._store = store
        self._where = store.committed(part)
        self._rows: dict[str, dict[str, tuple[pa.Table, int]]] = {}

    def __contains__(self, track_id: str) -> bool:
        return track_id in self._where

    def array(self, track_id: str, column: str, dtype: str) -> NDArray[Any]:
        """A binary column of one row as a flat array that copies nothing."""
        table, row = self._row(track_id)
        return np.frombuffer(table[column][row].as_buffer(), dtype=dtype)

    def number(self, track_id: str, column: str) -> int:
        table, row = self._row(track_id)
        return int(table[column][row].as_py())

    def _row(self, track_id: str) -> tuple[pa.Table, int]:
        shard = self._where[track_id]
        if shard not in self._rows:
            table = self._store.read_shard(self.part, shard)
            ids = table["track_id"].to_pylist()
            self._rows[shard] = {name: (table, index) for index, name in enumerate(ids)}
        return self._rows[shard][track_id]


def _row(track: Track, features: _Shards, targets: Sequence[_Shards], recipe: FeatureRecipe) -> TrackRow:
    mel = _features(track, features, recipe).mel
    first, *also = (_targets(track.id, part) for part in targets)
    return TrackRow(track, mel, first.segments, first.track, tuple(also))


def _features(track: Track, features: _Shards, recipe: FeatureRecipe) -> Features:
    frames = features.array(track.id, "frames", recipe.dtype).reshape(-1, recipe.n_mels)
    return Features(track, TrackMel(frames, features.number(track.id, "n_samples"), recipe))


def _targets(track_id: str, part: _Shards) -> Targets:
    track_D = part.array(track_id, "track", "float32")
    return Targets(part.array(track_id, "segments", "float32").reshape(-1, len(track_D)), track_D)
