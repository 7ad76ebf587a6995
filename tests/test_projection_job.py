"""Text projections by the commands that the README names: from a MusicBench-shaped set to clips found."""

import json
import os
from pathlib import Path

import pytest

from etude.services import daemon
from tests.support.jobs import call, run
from tests.support.musicbench import write_musicbench

N_CLIPS = int(os.environ.get("ETUDE_TEST_CLIPS", "80"))  # 2,000: benchmarks/README.md has what that took


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_captioned_set_is_prepared_learned_and_searched(tmp_path: Path) -> None:
    home, clips, file = tmp_path / "home", tmp_path / "clips", tmp_path / "embeddings.h5"
    written = write_musicbench(clips, N_CLIPS, n_missing=2)
    source = ("--source.name", "musicbench", "--source.path", str(clips))
    try:
        done = run(home, "prepare_musicbench", *source[2:], "--space", "musicnn", "--export-hdf5", str(file))
        assert done.returncode == 0, done.stdout + done.stderr
        n_files = len(written.sound) - len(written.missing)
        assert f"prepared {n_files} tracks" in done.stdout
        assert "of musicnn, and read them back" in done.stdout

        done = run(home, "train_projection", *source, "--space", "musicnn", "--training.epochs", "8")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "champion: it is the first" in done.stdout
        summary = json.loads((home / "exports" / "text-projection" / "training_summary.json").read_text())
        found = summary["musicnn"]
        assert found["t2a_R@10"] > 1.5 * found["t2a_R@10_chance"]

        found = call(home, "search", "a low buzzing saw that pulses fast", "--top", "5")
        assert found.returncode == 0, found.stderr
        assert f"the 5 nearest of {n_files} tracks of MusicBench" in found.stdout
    finally:
        daemon.stop(home / "services", "mlflow")
