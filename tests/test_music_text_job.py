"""Pairs by the commands that the README names: from a fresh home to a track that words find."""

import runpy
from pathlib import Path

import pytest

from etude.cli import guarded
from etude.services import daemon
from tests.support.jobs import REPOSITORY, call, run

SMALL = [
    "--source.pieces", "9", "--source.max_duration_s", "11", "--training.batch_size", "6",
    "--music.name", "convnet", "--music.width", "0.1", "--music.frame_stride", "8",
]  # fmt: skip


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
        done = run(tmp_path, "train_music_text", "--training.epochs", "2", *SMALL)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "captions: made for 9 tracks, 0 had theirs, 0 in quarantine" in done.stdout
        assert "text to music R@10" in done.stdout
        assert "champion: it is the first" in done.stdout
        (folder,) = (tmp_path / "exports" / "music-text").iterdir()
        first = {path.name: path.read_bytes() for path in folder.glob("*.onnx")}

        found = call(tmp_path, "search", "a slow piece for strings", "--top", "3")
        assert found.returncode == 0, found.stderr
        assert "the 3 nearest of 9 tracks" in found.stdout

        again = run(tmp_path, "train_music_text", "--export-only", "--training.epochs", "2", *SMALL)
        assert again.returncode == 0, again.stderr
        assert "captions" not in again.stdout.split("on ")[0]
        assert {path.name for path in folder.glob("*.onnx")} == set(first)
        assert call(tmp_path, "search", "a slow piece", "--top", "3").returncode == 0
    finally:
        daemon.stop(tmp_path / "services", "mlflow")
