"""The emotion models by the commands that the README names: from scores to a piece that is written."""

import json
from pathlib import Path

import pytest
import soundfile

from etude.emotion.midi_file import read_midi
from etude.emotion.models import FILES
from etude.services import daemon
from tests.support.jobs import call, run

SMALL = ("--source.pieces", "30", "--source.max_duration_s", "12")
PATIENT = ("--most-ms", "1e9")  # what else runs on the machine is not what is tested


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_five_models_are_trained_validated_and_write_a_piece(tmp_path: Path) -> None:
    home = tmp_path / "home"
    models = home / "exports" / "emotion" / "models"
    try:
        done = call(home, "compose", "--node", "joy/elation/mild")
        assert done.returncode == 2
        assert "run jobs/train_emotion.py" in done.stderr

        done = run(home, "train_emotion", *SMALL, "--training.epochs", "6")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "prepared 30 pieces" in done.stdout
        sets = [
            json.loads((home / "emotion" / f"{name}.json").read_text()) for name in ("train", "val", "test")
        ]
        assert sum(map(len, sets)) == 30
        assert len(json.loads((home / "emotion" / "thesaurus.json").read_text())["nodes"]) == 216
        assert {path.stem for path in models.glob("*.onnx")} == set(FILES.values())

        report = tmp_path / "report.json"
        done = call(home, "validate_emotion", "--models-dir", str(models), "--output", str(report), *PATIENT)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(report.read_text())["issues"] == []
        (models / "groove_predictor.onnx").unlink()
        assert call(home, "validate_emotion", "--models-dir", str(models), *PATIENT).returncode == 1

        done = run(home, "train_emotion", *SMALL, "--training.epochs", "6", "--model", "groove")
        assert done.returncode == 0, done.stdout + done.stderr  # trained before: only exported again
        for words in (("--node", "joy/elation/mild"), ("--audio", str(next(home.rglob("demo-*.flac"))))):
            done = call(home, "compose", *words, "--bars", "4", "--output", str(tmp_path / words[0]))
            assert done.returncode == 0, done.stdout + done.stderr
            (midi,), (flac,) = ((tmp_path / words[0]).glob(f"*.{ending}") for ending in ("mid", "flac"))
            assert len(read_midi(midi.read_bytes()).pitch) > 8
            assert soundfile.info(flac).duration > 4
        done = call(home, "compose", "--node", "hapiness")
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
    finally:
        daemon.stop(home / "services", "mlflow")
