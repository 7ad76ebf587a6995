"""Pairs by the commands that the README names: from a fresh home to a track that words find."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from etude.cli import guarded
from etude.services import daemon

REPOSITORY = Path(__file__).resolve().parents[1]
SMALL = [
    "--source.pieces", "9", "--source.max_duration_s", "11", "--training.batch_size", "6",
    "--music.name", "convnet", "--music.width", "0.1", "--music.frame_stride", "8",
]  # fmt: skip


def run(home: Path, job: str, *words: str) -> subprocess.CompletedProcess[str]:
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "ETUDE_", "MLFLOW_", "OPENAI_"))
    }
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "jobs" / f"{job}.py"), *words],
        env=clean | {"ETUDE_HOME": str(home)}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_a_plan_says_what_captions_cost_and_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    job = runpy.run_path(str(REPOSITORY / "jobs" / "train_music_text.py"))
    assert guarded(job["main"])(["--plan", *SMALL, "--captions.name", "openai"]) == 0
    said = capsys.readouterr().out
    assert "captions to make: 9 tracks, about" in said
    assert "US dollars" in said
    assert not list(tmp_path.rglob("*.arrow"))


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_pair_is_trained_searched_and_exported_again(tmp_path: Path) -> None:
    try:
        done = run(tmp_path, "train_music_text", "--export-only", *SMALL)
        assert done.returncode == 2
        assert "run jobs/prepare_audio.py" in done.stderr

        done = run(tmp_path, "train_music_text", "--training.epochs", "2", *SMALL)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "captions: made for 9 tracks, 0 had theirs, 0 in quarantine" in done.stdout
        assert "text to music R@10" in done.stdout
        assert "champion: it is the first" in done.stdout
        (folder,) = (tmp_path / "exports" / "music-text").iterdir()
        first = {path.name: path.read_bytes() for path in folder.glob("*.onnx")}

        found = run(tmp_path, "search", "a slow piece for strings", "--top", "3")
        assert found.returncode == 0, found.stderr
        assert "the 3 nearest of 9 tracks" in found.stdout

        again = run(tmp_path, "train_music_text", "--export-only", "--training.epochs", "2", *SMALL)
        assert again.returncode == 0, again.stderr
        assert "captions" not in again.stdout.split("on ")[0]
        assert {path.name for path in folder.glob("*.onnx")} == set(first)
        assert run(tmp_path, "search", "a slow piece", "--top", "3").returncode == 0
    finally:
        daemon.stop(tmp_path / "services", "mlflow")
