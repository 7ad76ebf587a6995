"""An exported file does on real audio what PyTorch does, says how it was made, or is refused."""

import asyncio
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from mlflow.tracking import MlflowClient
from onnx import numpy_helper

from etude.errors import UserError
from etude.experiments.audio import AudioExperiment, AudioStudy
from etude.export.audio import AudioRelease, gate_audio
from etude.export.onnx import export_onnx, read_metadata, run_onnx, session
from etude.export.parity import RealAudio, check_parity, compare, real_audio
from etude.export.publish import publish
from etude.sources import build_source
from etude.students import StudentConfig
from etude.systems.student_clap import StudentClap
from etude.tracking.mlflow import Tracking
from etude.training.loop import train

QUICK = StudentConfig(name="convnet", width=0.1, frame_stride=4)  # to export: mobilenet takes half a minute


@pytest.fixture(scope="module")
def settings(demo: AudioExperiment) -> AudioExperiment:
    data = demo.model_dump()
    return AudioExperiment(**data | {"student": QUICK, "training": {"epochs": 4, "batch_size": 4}})


@pytest.fixture(scope="module")
def study(settings: AudioExperiment) -> AudioStudy:
    return settings.open()


@pytest.fixture(scope="module")
def system(study: AudioStudy, tmp_path_factory: pytest.TempPathFactory) -> StudentClap:
    """Trained for a moment: before, its answers hardly depend on what it hears."""
    system = study.system(seed=0)
    trained(system, study, tmp_path_factory.mktemp("system"))
    return system.eval()


def trained(system: StudentClap, study: AudioStudy, folder: Path) -> Path:
    train(
        system,
        study,
        study.settings.training,
        seed=0,
        folder=folder,
        report=lambda metrics, path: None,
        identity=study.identity(),
    )
    return folder / "best.pt"


@pytest.fixture(scope="module")
def files(system: StudentClap, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("export")
    return [export_onnx(spec, folder) for spec in system.exports()]


@pytest.fixture(scope="module")
def audio(study: AudioStudy) -> RealAudio:
    return gate_audio(study.settings, study.test, study.validation)


def test_files_are_single_batched_and_named_as_the_seeds_name_them(files: list[Path]) -> None:
    assert sorted(path.name for path in files[0].parent.iterdir()) == [
        "student.onnx",
        "student_waveform.onnx",
    ]
    for path, name, shape in zip(
        files, ("mel_spectrogram", "waveform"), ([1, 128, 1001], [480_000]), strict=True
    ):
        model = onnx.load(path)
        assert model.opset_import[0].version == 18
        assert model.graph.input[0].name == name
        dims = model.graph.input[0].type.tensor_type.shape.dim
        assert dims[0].dim_param
        assert [dim.dim_value for dim in dims[1:]] == shape
        assert model.graph.output[0].name == "embedding"


def test_real_audio_passes_the_gate_in_any_batch(
    system: StudentClap, files: list[Path], audio: RealAudio
) -> None:
    results = check_parity(system.student, *files, audio)
    assert set(results) == {"mel_spectrogram", "waveform"}
    for parity in results.values():
        assert parity.n == len(audio.mels) > 2
        assert parity.min_cosine > 0.9999
    opened = session(files[0])
    one, three = (run_onnx(opened, audio.mels[:3, None], size) for size in (1, 3))
    np.testing.assert_allclose(one, three, atol=1e-4)


def test_a_file_with_other_weights_is_refused(
    system: StudentClap, files: list[Path], audio: RealAudio, tmp_path: Path
) -> None:
    model = onnx.load(files[0])
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    generator = np.random.default_rng(0)
    array = numpy_helper.to_array(weights)
    weights.CopyFrom(
        numpy_helper.from_array(generator.normal(size=array.shape).astype(array.dtype), weights.name)
    )
    onnx.save(model, tmp_path / "broken.onnx")
    with pytest.raises(UserError, match="does not agree with PyTorch"):
        check_parity(system.student, tmp_path / "broken.onnx", files[1], audio)


def test_changed_neighbours_are_noticed() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    assert compare(vectors, vectors + 1e-6).same_neighbours
    assert not compare(vectors, vectors[::-1].copy()).same_neighbours


def test_real_audio_is_whole_tracks_as_a_user_has_them(study: AudioStudy) -> None:
    row, settings = study.test[0], study.settings
    data = asyncio.run(build_source(settings.source, settings.cache).fetch(row.track))
    audio = real_audio(data, settings.recipe)
    assert audio.waveforms.shape == (len(row.segment_targets), 480_000)
    np.testing.assert_allclose(audio.mels, row.mel.segments(), atol=0.04)


def test_publishing_registers_and_the_better_one_is_champion(
    study: AudioStudy, mlflow_uri: str, tmp_path: Path
) -> None:
    tracking = Tracking(mlflow_uri, "publish-tests")

    def checkpoint(name: str, spoil: bool) -> Path:
        path = trained(study.system(seed=0), study, tmp_path / name)
        if spoil:
            state = torch.load(path, weights_only=True)
            state["model"]["student.head.norm.bias"].neg_()
            torch.save(state, path)
        return path

    outcomes = []
    for name, spoil in (("first", False), ("worse", True)):
        run_id = tracking.run(name, name)
        outcomes.append(
            publish(
                AudioRelease(study),
                checkpoint(name, spoil),
                tracking,
                run_id,
                tmp_path / "out" / name,
                {"git_commit": "abc"},
            )
        )
    first, worse = outcomes
    assert first.champion
    assert not worse.champion
    assert f"version {first.model.version}" in worse.verdict
    assert tracking.champion("etude-student-clap") == first.model
    record = read_metadata(first.files[0])
    assert record["recipe_id"] == study.settings.recipe.id
    assert record["teacher"] == study.teacher.id
    assert record["data_hash"] == study.data_hash
    assert record["git_commit"] == "abc"
    assert "waveform" in record["parity"]
    assert {path.name for path in first.folder.iterdir()} == {
        "README.md", "config.yaml", "student.onnx", "student_waveform.onnx", "test_set.png",
        "test_set.txt",
    }  # fmt: skip
    logged = {
        file.path for file in MlflowClient(mlflow_uri).list_artifacts(tracking.run("first", ""), "export")
    }
    assert {"export/README.md", "export/test_set.png", "export/student_waveform.onnx"} <= logged
