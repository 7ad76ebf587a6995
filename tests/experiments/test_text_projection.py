"""A text projection from a prepared library to files that put words among its music."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from etude.config import load
from etude.data.captions import prepare_captions
from etude.data.hdf5 import check_hdf5, read_hdf5, write_hdf5
from etude.data.projection import TrainingPairs
from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.experiments.base import configuration
from etude.experiments.library import prepared_rows
from etude.experiments.spaces import SPACES, OverSpaces
from etude.experiments.text_projection import TextProjectionExperiment, TextProjectionStudy
from etude.export.onnx import read_metadata, write_metadata
from etude.export.rebuild import rebuild
from etude.export.release import export_checkpoint
from etude.export.text_projection import HEAD, TEXT, TextProjectionRelease, add_to_summary
from etude.inference.projection import Projection
from etude.sources import build_source
from etude.students.projection import ProjectionHeadConfig
from etude.systems.text_projection import TextProjection
from etude.training.checkpoint import load_checkpoint
from etude.training.loop import train
from etude.training.plan import TrainingConfig
from tests.support.tiny_qwen import write_tiny_qwen


def experiment(demo: AudioExperiment, **changes: object) -> TextProjectionExperiment:
    usual = {"head": ProjectionHeadConfig(hidden=32), "training": TrainingConfig(epochs=4, batch_size=4)}
    return TextProjectionExperiment(
        home=demo.home, source=demo.source, prepare=demo.prepare, **(usual | changes)
    )


@pytest.fixture(scope="module")
def settings(demo: AudioExperiment) -> TextProjectionExperiment:
    settings = experiment(demo)
    tracks = [row.track for row in prepared_rows(settings)]
    prepare_captions(settings.store, tracks, settings.captions, settings.cache, lambda done, total: None)
    return settings


@pytest.fixture(scope="module")
def study(settings: TextProjectionExperiment) -> TextProjectionStudy:
    return settings.open()


@pytest.fixture(scope="module")
def trained(study: TextProjectionStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learn(study, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def exported(study: TextProjectionStudy, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    release = rebuild(trained / "best.pt", ["--home", str(study.settings.home)])
    export_checkpoint(release, trained / "best.pt", folder, "commit")
    return folder


def learn(study: TextProjectionStudy, folder: Path) -> Path:
    settings = study.settings
    train(
        study.system(settings.seed), study, settings.training, seed=settings.seed, folder=folder,
        report=lambda metrics, path: None, identity=study.identity(), configuration=configuration(settings),
    )  # fmt: skip
    return folder


def test_the_space_is_as_wide_as_the_library_has_it(study: TextProjectionStudy) -> None:
    assert study.dim == len(study.enrichment.blocks) * 200
    assert study.system(0).text.head.linear2.out_features == study.dim
    vectors = study.test.audio(range(len(study.test)))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)


def test_all_tracks_come_once_before_any_comes_again(study: TextProjectionStudy) -> None:
    data = TrainingPairs(study.splits.train, captions_per_track=3)
    n_tracks = len(study.splits.train)
    batches = list(data.batches(n_tracks, seed=1, epoch=0))
    assert len(batches) == data.steps(n_tracks) == 3
    for batch in batches:
        assert sorted(batch.track.tolist()) == list(range(n_tracks))
    assert len({tuple(sorted(batch.caption.tolist())) for batch in batches}) > 1
    drawn = [track for batch in data.batches(4, seed=1, epoch=0) for track in batch.track.tolist()]
    for start in range(0, len(drawn) - n_tracks, n_tracks):
        assert sorted(drawn[start : start + n_tracks]) == list(range(n_tracks))


def test_workers_share_the_same_batches(study: TextProjectionStudy) -> None:
    data = TrainingPairs(study.splits.train, captions_per_track=2)
    whole = list(data.batches(4, seed=0, epoch=3))
    halves = [list(data.batches(4, seed=0, epoch=3, rank=rank, world_size=2)) for rank in (0, 1)]
    for batch, *shares in zip(whole, *halves, strict=True):
        for rank, share in enumerate(shares):
            torch.testing.assert_close(share.audio, batch.audio[rank::2])
            assert share.caption.tolist() == batch.caption[rank::2].tolist()
    with pytest.raises(UserError, match="cannot be shared by 3 workers"):
        next(data.batches(4, seed=0, epoch=0, world_size=3))


def test_learning_brings_captions_nearer_and_keeps_both_bests(
    study: TextProjectionStudy, trained: Path
) -> None:
    history = load_checkpoint(trained / "epoch-0004.pt")["history"]
    assert history[-1]["train/loss"] < history[0]["train/loss"]
    by_loss = load_checkpoint(trained / "best_loss.pt")["history"][-1]["validation/loss"]
    assert by_loss == min(entry["validation/loss"] for entry in history)
    by_score = load_checkpoint(trained / "best.pt")["history"][-1]["score"]
    assert by_score == max(entry["score"] for entry in history)
    assert {"validation/t2a_R_at_1", "validation/a2t_MRR", "validation/t2a_median_rank"} <= history[0].keys()


def test_a_run_resumes_to_the_same_losses(study: TextProjectionStudy, trained: Path, tmp_path: Path) -> None:
    half = study.settings.training.model_copy(update={"epochs": 2, "schedule": "plateau"})
    whole = half.model_copy(update={"epochs": 4})
    identity = study.identity()

    def run(folder: Path, config: TrainingConfig) -> list[float]:
        system = study.system(0)
        train(system, study, config, seed=0, folder=folder, report=lambda m, p: None, identity=identity)
        return (
            [m["train/loss"] for m in load_checkpoint(folder / "epoch-0004.pt")["history"]]
            if config is whole
            else []
        )

    run(tmp_path / "a", half)
    assert run(tmp_path / "a", whole) == run(tmp_path / "b", whole)


def test_the_files_put_words_where_pytorch_does_and_find_the_library(
    study: TextProjectionStudy, trained: Path, exported: Path
) -> None:
    assert {HEAD, TEXT, "tokenizer.json", "retrieval.png", "README.md"} <= {
        p.name for p in exported.iterdir()
    }
    record = read_metadata(exported / HEAD)
    assert record["space_id"] == read_metadata(exported / TEXT)["space_id"]
    assert record["enrichment"]["blocks"] == list(study.enrichment.blocks)
    opened = Projection(exported, study.settings.home)
    texts = [study.test.captions[0][0], "slow piano piece in a minor key"]
    system = study.system(0, load_checkpoint(trained / "best.pt")["model"]).eval()
    with torch.inference_mode():
        expected = system.text(*study.encoder.tokens(texts, queries=True)).numpy()
    np.testing.assert_allclose(opened.text(texts), expected, atol=1e-4)
    tracks, vectors_ND = opened.library(build_source(study.settings.source, study.settings.cache))
    assert len(tracks) == len(vectors_ND) == 9
    with pytest.raises(UserError, match="the query is empty"):
        opened.text([" "])


def test_files_of_two_runs_refuse_each_other(exported: Path, tmp_path: Path, trained: Path) -> None:
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    record = read_metadata(tmp_path / TEXT)
    write_metadata(tmp_path / TEXT, record | {"space_id": "another"})
    with pytest.raises(UserError, match="is of another run"):
        Projection(tmp_path, tmp_path)


def test_adapters_learn_and_checkpoints_hold_nothing_of_the_encoder(
    demo: AudioExperiment, settings: TextProjectionExperiment, tmp_path: Path
) -> None:
    config = {"name": "minilm", "lora": {"rank": 2, "alpha": 4}}
    training = TrainingConfig(epochs=2, batch_size=4, learning_rate=5e-3)
    study = experiment(demo, encoder=config, training=training).open()
    before = study.system(0)
    state = load_checkpoint(learn(study, tmp_path) / "best.pt")["model"]
    in_encoder = {name for name in state if name.startswith("text.encoder.")}
    assert in_encoder and all("lora_" in name for name in in_encoder)
    assert any((state[name] != before.state_dict()[name]).any() for name in in_encoder)
    again = study.system(5, state)  # whatever adapters it began with
    texts = study.encoder.tokens(["a slow waltz for piano", "loud brass"], queries=True)
    first = study.system(0, state)
    with torch.inference_mode():
        torch.testing.assert_close(again.eval().text(*texts), first.eval().text(*texts), rtol=0, atol=0)


def test_adapters_have_their_own_learning_rate(
    demo: AudioExperiment, settings: TextProjectionExperiment
) -> None:
    study = experiment(
        demo, encoder={"name": "minilm", "lora": {"rank": 2}}, objective={"encoder_rate": 0.25}
    ).open()
    system = study.system(0)
    rates = {name.split(".")[1]: system.rate_of(name) for name, _ in system.named_parameters() if "." in name}
    assert rates["encoder"] == 0.25
    assert rates["head"] == 1.0


def test_stage_two_leaves_the_adapters_alone(
    demo: AudioExperiment, settings: TextProjectionExperiment
) -> None:
    system = experiment(demo, encoder={"name": "minilm", "lora": {"rank": 2}}).open().system(0)
    system.train_head_only()
    trained = {name for name, parameter in system.named_parameters() if parameter.requires_grad}
    assert trained and not any(name.startswith("text.encoder.") for name in trained)


def test_cached_gradients_have_the_loss_of_the_same_chunks(study: TextProjectionStudy) -> None:
    batch = next(study.training.batches(6, seed=0, epoch=0))
    losses = []
    for chunk in (None, 3):
        objective = study.settings.objective.model_copy(
            update={"contrastive": study.settings.objective.contrastive.model_copy(update={"chunk": chunk})}
        )
        torch.manual_seed(0)
        head = study.settings.head.model_copy(update={"dropout": 0.0})
        system = TextProjection(
            study.encoder, head, objective, dim=study.dim
        ).eval()  # no statistics of chunks
        loss = system.losses(batch)["contrastive"]
        loss.backward()
        losses.append((loss.detach(), system.text.head.linear1.weight.grad))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("qwen", "lora"),
    [
        (True, {"rank": 2}),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((True, None), (False, None), (False, {"rank": 2}))
        ),
    ],
)
def test_a_later_model_is_judged_beside_these_files(
    demo: AudioExperiment, settings: TextProjectionExperiment, tmp_path: Path, qwen: bool, lora: object
) -> None:
    """Whoever is champion must be scored by its files, with captions that are longer than it reads, too."""
    encoder = {"name": "minilm", "lora": lora}
    if qwen:
        model = write_tiny_qwen(tmp_path / "qwen")
        encoder = {"name": "qwen3", "model": str(model), "lora": lora, "max_tokens": 64}
    training = TrainingConfig(epochs=1, batch_size=4)
    study = experiment(demo, encoder=encoder, training=training).open()
    spoken = [(*captions, f"{captions[0]} {'very ' * 300}slow") for captions in study.validation.captions]
    splits = replace(study.splits, validation=replace(study.validation, captions=spoken))
    study = replace(study, splits=splits)
    release = TextProjectionRelease(study)
    learn(study, tmp_path / "run")
    done = export_checkpoint(release, tmp_path / "run" / "best.pt", tmp_path / "files", "commit")
    registered = done.files[0].rename(done.files[0].with_name("model.onnx"))  # as the registry returns it
    found = release.score([registered, *done.files[1:], *done.beside])
    assert found.named()["t2a_MRR"] == pytest.approx(done.validation.named()["t2a_MRR"], abs=1e-6)


def test_spaces_with_other_tracks_share_a_file_for_those_that_all_have(
    study: TextProjectionStudy, tmp_path: Path
) -> None:
    missing = study.splits.train.dataset[1].track.id
    ids = {row.track.id for row in study.splits.train.dataset} - {missing}
    fewer = replace(study.splits, train=study.splits.train.only(ids))
    for number, spaces in enumerate(({"a": study.splits, "b": fewer}, {"b": fewer, "a": study.splits})):
        path = tmp_path / f"{number}.h5"
        write_hdf5(path, spaces, {})
        found = read_hdf5(path)["train"]
        assert not any(name.startswith(missing) for name in found.audio_ids)
        np.testing.assert_array_equal(found.vectors["a"], found.vectors["b"])
    none = replace(study.splits, train=study.splits.train.only({missing}))
    with pytest.raises(UserError, match="no track of the train set is in all of a, b"):
        write_hdf5(tmp_path / "none.h5", {"a": none, "b": fewer}, {})
    assert not (tmp_path / "none.h5").exists()


def test_the_hdf5_file_is_read_back_as_written(study: TextProjectionStudy, tmp_path: Path) -> None:
    path = tmp_path / "embeddings.h5"
    spaces = {"musicnn": study.splits}
    n_rows = write_hdf5(path, spaces, {"seed": 0})
    check_hdf5(path, spaces)
    found = read_hdf5(path)
    assert n_rows == sum(len(group.captions) for group in found.values())
    first = study.splits.train.dataset[0].track.id
    assert found["train"].audio_ids[:3] == (f"{first}_main", f"{first}_alt", f"{first}_3")
    np.testing.assert_array_equal(found["train"].vectors["musicnn"][0], study.splits.train.audio([0])[0])
    (tmp_path / "no.h5").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is no HDF5 file of embeddings"):
        read_hdf5(tmp_path / "no.h5")


def test_a_changed_hdf5_file_is_noticed(study: TextProjectionStudy, tmp_path: Path) -> None:
    path, spaces = tmp_path / "embeddings.h5", {"musicnn": study.splits}
    write_hdf5(path, spaces, {})
    with h5py.File(path, "r+") as file:
        file["val/musicnn_embeddings"][0, 0] += 1
    with pytest.raises(UserError, match="does not hold what was written of musicnn"):
        check_hdf5(path, spaces)


def test_the_summary_keeps_other_spaces_and_has_the_seeds_names(
    study: TextProjectionStudy, tmp_path: Path
) -> None:
    (tmp_path / "exports" / "text-projection").mkdir(parents=True)
    figures = study.system(0).evaluate(study.test, 4)
    add_to_summary(tmp_path, "muq", figures)
    summary = json.loads(add_to_summary(tmp_path, "musicnn", figures).read_text())
    assert set(summary) == {"muq", "musicnn"}
    assert {"t2a_R@1", "t2a_R@5", "t2a_R@10", "t2a_MRR", "t2a_median_rank", "a2t_R@1", "loss"} <= set(
        summary["muq"]
    )
    assert 0 <= summary["muq"]["t2a_R@10"] <= 100 and 0 <= summary["muq"]["t2a_MRR"] <= 1


def test_a_space_is_short_for_its_teacher(demo: AudioExperiment) -> None:
    one = OverSpaces(home=demo.home, space="musicnn")
    assert (one.teacher.name, one.space_name, [each.teacher.name for each in one.each()]) == (
        "msd_musicnn", "musicnn", ["msd_musicnn"],
    )  # fmt: skip
    local = load(OverSpaces, ["--space", "muq", "--teacher.weights", "/models/muq"])
    assert (local.teacher.name, local.teacher.weights) == ("muq", "/models/muq")
    every = OverSpaces(space="all", prepare={"also": [{"name": "mtt_musicnn"}]})
    assert {one.teacher.name for one in every.each()} == {*SPACES.values(), "mtt_musicnn"}
    beside = OverSpaces(space="muq", prepare={"also": [{"name": "mert"}]})
    assert [one.teacher.name for one in beside.each()] == ["muq"]
    with pytest.raises(UserError, match=r"prepare\.also"):
        load(OverSpaces, ["--space", "all", "--prepare.also", "3"])
    with pytest.raises(ValidationError, match=r"space musicnn is the teacher msd_musicnn.*leave one out"):
        OverSpaces(home=demo.home, space="musicnn", teacher={"name": "mtt_musicnn"})
    assert set(SPACES) == {"latent", "muq", "mert", "musicnn"}
