"""`jobs/evaluate.py` as a user calls it."""

from pathlib import Path

import pytest

from tests.support.jobs import call

pytestmark = pytest.mark.slow


def test_one_command_measures_and_says_where_the_report_is(
    exported: Path, home: Path, mlflow_uri: str
) -> None:
    done = call(home, "evaluate", "--model", str(exported / "student.onnx"), MLFLOW_TRACKING_URI=mlflow_uri)
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
        done = call(tmp_path / "home", "evaluate", *words)
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
        assert said in done.stderr
    assert not (tmp_path / "home").exists()
