"""`jobs/export.py`: from a checkpoint to files and to a try of them, or one sentence."""

import asyncio
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from etude.cli import guarded
from etude.experiments.audio import AudioExperiment, AudioStudy
from etude.experiments.base import Experiment, configuration
from etude.experiments.text import TextExperiment
from etude.export.onnx import read_metadata, run_onnx, session
from etude.sources import build_source
from etude.training.loop import train

REPOSITORY = Path(__file__).resolve().parents[2]
QUICK = {"name": "convnet", "width": 0.1, "frame_stride": 4}
Job = Callable[..., int]


@pytest.fixture(scope="module")
def job(home: Path) -> Job:
    spec = importlib.util.spec_from_file_location("export_job", REPOSITORY / "jobs" / "export.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # The environment of the tests names another home, which goes before a checkpoint's own.
    return lambda *words: guarded(module.main)([*map(str, words), "--home", str(home)])


def trained(settings: Experiment, folder: Path) -> Path:
    study = settings.open()
    train(
        study.system(seed=0),
        study,
        settings.training,
        seed=0,
        folder=folder,
        report=lambda metrics, path: None,
        identity=study.identity(),
        configuration=configuration(settings),
    )
    return folder / "best.pt"


@pytest.fixture(scope="module")
def settings(demo: AudioExperiment) -> AudioExperiment:
    data = demo.model_dump()
    return AudioExperiment(**data | {"student": QUICK, "training": {"epochs": 4, "batch_size": 4}})


@pytest.fixture(scope="module")
def study(settings: AudioExperiment) -> AudioStudy:
    return settings.open()


@pytest.fixture(scope="module")
def checkpoint(settings: AudioExperiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(settings, tmp_path_factory.mktemp("runs") / "mine")


@pytest.fixture
def changed(checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the checkpoint with some of its values replaced."""

    def change(**values: Any) -> Path:
        state = torch.load(checkpoint, weights_only=True)
        torch.save(state | values, tmp_path / "changed.pt")
        return tmp_path / "changed.pt"

    return change


@pytest.fixture(scope="module")
def song(study: AudioStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that the library holds too, under its title."""
    row = study.test[0]
    path = tmp_path_factory.mktemp("songs") / f"{row.track.title}.wav"
    path.write_bytes(asyncio.run(build_source(study.settings.source, study.settings.cache).fetch(row.track)))
    return path


def test_a_runs_folder_is_all_it_needs(
    job: Job, checkpoint: Path, study: AudioStudy, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(checkpoint.parent) == 0
    folder = home / "exports" / "student-clap" / "mine-best"
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.yaml", "student.onnx", "student_waveform.onnx", "test_set.png", "test_set.txt",
    }  # fmt: skip
    said = capsys.readouterr().out
    for name, form in (("student.onnx", "mel_spectrogram"), ("student_waveform.onnx", "waveform")):
        record = read_metadata(folder / name)
        assert record["recipe_id"] == study.settings.recipe.id
        assert record["teacher"] == study.teacher.id
        assert set(record["parity"]) == {"mel_spectrogram", "waveform"}  # type: ignore[arg-type, call-overload]
        assert f"ONNX: {folder / name}" in said
        assert f"{form} against PyTorch on" in said
    assert yaml.safe_load((folder / "config.yaml").read_text())["student"]["width"] == 0.1
    system = study.system(0, torch.load(checkpoint, weights_only=True)["model"]).eval()
    expected, _ = system.embed(study.test, 4)
    mels = study.test[0].mel.segments()[:, None]
    np.testing.assert_allclose(
        run_onnx(session(folder / "student.onnx"), mels, 4), expected[: len(mels)], atol=1e-3
    )


def test_a_try_shows_tracks_by_student_and_teacher(
    job: Job, checkpoint: Path, song: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(checkpoint, "--out", tmp_path / "out", "--test", song) == 0
    said = capsys.readouterr().out
    lines = said[said.index("the 9 nearest of 9 prepared tracks") :].splitlines()
    first = next(line for line in lines if line.startswith("  1 "))
    assert first.count(song.stem[:20]) == 2  # it knows itself, by either
    assert first.split()[1] in ("0.999", "1.000")
    assert lines[-1] == "9 of 9 are the same"
    parts = {path: path.stat().st_mtime_ns for path in (home / "cache" / "nearest").rglob("*.parquet")}
    assert parts
    assert job(checkpoint, "--out", tmp_path / "out", "--test", song) == 0
    assert capsys.readouterr().out == said
    assert {p: p.stat().st_mtime_ns for p in (home / "cache" / "nearest").rglob("*.parquet")} == parts


@pytest.mark.slow
def test_an_8_bit_form_is_there_only_if_the_figures_say_so(
    job: Job, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(checkpoint, "--out", tmp_path, "--int8") == 0
    said = capsys.readouterr().out
    assert "ms a segment on one thread" in said
    kept, card = tmp_path / "student_int8.onnx", (tmp_path / "README.md").read_text()
    assert kept.exists() != ("INT8 is not offered" in said)
    assert kept.exists() == ("8-bit form" in card)
    kept.write_text("of the student that is replaced now")
    assert job(checkpoint, "--out", tmp_path) == 0
    assert not kept.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot read"),
        (b"nonsense" * 99, "unreadable"),
        ("short", "too short"),
        ("silent", "silent"),
    ],
)
def test_a_file_that_cannot_be_tried_is_refused_before_anything_is_exported(
    job: Job,
    checkpoint: Path,
    tmp_path: Path,
    content: bytes | str | None,
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import soundfile

    path = tmp_path / "mine.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        tone = 0.1 * np.sin(np.arange(48_000 * (1 if content == "short" else 8)) / 20)
        soundfile.write(path, tone if content == "short" else 0 * tone, 48_000)
    assert job(checkpoint, "--out", tmp_path / "out", "--test", path) == 2
    said = capsys.readouterr().err.strip()
    assert reason in said and str(path) in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


class Runs:
    """Unpickling it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_checkpoint_with_code_is_not_run(
    job: Job, changed: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(changed(extra=Runs(tmp_path / "was-run"))) == 2
    assert "holds code, which Étude never runs" in capsys.readouterr().err
    assert not (tmp_path / "was-run").exists()


def test_what_is_no_whole_checkpoint_is_refused(
    job: Job, checkpoint: Path, changed: Callable[..., Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    whole = checkpoint.read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("nonsense")
    (tmp_path / "words.pt").write_text("slow piano\nloud drums\n")  # which break the reader elsewhere
    (tmp_path / "empty.pt").write_bytes(b"")
    cases = {
        tmp_path / "nowhere.pt": "there is no",
        tmp_path: "give a checkpoint, or the folder of a run",
        tmp_path / "half.pt": "is no whole checkpoint",
        tmp_path / "text.pt": "is no whole checkpoint",
        tmp_path / "words.pt": "is no whole checkpoint",
        tmp_path / "empty.pt": "is no whole checkpoint",
    }
    for part in ("config", "identity", "model"):
        for value in ({}, [1]):
            path = tmp_path / f"{part}-{len(value)}.pt"
            cases[changed(**{part: value}).rename(path)] = "does not say which configuration made it"
    for path, reason in cases.items():
        assert job(path) == 2
        said = capsys.readouterr().err.strip()
        assert reason in said, said
        assert len(said.splitlines()) == 1


def test_a_checkpoint_of_something_else_is_refused(
    job: Job, checkpoint: Path, changed: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(checkpoint, weights_only=True)
    old = state["config"] | {"recipe": state["config"]["recipe"] | {"decoder": "pyav-0+soxr-0"}}
    assert job(changed(config=old)) == 2
    assert "learned from audio as pyav-0+soxr-0 decodes it" in capsys.readouterr().err
    assert job(changed(identity=state["identity"] | {"recipe": "0123456789ab"})) == 2
    assert "was made with recipe 0123456789ab, here it is" in capsys.readouterr().err
    assert job(checkpoint, "--student.width", "0.2") == 2
    assert "was made with student" in capsys.readouterr().err
    assert job(checkpoint, "--out", checkpoint) == 2
    assert f"cannot use {checkpoint} for the files" in capsys.readouterr().err
    assert job(checkpoint, "--student.widht", "0.2") == 2
    assert "did you mean student.width?" in capsys.readouterr().err
    assert job(checkpoint, "--recipe.fmax", "12000") == 2
    assert "run jobs/prepare_audio.py with the same configuration" in capsys.readouterr().err


@pytest.fixture(scope="module")
def text_checkpoint(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = TextExperiment.model_validate(
        {
            "home": home,
            "queries": {"per_epoch": 64, "evaluated": 24},
            "student": {"hidden": 32, "token_dim": 16, "layers": 1},
            "training": {"epochs": 1, "batch_size": 16},
        }
    )
    return trained(settings, tmp_path_factory.mktemp("runs") / "text")


def test_a_text_student_is_tried_on_a_query(
    job: Job, text_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(text_checkpoint, "--out", tmp_path, "--test", "slow piano") == 0
    said = capsys.readouterr().out
    assert "input_ids against PyTorch on 24 real inputs" in said
    assert "the 10 nearest of 24 held-out queries" in said
    assert {"text_student.onnx", "tokenizer.json", "README.md"} <= {path.name for path in tmp_path.iterdir()}
    for words, reason in (
        (("--int8",), "leave out --int8"),
        (("--test", " "), "there is nothing to try"),
        (("--test", "piano " * 300), "longer than the teacher takes"),
        (("--test", "piano " * 100), "longer than the student takes"),
    ):
        assert job(text_checkpoint, "--out", tmp_path / "not", *words) == 2
        assert reason in capsys.readouterr().err
        assert not (tmp_path / "not").exists()
