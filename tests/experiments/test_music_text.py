"""A music-text pair from a prepared library to files that find music by words."""

from pathlib import Path

import pytest

from etude.data.captions import prepare_captions
from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.experiments.base import configuration, fingerprint
from etude.experiments.library import prepared_rows
from etude.experiments.music_text import MusicTextExperiment
from etude.export.music_text import MusicTextRelease
from etude.export.onnx import read_metadata
from etude.export.publish import publish
from etude.export.rebuild import rebuild
from etude.export.release import export_checkpoint
from etude.inference.index import open_index
from etude.inference.pair import open_pair
from etude.students import StudentConfig
from etude.students.text_encoder import TextStudentConfig
from etude.tracking.mlflow import Tracking
from etude.training.loop import train
from etude.training.plan import TrainingConfig


def experiment(demo: AudioExperiment, **changes: object) -> MusicTextExperiment:
    return MusicTextExperiment(
        home=demo.home, source=demo.source, prepare=demo.prepare, dim=32,
        music=StudentConfig(name="convnet", width=0.1, frame_stride=8),
        text=TextStudentConfig(name="mean", hidden=16, max_tokens=48),
        training=TrainingConfig(epochs=2, batch_size=6), **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def settings(demo: AudioExperiment) -> MusicTextExperiment:
    unpinned = experiment(demo)
    tracks = [row.track for row in prepared_rows(unpinned)]
    report = prepare_captions(
        unpinned.store, tracks, unpinned.captions, unpinned.cache, lambda done, total: None
    )
    assert (report.made + report.found, report.quarantined) == (9, [])
    return unpinned.pinned()


def learn(settings: MusicTextExperiment, folder: Path) -> Path:
    study = settings.open()
    train(
        study.system(settings.seed), study, settings.training, seed=settings.seed, folder=folder,
        report=lambda metrics, path: None, identity=study.identity(), configuration=configuration(settings),
    )  # fmt: skip
    return folder / "best.pt"


def test_from_captions_to_files_that_find_music(
    settings: MusicTextExperiment, mlflow_uri: str, tmp_path: Path
) -> None:
    assert settings.tokenizer
    assert settings.tokenizer.parent == settings.home / "tokenizers"
    tracking = Tracking(mlflow_uri, "music-text-tests")
    published = []
    for seed in (0, 1):
        chosen = settings.model_copy(update={"seed": seed})
        best = learn(chosen, tmp_path / f"run-{seed}")
        run_id = tracking.run(f"music-text-{seed}", "music-text")
        release = MusicTextRelease(chosen.open())
        published.append(publish(release, best, tracking, run_id, tmp_path / f"out-{seed}", {}))
    first, second = published
    assert first.champion
    assert "text_to_music_mrr" in second.verdict  # both were judged on the same captions
    assert {path.name for path in first.folder.iterdir()} == {
        "README.md", "config.yaml", "music_encoder.onnx", "music_encoder_waveform.onnx", "retrieval.png",
        "text_encoder.onnx", "tokenizer.json",
    }  # fmt: skip
    assert all(parity.min_cosine > 0.9999 for parity in first.parity.values())
    assert set(first.parity) == {"mel_spectrogram", "waveform", "input_ids"}

    # The files alone find tracks by words, as searching has it.
    pair = open_pair(first.folder)
    rows = prepared_rows(settings)
    vector = pair.text(["a slow piece for strings"])[0]
    index = open_index([row.track for row in rows], pair.tracks(rows, tmp_path / "cache"), tmp_path / "index")
    assert len(index.search(vector, 3)) == 3

    with pytest.raises(UserError, match="were exported by different runs"):
        open_pair(first.folder / "music_encoder.onnx", second.folder / "text_encoder.onnx")


def test_a_checkpoint_says_all_that_its_export_needs(settings: MusicTextExperiment, tmp_path: Path) -> None:
    best = learn(settings, tmp_path / "run")
    release = rebuild(best, ["--home", str(settings.home)])
    assert isinstance(release, MusicTextRelease)
    files = [
        export_checkpoint(one, best, tmp_path / str(i), "abc").files
        for i, one in enumerate((release, MusicTextRelease(settings.open())))
    ]
    records = [read_metadata(file) for one in files for file in one]
    assert len({record["space_id"] for record in records}) == 1
    open_pair(files[0][0], files[1][2])  # exported twice, it is the same pair


def test_what_shapes_a_pair_changes_its_name(settings: MusicTextExperiment, demo: AudioExperiment) -> None:
    names = {fingerprint(settings.open())}
    for change in ({"dim": 16}, {"objective": {"weights": {"contrastive": 1.0}}}):
        other = MusicTextExperiment.model_validate(settings.model_dump() | change)
        names.add(fingerprint(other.open()))
    assert len(names) == 3
    assert settings.pinned() == settings
    cost = settings.cost()
    assert cost.parameters > 0


def test_without_captions_it_says_which_command_makes_them(demo: AudioExperiment) -> None:
    from etude.sources.captions import TemplateCaptions

    with pytest.raises(UserError, match=r"no track of demo-.* has captions .* run jobs/train_music_text.py"):
        experiment(demo, captions=TemplateCaptions(seed=99)).pinned()
