"""Seed 3's HDF5 file of embeddings, for those who have readers of it: written, and read back.

    attributes         config, embedding_dimensions       JSON
    train, val, test   <space>_embeddings                 float32 [rows, dim], gzip 4
                       captions, audio_ids                text; `<track>_main`, `<track>_alt`, then `_3`...
                       attribute stats                    JSON

A row is a caption, so a track's vector stands there once for each of its captions. The layout:
facts/projection_and_emotion.md, a.
"""

import json
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from etude.data.projection import Described, ProjectionSplits
from etude.errors import UserError

GROUPS = {"train": "train", "validation": "val", "test": "test"}
_ROWS = 256  # written at a time: 79 MB of 76,800 numbers
_SUFFIXES = ("main", "alt")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """What one group of a file holds."""

    vectors: Mapping[str, NDArray[np.float32]]  # [rows, dim] by space
    captions: tuple[str, ...]
    audio_ids: tuple[str, ...]


def write_hdf5(path: Path, spaces: Mapping[str, ProjectionSplits], config: Mapping[str, Any]) -> int:
    """Write the tracks that all spaces have, and their captions, with their vectors; returns the rows.

    The file is there whole, and read back, or not at all. Raises UserError if it cannot be written, or a set
    of its has no track in all spaces.
    """
    path, spaces = path.expanduser(), _in_all(spaces)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    n_rows = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(temporary, "w") as file:
            dims = {name: _dim(splits.train) for name, splits in spaces.items()}
            file.attrs["config"] = json.dumps(dict(config), default=str)
            file.attrs["embedding_dimensions"] = json.dumps(dims)
            for split, group in GROUPS.items():
                sets = {name: getattr(splits, split) for name, splits in spaces.items()}
                n_rows += _write_group(file.create_group(group), sets)
        check_hdf5(temporary, spaces)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; name another file") from error
    finally:
        temporary.unlink(missing_ok=True)
    return n_rows


def read_hdf5(path: Path) -> dict[str, Embedded]:
    """The groups of such a file, by the names of its splits. Raises UserError if it is none."""
    try:
        with h5py.File(path.expanduser(), "r") as file:
            return {split: _read_group(file[group]) for split, group in GROUPS.items()}
    except (OSError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is no HDF5 file of embeddings ({error}): choose another") from error


def check_hdf5(path: Path, spaces: Mapping[str, ProjectionSplits]) -> None:
    """Read a file back. Raises UserError if it does not hold these tracks' vectors and captions."""
    found = read_hdf5(path)
    for name, splits in spaces.items():
        for split in GROUPS:
            described: Described = getattr(splits, split)
            texts = [caption for captions in described.captions for caption in captions]
            tracks = [i for i, captions in enumerate(described.captions) for _ in captions]
            vectors = found[split].vectors.get(name, np.empty(0))
            same = len(vectors) == len(tracks) and list(found[split].captions) == texts
            if not same or any((vectors[i] != described.audio([t])[0]).any() for i, t in enumerate(tracks)):
                raise UserError(f"{path} does not hold what was written of {name}: write it again elsewhere")


def _in_all(spaces: Mapping[str, ProjectionSplits]) -> dict[str, ProjectionSplits]:
    """Every space with those tracks alone that each space has: one may have others in quarantine."""
    kept = dict(spaces)
    for split in GROUPS:
        ids = [{row.track.id for row in getattr(splits, split).dataset} for splits in spaces.values()]
        common = set.intersection(*ids)
        if not common:
            raise UserError(f"no track of the {split} set is in all of {', '.join(spaces)}: prepare them all")
        if left_out := len(set.union(*ids)) - len(common):
            log.warning("%d tracks of the %s set are not in every space, and are left out", left_out, split)
        for name in kept:
            kept[name] = replace(kept[name], **{split: getattr(kept[name], split).only(common)})
    return kept


def _write_group(group: h5py.Group, sets: Mapping[str, Described]) -> int:
    rows = [
        (track, caption, f"{row.track.id}_{_SUFFIXES[i] if i < len(_SUFFIXES) else i + 1}")
        for track, (row, captions) in enumerate(_tracks(next(iter(sets.values()))))
        for i, caption in enumerate(captions)
    ]
    text = h5py.string_dtype("utf-8")
    for name, column in (("captions", 1), ("audio_ids", 2)):
        values = [str(row[column]).encode("utf-8", "replace") for row in rows]
        group.create_dataset(name, data=values, dtype=text)
    for name, described in sets.items():
        embedded = group.create_dataset(
            f"{name}_embeddings", (len(rows), _dim(described)), "float32", compression="gzip",
            compression_opts=4, chunks=(1, _dim(described)),
        )  # fmt: skip
        for start in range(0, len(rows), _ROWS):
            tracks = [row[0] for row in rows[start : start + _ROWS]]
            embedded[start : start + len(tracks)] = described.audio(tracks)
    n_tracks = len(next(iter(sets.values())))
    group.attrs["stats"] = json.dumps({"total_samples": len(rows), "tracks": n_tracks})
    return len(rows)


def _read_group(group: h5py.Group) -> Embedded:
    end = "_embeddings"
    vectors = {name.removesuffix(end): group[name][:] for name in group if name.endswith(end)}
    captions, audio_ids = (tuple(group[name].asstr()[:]) for name in ("captions", "audio_ids"))
    if any(len(each) != len(captions) for each in (*vectors.values(), audio_ids)):
        raise KeyError(f"{group.name} has columns of different lengths")
    return Embedded(vectors, captions, audio_ids)


def _tracks(described: Described) -> Sequence[tuple[Any, tuple[str, ...]]]:
    return list(zip(described.dataset, described.captions, strict=True))


def _dim(described: Described) -> int:
    return len(described.audio([0])[0])
