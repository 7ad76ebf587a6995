"""The last step of preparing: rows become committed shards."""

import pyarrow as pa
import pyarrow.compute

from etude.audio.recipe import FeatureRecipe
from etude.data.store import Store, features_part, targets_part

PREPARED = pa.schema(
    [
        ("track_id", pa.string()),
        ("teacher", pa.string()),
        ("status", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("n_samples", pa.int64()),
        ("frames", pa.large_binary()),
        ("segments", pa.large_binary()),
        ("track", pa.large_binary()),
    ]
)


def write_rows(batch: pa.Table, store: str, recipe: FeatureRecipe) -> pa.Table:
    """Write one shard of each kind that the rows hold; the status rows go on."""
    target = Store(store)
    has_mel = batch.filter(pa.compute.is_valid(batch["frames"]))
    if has_mel.num_rows:
        target.write_shard(features_part(recipe), has_mel.select(["track_id", "n_samples", "frames"]))
    has_targets = batch.filter(pa.compute.is_valid(batch["segments"]))
    if has_targets.num_rows:
        teacher_id = has_targets["teacher"][0].as_py()
        target.write_shard(
            targets_part(teacher_id, recipe),
            has_targets.select(["track_id", "n_samples", "segments", "track"]),
        )
    return batch.select(["track_id", "status", "stage", "reason"])
