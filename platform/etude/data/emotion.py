"""What is known of pieces for the five emotion models: rows in the store, and what each model learns of them.

A row is one piece. It holds only numbers that were measured, and a label; inputs and targets of a model are
made of it when it is read, so that another model or another embedding needs no new preparation.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from etude.config import Section
from etude.data.store import Store
from etude.emotion.vad import VAD
from etude.errors import UserError

N_FEATURES = 128  # of a window
VERSION = "3"  # of all that `data/emotion_analysis.py` measures: raise it when a row would differ
ROWS = pa.schema(
    [
        ("track_id", pa.string()),
        ("title", pa.string()),
        ("work", pa.string()),
        ("license", pa.string()),
        ("label_of", pa.string()),
        ("vad", pa.list_(pa.float64())),
        ("node", pa.int32()),
        ("audio", pa.list_(pa.list_(pa.float32()))),
        ("melody", pa.list_(pa.float32())),
        ("chords", pa.list_(pa.int16())),
        ("expression", pa.list_(pa.float32())),
        ("groove", pa.list_(pa.float32())),
    ]
)


class AnalysisConfig(Section):
    """How a piece is measured."""

    window_s: float = Field(10.0, ge=3, le=60, description="of audio that one row of 128 features describes")
    max_windows: int = Field(6, ge=1, description="windows of a piece, evenly spread over it")

    @property
    def part(self) -> str:
        """Where rows that were measured like this lie in a store."""
        text = json.dumps([VERSION, self.model_dump()], sort_keys=True)
        return f"emotion/{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, eq=False)
class EmotionRow:
    """One piece; what it has not, such as a groove where there is no metre, has no rows or numbers."""

    track_id: str
    title: str
    work: str
    license: str
    label_of: str  # who said so: listeners, annotator, quadrant, rule (weak), synthetic
    vad: VAD
    node: int  # of the thesaurus, 0 to 215
    audio: NDArray[np.float32]  # [windows, 128]
    melody: NDArray[np.float32]  # [128] or [0]
    chords: NDArray[np.int64]  # [n]
    expression: NDArray[np.float32]  # [16] or [0]
    groove: NDArray[np.float32]  # [32] or [0]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for Arrow and for JSON."""
        plain = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in asdict(self).items()
        }
        return plain | {"vad": [float(number) for number in self.vad]}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "EmotionRow":
        """The row that `as_dict` wrote."""
        plain: dict[str, Any] = dict(row)
        for name in ("melody", "expression", "groove"):
            plain[name] = np.asarray(row[name], dtype=np.float32)
        plain["audio"] = np.asarray(row["audio"], dtype=np.float32).reshape(-1, N_FEATURES)
        plain["chords"] = np.asarray(row["chords"], dtype=np.int64)
        return cls(**plain | {"vad": VAD(*row["vad"])})


def table_of(rows: Sequence[EmotionRow]) -> pa.Table:
    """Rows as a shard holds them."""
    return pa.Table.from_pylist([row.as_dict() for row in rows], schema=ROWS)


def read_rows(store: Store, part: str, track_ids: Sequence[str]) -> list[EmotionRow]:
    """The prepared ones of these pieces, by id. Raises UserError if there is none."""
    where = store.committed(part)
    wanted = {track_id: where[track_id] for track_id in track_ids if track_id in where}
    if not wanted:
        raise UserError(f"{store.root} holds no pieces of this source: run jobs/prepare_emotion.py first")
    found = {}
    for shard in sorted(set(wanted.values())):
        for row in store.read_shard(part, shard).to_pylist():
            if wanted.get(row["track_id"]) == shard:
                found[row["track_id"]] = EmotionRow.of(row)
    return [found[track_id] for track_id in sorted(found)]


def data_hash(rows: Sequence[EmotionRow]) -> str:
    """Twelve digits that change with anything that is known of the pieces."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row.as_dict(), sort_keys=True).encode())
    return digest.hexdigest()[:12]


def json_lines(rows: Sequence[EmotionRow]) -> Iterator[str]:
    """Rows as seed 5's train.json, val.json and test.json hold them here: a JSON array, a piece a line."""
    yield "["
    for number, row in enumerate(rows):
        yield json.dumps(row.as_dict()) + ("," if number + 1 < len(rows) else "")
    yield "]"
