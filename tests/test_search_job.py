"""`jobs/search.py` as a user calls it."""

import http.client
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from etude.cli import guarded
from etude.export.onnx import read_metadata, write_metadata
from etude.inference.settings import newest_export
from etude.services.daemon import free_port
from tests.support.music_text import searchable_home, tone

REPOSITORY = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    searchable_home(home)
    return home


def command(home: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "ETUDE_", "MLFLOW_"))}
    return [sys.executable, str(REPOSITORY / "jobs" / "search.py"), *words], clean | {"ETUDE_HOME": str(home)}


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line, environment = command(home, *words)
    return subprocess.run(
        line, env=environment, capture_output=True, text=True, timeout=400, check=False, cwd=home
    )


def test_a_query_prints_the_nearest_of_the_newest_export(home: Path) -> None:
    done = run(home, "a low tone")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    heard = "3 tracks of the folder music, heard by train-0"
    assert lines[0] == f"the 3 nearest of {heard}, each with its cosine:"
    assert re.fullmatch(r"  1  0\.\d{3}  Low <b>tone \(unknown\)", lines[1])
    assert "embed 3/3" in done.stderr
    again = run(home, "--top", "1", "qwertz")
    assert "embed" not in again.stderr  # the vectors were kept
    assert again.stdout.splitlines()[0].startswith("the 1 nearest")
    assert again.stdout.splitlines()[-1].startswith("the model knows none of these words")


def test_a_recording_finds_what_sounds_like_it(home: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.flac").write_bytes(tone(8000.0))
    done = run(home, "--like", str(tmp_path / "mine.flac"), "--top", "1")
    assert done.returncode == 0, done.stderr
    assert "  1  1.000  High tone" in done.stdout


def test_what_a_user_gets_wrong_ends_in_one_sentence(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: a new one for each would take most of its time to import."""
    main = guarded(runpy.run_path(str(REPOSITORY / "jobs" / "search.py"))["main"])
    mixed = shutil.copytree(home / "exports" / "music-text" / "train-0", tmp_path / "mixed")
    record = read_metadata(mixed / "text_encoder.onnx") | {"space_id": "another"}
    write_metadata(mixed / "text_encoder.onnx", record)
    odd = shutil.copytree(home / "exports" / "music-text" / "train-0", tmp_path / "odd")
    (odd / "config.yaml").write_text("source: demo")
    cases = [
        (home, ["--model", str(mixed), "low"], "were exported by different runs"),
        (tmp_path / "empty", ["low"], "give --model FOLDER"),
        (
            home,
            ["--source.name", "folder", "--source.path", str(tmp_path), "low"],
            "run jobs/prepare_audio.py",
        ),
        (home, [], "say what to look for"),
        (home, ["low", "--serve"], "give one of"),
        (home, [" "], "the query is empty"),
        (home, ["--top", "0", "low"], "top: "),
        (home, ["--tpo", "3", "low"], "did you mean top?"),
        (home, ["slow", "piano"], "in quotes"),
        (home, ["--source", "demo", "low"], "source: "),
        (home, ["--model", str(odd), "low"], "source: "),
        (home, ["--like", str(tmp_path / "gone.mp3")], "give an audio file"),
    ]
    (tmp_path / "empty").mkdir()
    for where, words, said in cases:
        monkeypatch.setenv("ETUDE_HOME", str(where))
        code, errors = main(words), capsys.readouterr().err
        assert (code, len(errors.strip().splitlines())) == (2, 1), (words, errors)
        assert said in errors
    assert not list((tmp_path / "empty").iterdir())


def test_the_model_says_which_library_unless_another_is_named(home: Path, tmp_path: Path) -> None:
    """An export that was carried elsewhere: its config.yaml names the home with the library."""
    carried = shutil.copytree(home / "exports" / "music-text" / "train-0", tmp_path / "carried")
    done = run(tmp_path, "--model", str(carried), "--home", str(home), "--top", "1", "mid")
    assert "Mid tone" in done.stdout, done.stderr
    line, environment = command(tmp_path, "--model", str(carried), "--top", "1", "mid")
    del environment["ETUDE_HOME"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert "Mid tone" in done.stdout, done.stderr
    (carried / "config.yaml").write_text(yaml.safe_dump({"source": {"name": "demo", "pieces": 9}}))
    words = ["--source.name", "folder", "--source.path", str(home / "music")]
    done = run(home, "--model", str(carried), *words, "--top", "1", "mid")
    assert "Mid tone" in done.stdout, done.stderr


def test_the_newest_export_is_the_one_written_last(tmp_path: Path) -> None:
    assert newest_export(tmp_path) is None
    for age, name in enumerate(("b", "c", "a")):
        file = tmp_path / "exports" / "music-text" / name / "music_encoder.onnx"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (1000 + age, 1000 + age))
    (tmp_path / "exports" / "music-text" / "z").mkdir()
    found = newest_export(tmp_path)
    assert found is not None and found.name == "a"


def test_the_page_is_served_until_ctrl_c(home: Path) -> None:
    port = free_port()
    line, environment = command(home, "--serve", "--port", str(port))
    process = subprocess.Popen(
        line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.rstrip().endswith(f": http://127.0.0.1:{port}/"), process.communicate(timeout=60)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/search?q=high&k=1")
        assert b"High tone" in connection.getresponse().read()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, rest) == (0, "stopped\n")
    assert "Traceback" not in errors
