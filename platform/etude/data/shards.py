"""The last step of preparing: rows become committed shards. Imports no model, so it starts fast."""

import pyarrow as pa
import pyarrow.compute as pc

from etude.audio.recipe import FeatureRecipe
from etude.data.store import Store, features_part, targets_part

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
