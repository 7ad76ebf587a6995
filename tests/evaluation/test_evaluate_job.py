"""`jobs/evaluate.py` as a user calls it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "ETUDE_", "MLFLOW_"))}
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "jobs" / "evaluate.py"), *words],
        env=clean | environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip


def test_one_command_measures_and_says_where_the_report_is(
    exported: Path, home: Path, mlflow_uri: str
) -> None:
    done = run("--model", str(exported / "student.onnx"), MLFLOW_TRACKING_URI=mlflow_uri)
    assert done.returncode == 0, done.stderr
    report = Path(done.stdout.split("report: ")[1].splitlines()[0])
    assert report.parent.parent == home / "evaluations"
    assert "-test-" in report.parent.name
    assert "| waveform | 4 |" in report.read_text()
    assert "no choice has seen these tracks" in report.read_text()
    for said in (
        "  skill ",
        "  cosine ",
        "understands no text",
        "teacher, 1 thread",
        f"MLflow: {mlflow_uri}",
    ):
        assert said in done.stdout


def test_what_a_user_gets_wrong_ends_in_one_sentence(exported: Path, tmp_path: Path) -> None:
    cases = [
        ([], "no model is given"),
        (["--model", str(tmp_path)], "cannot read the model"),
        (["--model", str(exported), "--home", str(tmp_path)], "run jobs/prepare_audio.py"),
    ]
    for words, said in cases:
        done = run(*words, ETUDE_HOME=str(tmp_path / "home"))
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
        assert said in done.stderr
    assert not (tmp_path / "home").exists()
