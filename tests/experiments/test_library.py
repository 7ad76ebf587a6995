"""Audio spaces are prepared and read like any teacher, but no student learns segments from them."""

import importlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etude.audio.decode import decode
from etude.audio.recipe import FeatureRecipe
from etude.config import load
from etude.data.batches import open_splits
from etude.data.features import Featurize
from etude.data.shards import PREPARED, write_rows
from etude.data.split import SplitConfig
from etude.data.store import Store
from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.experiments.library import LibraryExperiment
from etude.experiments.music_text import MusicTextExperiment
from etude.inference.settings import EmbedLibrary
from etude.services.doctor import Doctor
from etude.sources.base import Track
from etude.teachers import Music2LatentConfig, build_teacher
from tests.support import music2latent as package

SPACE = ["--teacher.name", "music2latent"]


def test_a_student_of_segments_refuses_an_audio_space() -> None:
    said = "the teacher Music2Latent gives vectors of windows of its own, not of segments.*choose another"
    for kind in (AudioExperiment, MusicTextExperiment):
        with pytest.raises(UserError, match=said):
            load(kind, SPACE)
    also = ["--prepare.also", '[{"name": "music2latent"}]']
    assert load(AudioExperiment, also).teachers[1].name == "music2latent"
    with pytest.raises(UserError, match=said):  # a pair learns from all of them
        load(MusicTextExperiment, also)


@pytest.mark.parametrize(("kind", "student"), [(AudioExperiment, "student"), (MusicTextExperiment, "music")])
def test_a_recomputed_student_is_not_compiled(kind: type[LibraryExperiment], student: str) -> None:
    recomputed, compiled = f"--{student}.recompute_activations", "--training.compile"
    with pytest.raises(UserError, match=rf"compile and {student}\.recompute_activations to false"):
        load(kind, [recomputed, compiled])
    load(kind, [recomputed])
    load(kind, [compiled])


def test_what_learns_nothing_takes_any_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "jobs")
    prepare: Any = importlib.import_module("prepare_audio")
    for kind in (prepare.PrepareAudio, EmbedLibrary, Doctor):
        assert load(kind, SPACE).teacher.name == "music2latent"


def test_windows_are_stored_and_read_however_many_segments_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chorale_wav: bytes
) -> None:
    """With a stand-in for the package music2latent: a window every tenth of a second."""
    package.install(monkeypatch)
    config, recipe = Music2LatentConfig(weights=str(package.write_weights(tmp_path))), FeatureRecipe()
    tracks = [Track(f"{i}", f"{i}.wav", f"Track {i}") for i in range(3)]
    found = Featurize(recipe, [config], 3.5, -60.0).features(chorale_wav, tracks[0], True, [True])
    rows = [{"track_id": track.id, "status": "prepared"} | found for track in tracks]
    write_rows(pa.Table.from_pylist(rows, schema=PREPARED), str(tmp_path / "store"), recipe)
    store, teacher = Store(tmp_path / "store"), build_teacher(config)
    store.write_catalogue("a-source", tracks)
    splits = open_splits(store, "a-source", recipe, [teacher.id], SplitConfig())
    (row,) = splits.test
    expected = teacher.embed(decode(chorale_wav), None, tracks[0])  # type: ignore[arg-type]
    assert row.segment_targets.shape == expected.segments.shape and len(row.segment_targets) > 200
    assert (row.segment_targets == expected.segments).all() and (row.track_target == expected.track).all()
    assert len(row.mel) == 4  # segments
