"""The last step of preparing: rows become committed shards."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etude.audio.recipe import FeatureRecipe
from etude.data.store import Store, features_part, targets_part
from etude.errors import BadAudio, OutOfReach
from etude.teachers import Targets

ANSWER = [
    ("teacher", pa.string()),
    ("status", pa.string()),
    ("reason", pa.string()),
    ("segments", pa.large_binary()),
    ("track", pa.large_binary()),
]
PREPARED = pa.schema(
    [
        ("track_id", pa.string()),
        ("status", pa.string()),  # of the audio: prepared, quarantined or unreachable
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("n_samples", pa.int64()),
        ("frames", pa.large_binary()),
        ("answers", pa.list_(pa.struct(ANSWER))),  # one for each teacher that was asked
    ]
)
STATUS = pa.schema(
    [
        *(PREPARED.field(name) for name in ("track_id", "status", "stage", "reason")),
        ("wrote", pa.bool_()),  # anything at all of this track
        ("answers", pa.list_(pa.struct(ANSWER[:3]))),
    ]
)


def answer(teacher_id: str, ask: Callable[[], Targets]) -> dict[str, Any]:
    """What one teacher gives for a track: its vectors, or why there are none. It costs no other teacher."""
    try:
        targets = ask()
        segments, track = (finite(array, "teacher's vector") for array in (targets.segments, targets.track))
    except BadAudio as error:
        return {"teacher": teacher_id, "status": "quarantined", "reason": str(error)}
    except OutOfReach as error:
        return {"teacher": teacher_id, "status": "unreachable", "reason": str(error)}
    vectors = {"segments": segments.astype(np.float32).tobytes(), "track": track.astype(np.float32).tobytes()}
    return {"teacher": teacher_id, "status": "prepared"} | vectors


def finite(array: NDArray[Any], what: str) -> NDArray[Any]:
    """The array as it is. Raises BadAudio if it holds NaN or infinity."""
    if not np.isfinite(array).all():
        raise BadAudio(f"its {what} is not finite: some samples are absurdly loud")
    return array


def write_rows(batch: pa.Table, store: str, recipe: FeatureRecipe) -> pa.Table:
    """Write one shard of each kind that the rows hold, and of each teacher; rows of `STATUS` go on."""
    target = Store(store)
    has_mel = batch.filter(pc.is_valid(batch["frames"]))
    if has_mel.num_rows:
        target.write_shard(features_part(recipe), has_mel.select(["track_id", "n_samples", "frames"]))
    answers = batch["answers"].combine_chunks()
    vectors = pa.Table.from_struct_array(pc.list_flatten(answers))
    for column in ("n_samples", "track_id"):
        vectors = vectors.add_column(0, column, batch[column].take(pc.list_parent_indices(answers)))
    vectors = vectors.filter(pc.is_valid(vectors["segments"]))
    for teacher_id in pc.unique(vectors["teacher"]).to_pylist():
        own = vectors.filter(pc.equal(vectors["teacher"], teacher_id))
        columns = ["track_id", "n_samples", "segments", "track"]
        target.write_shard(targets_part(teacher_id, recipe), own.select(columns))
    written = pa.concat_arrays([has_mel["track_id"].combine_chunks(), vectors["track_id"].combine_chunks()])
    status = batch.append_column("wrote", pc.is_in(batch["track_id"], value_set=written))
    return pa.Table.from_pylist(status.select(STATUS.names).to_pylist(), schema=STATUS)
