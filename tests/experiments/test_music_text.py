"""A music-text pair from a prepared library to files that find music by words."""

from pathlib import Path

import pytest
import torch

from etude import workflow
from etude.data.captions import prepare_captions
from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.experiments.base import configuration, fingerprint
from etude.experiments.library import prepared_rows
from etude.experiments.music_text import MusicTextExperiment
from etude.export.music_text import MusicTextRelease
from etude.export.onnx import read_metadata
from etude.export.publish import Published, publish
from etude.export.rebuild import rebuild
from etude.export.release import export_checkpoint
from etude.inference.index import open_index
from etude.inference.pair import open_pair
from etude.students import StudentConfig
from etude.students.text_encoder import TextStudentConfig
from etude.students.tokenizer import TokenizerConfig
from etude.tracking.mlflow import Tracking
from etude.training.checkpoint import load_checkpoint
from etude.training.loop import train
from etude.training.plan import TrainingConfig
from etude.tuning.space import check_space
from etude.workflow import TrainSettings, train_and_publish


def experiment(demo: AudioExperiment, **changes: object) -> MusicTextExperiment:
    return MusicTextExperiment(
        home=demo.home, source=demo.source, prepare=demo.prepare, dim=32,
        music=StudentConfig(name="convnet", width=0.1, frame_stride=8),
        text=TextStudentConfig(name="mean", hidden=16, max_tokens=77),
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


@pytest.mark.slow
def test_a_champion_of_other_words_is_judged_with_its_own_tokenizer(
    settings: MusicTextExperiment, mlflow_uri: str, tmp_path: Path
) -> None:
    tracking = Tracking(mlflow_uri, "music-text-words")

    def published(name: str, **changes: object) -> Published:
        data = settings.model_dump() | {"tokenizer": None} | changes
        chosen = MusicTextExperiment.model_validate(data).pinned()
        best = learn(chosen, tmp_path / f"run-{name}")
        release = MusicTextRelease(chosen.open())
        return publish(release, best, tracking, tracking.run(name, name), tmp_path / name, {})

    first = published("words")
    again = published("words")
    assert again.champion == first.champion  # the same, exported again
    other = {"text": settings.text.model_copy(update={"max_tokens": 60}).model_dump()}
    second = published("pieces", learned_tokenizer={"kind": "bpe"}, **other)
    contents = {(one.folder / "tokenizer.json").read_bytes() for one in (first, second)}
    assert len(contents) == 2
    assert "text_to_music_mrr" in second.verdict


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
    other = rebuild(best, ["--home", str(settings.home), "--objective.contrastive.form", "sigmoid"])
    with pytest.raises(UserError, match="holds another pair than its configuration says"):
        export_checkpoint(other, best, tmp_path / "other", "abc")


def test_two_teachers_of_texts_and_of_music_are_learned_in_two_stages_and_learned_on(
    settings: MusicTextExperiment, tmp_path: Path
) -> None:
    data = settings.model_dump() | {"text_teacher": {"name": "minilm"}}
    plan = {"epochs": 1, "batch_size": 6, "stage2_epochs": 1}
    chosen = MusicTextExperiment.model_validate(data | {"training": plan})
    best = learn(chosen, tmp_path / "run")
    first = load_checkpoint(tmp_path / "run" / "epoch-0001.pt")
    second = load_checkpoint(tmp_path / "run" / "epoch-0002.pt")
    assert second["history"][1]["stage"] == 2
    frozen = {name for name, value in first["model"].items() if torch.equal(value, second["model"][name])}
    assert {name for name in first["model"] if name.startswith(("music.backbone", "text.tokens"))} <= frozen
    assert not {name for name in first["model"] if name.startswith("projections")} & frozen
    assert "train/text" in second["history"][0]

    go_on = {
        "epochs": 3, "batch_size": 6, "start_from": tmp_path / "run" / "epoch-0001.pt",
        "reset": ["optimizer", "schedule", "logit_scale"],
    }  # fmt: skip
    learn(MusicTextExperiment.model_validate(data | {"training": go_on}), tmp_path / "more")
    assert load_checkpoint(tmp_path / "more" / "epoch-0003.pt")["epoch"] == 3
    release = rebuild(best, ["--home", str(settings.home)])
    exported = export_checkpoint(release, best, tmp_path / "out", "abc")
    assert "minilm" in str(exported.record["teacher"])
    assert any(line.name == "skill of text" for line in exported.test.lines("tracks"))


def test_what_shapes_a_pair_changes_its_name(settings: MusicTextExperiment, demo: AudioExperiment) -> None:
    names = {fingerprint(settings.open())}
    for change in ({"dim": 16}, {"objective": {"weights": {"contrastive": 1.0}}}):
        other = MusicTextExperiment.model_validate(settings.model_dump() | change)
        names.add(fingerprint(other.open()))
    assert len(names) == 3
    assert settings.pinned() == settings
    learned = settings.model_copy(
        update={"tokenizer": None, "learned_tokenizer": TokenizerConfig(kind="bpe")}
    )
    assert fingerprint(learned.pinned().open()) not in names
    with pytest.raises(UserError, match="trials must share learned_tokenizer"):
        check_space(["learned_tokenizer.vocabulary"], MusicTextExperiment)
    cost = settings.cost()
    assert cost.parameters > 0


def test_a_home_that_moved_has_its_tokenizer_and_its_runs(
    settings: MusicTextExperiment, tmp_path: Path
) -> None:
    assert settings.tokenizer
    name = fingerprint(settings.open())
    elsewhere = settings.model_copy(update={"tokenizer": tmp_path / "gone" / settings.tokenizer.name})
    assert elsewhere.pinned().tokenizer == settings.tokenizer
    copy = tmp_path / "tokenizer.json"
    copy.write_bytes(settings.tokenizer.read_bytes())
    assert fingerprint(settings.model_copy(update={"tokenizer": copy}).open()) == name
    nowhere = settings.model_copy(update={"tokenizer": tmp_path / "nowhere.json"}).pinned()
    with pytest.raises(UserError, match=r"cannot read the tokenizer .*nowhere\.json"):
        nowhere.open()


def test_what_was_never_trained_is_not_exported_and_starts_nothing(
    settings: MusicTextExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Job(TrainSettings, MusicTextExperiment):
        pass

    monkeypatch.setattr(workflow, "connect", None)
    with pytest.raises(UserError, match="has learned nothing yet: train it first"):
        train_and_publish(Job(**settings.model_dump()), MusicTextExperiment, MusicTextRelease, learn=False)


def test_without_captions_it_says_which_command_makes_them(demo: AudioExperiment) -> None:
    from etude.sources.captions import TemplateCaptions

    with pytest.raises(UserError, match=r"no track of demo-.* has captions .* run jobs/train_music_text.py"):
        experiment(demo, captions=TemplateCaptions(seed=99)).pinned()
