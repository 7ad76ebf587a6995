"""The vectors of a library as a folder of Parquet files, which grows part by part."""

import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etude.errors import UserError
from etude.sources.base import Track

_MODEL, _DIM = b"etude.model", b"etude.dim"


class VectorFolder:
    """Vectors of one model; readers of Parquet take the folder as one table.

    Columns: track_id, item_id (AudioMuse-AI's, null elsewhere), title, artist, album, vector. Raises
    UserError if the folder holds another model's vectors, or what is no vectors at all.
    """

    def __init__(self, path: Path, model: str, dim: int) -> None:
        self.path = path.expanduser().absolute()
        self.model = model
        self.dim = dim
        self._schema = pa.schema(
            [(name, pa.string()) for name in ("track_id", "item_id", "title", "artist", "album")]
            + [("vector", pa.list_(pa.float32(), dim))],
            metadata={_MODEL: model.encode(), _DIM: str(dim).encode()},
        )
        for part in self._parts():
            try:
                metadata = pq.read_schema(part).metadata or {}
            except pa.ArrowInvalid:
                raise UserError(f"{part} is not a Parquet file: remove it, or choose another --out") from None
            if metadata.get(_MODEL) != model.encode():
                raise UserError(f"{self.path} holds the vectors of another model: choose another --out")

    def create(self) -> None:
        """Make the folder. Raises UserError if that cannot be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot use {self.path} for vectors: {error.strerror}") from None

    def done(self) -> set[str]:
        """The ids of the tracks whose vectors are there."""
        return {
            track_id
            for part in self._parts()
            for track_id in pq.read_table(part, columns=["track_id"])["track_id"].to_pylist()
        }

    def write(self, rows: Sequence[tuple[Track, NDArray[np.float32]]]) -> None:
        """Add a part; it is there whole or not at all."""
        if not rows:
            return
        tracks = [track for track, _ in rows]
        stacked = np.stack([vector for _, vector in rows]).astype(np.float32)
        columns = [
            [track.id for track in tracks],
            [track.tags.get("item_id") for track in tracks],
            *([_text(getattr(track, name)) for track in tracks] for name in ("title", "artist", "album")),
            pa.FixedSizeListArray.from_arrays(pa.array(stacked.ravel()), self.dim),
        ]
        table = pa.Table.from_arrays(
            [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)],
            schema=self._schema,
        )
        name = hashlib.sha256("\n".join(track.id for track in tracks).encode()).hexdigest()[:16]
        temporary = self.path / f".{name}.{uuid.uuid4().hex}.tmp"
        try:
            pq.write_table(table, temporary)
            os.replace(temporary, self.path / f"{name}.parquet")
        finally:
            temporary.unlink(missing_ok=True)

    def batches(self, tracks: Sequence[Track] | None = None) -> Iterator[list[tuple[str, bytes]]]:
        """AudioMuse-AI's ids with the vectors' bytes, little-endian float32, one part at a time.

        Only those of `tracks` if they are given; every id once. Raises UserError if tracks have no such id.
        """
        wanted = None if tracks is None else pa.array([track.id for track in tracks], pa.string())
        seen: set[str] = set()
        for part in self._parts():
            table = pq.read_table(part)
            if wanted is not None:
                table = table.filter(pc.is_in(table["track_id"], wanted))
            if table["item_id"].null_count:
                raise UserError(
                    f"{self.path} holds tracks without an id of AudioMuse-AI: "
                    "embed with --source.name audiomuse"
                )
            vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, self.dim)
            found = dict(zip(table["item_id"].to_pylist(), vectors, strict=True))
            yield [(id, vector.astype("<f4").tobytes()) for id, vector in found.items() if id not in seen]
            seen.update(found)

    def _parts(self) -> list[Path]:
        return sorted(self.path.glob("*.parquet"))


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # a file name need not be valid UTF-8; Arrow's text must
