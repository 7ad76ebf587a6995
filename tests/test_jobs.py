"""The jobs as a user calls them: in processes of their own, killed half-way, and given nonsense."""

import json
import os
import runpy
import signal
import subprocess
import time
from pathlib import Path

import pytest

from etude.cli import guarded
from etude.config import load
from etude.experiments.base import part
from etude.services import daemon
from etude.tuning.journal import Journal
from etude.tuning.sweep import draw
from tests.support.jobs import REPOSITORY, command, environment, run

SMALL = [
    "--source.pieces", "9", "--source.max_duration_s", "11", "--sweep.trials", "3", "--training.epochs", "4",
    "--sampling.segments_per_track", "2", "--sweep.name", "killed",
]  # fmt: skip


@pytest.mark.parametrize(
    ("job", "words", "said"),
    [
        ("prepare_audio", ["--source.name", "folder", "--source.path", "/nowhere"], "/nowhere"),
        ("prepare_audio", ["--source.piecse", "3"], "did you mean source.pieces?"),
        ("train_audio", [], "run jobs/prepare_audio.py first"),
        ("tune_audio", ["--config", "SPACE"], "did you mean student.width?"),
        ("train_emotion", ["--num-samples", "50", "--source.name", "demo"], "leave one of the two out"),
        ("prepare_musicbench", [], "say which music: --source.path DIR"),
        ("prepare_musicbench", ["--source.path", "/nowhere"], "/nowhere"),
        ("train_projection", ["--space", "muq"], "--accept-licence"),
        ("train_music_text", ["--export-only"], "run jobs/prepare_audio.py first"),
        (
            "distil",  # the switches as README and docstring spell them
            ["--no-distillation.text_enabled", "--no-distillation.audio_enabled"],
            "both are disabled",
        ),
    ],
)
def test_what_a_user_gets_wrong_ends_in_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    job: str,
    words: list[str],
    said: str,
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("sweep: {space: {student.widht: {choice: [0.1]}}}")
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(REPOSITORY / "jobs"))
    called = runpy.run_path(str(REPOSITORY / "jobs" / f"{job}.py"))
    code = guarded(called["main"])([str(space) if word == "SPACE" else word for word in words])
    said_on_stderr = capsys.readouterr().err
    assert code == 2
    assert said in said_on_stderr
    assert len(said_on_stderr.strip().splitlines()) == 1
    assert not list((tmp_path / "home").rglob("*.arrow"))


@pytest.mark.parametrize("job", [path.stem for path in (REPOSITORY / "jobs").glob("t*_*.py")])
def test_a_job_begins_with_the_settings_of_its_experiment(job: str) -> None:
    called = runpy.run_path(str(REPOSITORY / "jobs" / f"{job}.py"))
    name = "".join(word.capitalize() for word in job.split("_"))
    space = {"sweep": called["SPACE"]} if "SPACE" in called else {}
    settings = load(called[name], [], defaults=space)
    experiment = next(kind for kind in called[name].__mro__ if kind.__name__.endswith("Experiment"))
    of_the_space = {"epochs": settings.training.epochs} if space else {}
    assert settings.training == experiment().training.model_copy(update=of_the_space)


@pytest.mark.parametrize("file", sorted((REPOSITORY / "search_spaces").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_search_space_that_is_shipped_can_be_drawn(file: Path) -> None:
    job = next(
        name
        for name in ("tune_music_text", "tune_projection", "tune_text", "tune_emotion", "tune_audio")
        if file.stem.startswith(name.removeprefix("tune_")) or name == "tune_audio"
    )  # fmt: skip
    called = runpy.run_path(str(REPOSITORY / "jobs" / f"{job}.py"))
    settings = load(called["".join(word.capitalize() for word in job.split("_"))], ["--config", str(file)])
    kind = next(one for one in type(settings).__mro__ if one.__name__.endswith("Experiment"))
    one = settings.each()[0] if hasattr(settings, "each") else settings
    assert draw(part(one, kind), settings.sweep, (0, 0))


def test_plan_says_what_would_be_done_and_does_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "tune_audio", "--plan")
    assert done.returncode == 0, done.stderr
    assert "library: 120 tracks" in done.stdout
    assert "then 8 trials of at most 12 epochs" in done.stdout
    assert not (tmp_path / "sweeps").exists()
    assert not (tmp_path / "cache").exists()


def test_the_plan_of_a_pair_says_which_stages_it_would_go_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path / "home"))
    called = runpy.run_path(str(REPOSITORY / "jobs" / "train_music_text.py"))
    quick = ["--plan", "--source.pieces", "9", "--music.name", "convnet", "--text.max-tokens", "16"]
    said = {}
    for skipped in ("", "--skip-data-prep", "--skip-training", "--export-only"):
        assert called["main"]([*quick, *([skipped] if skipped else [])]) == 0
        lines = capsys.readouterr().out
        said[skipped] = "captions to make: 9" in lines, "train for at most 24 epochs" in lines
        assert lines.endswith("export and register the pair\n")
    assert said == {
        "": (True, True), "--skip-data-prep": (False, True), "--skip-training": (True, False),
        "--export-only": (False, False),
    }  # fmt: skip
    assert not (tmp_path / "home" / "store").exists()


@pytest.mark.slow
@pytest.mark.timeout(3200)
def test_a_killed_sweep_goes_on_with_the_same_command(tmp_path: Path) -> None:
    """SIGKILL of the driver in the middle of the sweep; then the same command ends it, each epoch once."""
    log = tmp_path / "first.log"
    with log.open("w") as output:
        first = subprocess.Popen(
            command("tune_audio", *SMALL), env=environment(tmp_path), stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 1500
        while not _entries(tmp_path):
            assert first.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        before = _entries(tmp_path)
        assert not list(tmp_path.glob("sweeps/*/result.json"))

        second = run(tmp_path, "tune_audio", *SMALL)
        assert second.returncode == 0, second.stdout + second.stderr
        assert "0 in quarantine" in second.stdout
        assert "prepared 0 tracks, 9 were there" in second.stdout
        (folder,) = tmp_path.glob("sweeps/*")
        entries = Journal(folder / "journal.jsonl").entries
        assert entries[: len(before)] == before
        epochs = [(entry.trial, entry.epoch) for entry in entries if entry.score is not None]
        assert len(epochs) == len(set(epochs))
        assert set(Journal(folder / "journal.jsonl").ended()) == {0, 1, 2}
        result = json.loads((folder / "result.json").read_text())
        assert result["version"] == "1"
        assert (tmp_path / "exports" / "student-clap" / folder.name / "student.onnx").exists()
        assert "winner: trial" in second.stdout
    finally:
        daemon.stop(tmp_path / "services", "mlflow")


def _entries(home: Path) -> list[object]:
    return [entry for path in home.glob("sweeps/*/journal.jsonl") for entry in Journal(path).entries]
