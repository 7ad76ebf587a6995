"""A prepared library in seconds: the real store, filled with shapes of features that can be learned from.

The numbers are made up (no music, no teacher); tests of quality use rendered music instead.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from etude.audio.recipe import FeatureRecipe
from etude.audio.track_mel import layout_of
from etude.data.batches import Splits, open_splits
from etude.data.split import SplitConfig
from etude.data.store import Store, features_part, targets_part
from etude.sources.base import Track

TEACHER = "made-up-0"
DIM = 8


def made_up_library(
    root: Path,
    n_tracks: int = 12,
    recipe: FeatureRecipe | None = None,
    teacher: str = TEACHER,
    dim: int = DIM,
) -> Store:
    """Write `n_tracks` whose target is a fixed linear map of their mel's mean band levels."""
    recipe = recipe or FeatureRecipe()
    generator = np.random.default_rng(7)
    mapping = generator.normal(size=(recipe.n_mels, dim)).astype(np.float32) / 30
    store = Store(root)
    tracks, features, targets = [], [], []
    for i in range(n_tracks):
        n_samples = recipe.segment_samples + int(generator.integers(0, 3)) * recipe.hop_samples
        layout = layout_of(n_samples, recipe)
        levels = generator.normal(-40, 12, size=recipe.n_mels)
        frames = (levels + generator.normal(0, 3, size=(layout.n_stored, recipe.n_mels))).astype(np.float16)
        target = ((levels / 10) @ mapping + 1).astype(np.float32)
        segments = np.tile(target, (layout.n_segments, 1))
        track_id = f"made-up-{i:03d}"
        tracks.append(Track(track_id, f"{i}.wav", f"Track {i}", duration_s=n_samples / recipe.sample_rate))
        features.append({"track_id": track_id, "n_samples": n_samples, "frames": frames.tobytes()})
        targets.append(
            {
                "track_id": track_id,
                "n_samples": n_samples,
                "segments": segments.tobytes(),
                "track": target.tobytes(),
            }
        )
    store.write_catalogue("made-up", tracks)
    store.write_shard(features_part(recipe), pa.Table.from_pylist(features, schema=_FEATURES))
    store.write_shard(targets_part(teacher, recipe), pa.Table.from_pylist(targets, schema=_TARGETS))
    return store


def made_up_splits(root: Path, n_tracks: int = 12) -> Splits:
    """The splits of such a library."""
    store = made_up_library(root, n_tracks)
    config = SplitConfig(validation=0.25, test=0.25)
    return open_splits(store, "made-up", FeatureRecipe(), [TEACHER], config)


_FEATURES = pa.schema([("track_id", pa.string()), ("n_samples", pa.int64()), ("frames", pa.large_binary())])
_TARGETS = pa.schema(
    [
        ("track_id", pa.string()),
        ("n_samples", pa.int64()),
        ("segments", pa.large_binary()),
        ("track", pa.large_binary()),
    ]
)
