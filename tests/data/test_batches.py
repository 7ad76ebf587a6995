"""Batches are a pure function of their arguments, whole over ranks, and true to the store."""

from dataclasses import replace
from pathlib import Path

import pytest

from etude.audio.recipe import FeatureRecipe
from etude.data.batches import Splits, all_batches, open_splits
from etude.data.split import SplitConfig
from etude.errors import UserError
from tests.support.library import TEACHER, made_up_library, made_up_splits


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return made_up_splits(tmp_path_factory.mktemp("store"))


def test_every_segment_is_evaluated_once(splits: Splits) -> None:
    batches = list(all_batches(splits.test, 3))
    assert sum(len(batch.track) for batch in batches) == splits.test.n_segments


def test_another_recipe_or_teacher_is_refused_with_what_is_there(tmp_path: Path) -> None:
    store = made_up_library(tmp_path)
    recipe = FeatureRecipe()
    with pytest.raises(UserError, match=f"holds features of other recipes: {recipe.id}.*prepare_audio"):
        open_splits(store, "made-up", FeatureRecipe(n_mels=64), [TEACHER], SplitConfig())
    with pytest.raises(UserError, match="teacher another-1"):
        open_splits(store, "made-up", recipe, ["another-1"], SplitConfig())


def test_a_clip_stays_held_out_while_the_track_that_says_so_is_not_usable(tmp_path: Path) -> None:
    store = made_up_library(tmp_path)
    tracks = [
        replace(track, clip=f"clip {i // 2}", held_out=i in (4, 8))
        for i, track in enumerate(store.read_catalogue("made-up"))
    ]
    store.write_catalogue("made-up", tracks)
    usable = {track.id for track in tracks if not track.held_out}

    def test_set(only: set[str] | None) -> set[str]:
        splits = open_splits(store, "made-up", FeatureRecipe(), [TEACHER], SplitConfig(), only)
        return {row.track.id for row in splits.test}

    assert test_set(None) == {tracks[i].id for i in (4, 5, 8, 9)}
    assert test_set(usable) == {tracks[i].id for i in (5, 9)}
    with pytest.raises(UserError, match="none of the tracks that the source holds out"):
        test_set({tracks[i].id for i in (0, 2, 6, 10)})
