"""`jobs/search.py` as a user calls it."""

import http.client
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from etude.export.onnx import read_metadata, write_metadata
from etude.inference.settings import newest_export
from etude.services.daemon import free_port
from tests.support.jobs import call, command, environment
from tests.support.music_text import searchable_home, tone

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    searchable_home(home)
    return home


def run(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return call(home, "search", *words)


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


def test_what_a_user_gets_wrong_ends_in_one_sentence(home: Path, tmp_path: Path) -> None:
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
        done = run(where, *words)
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), (words, done.stderr)
        assert said in done.stderr
    assert not list((tmp_path / "empty").iterdir())


def test_the_model_says_which_library_unless_another_is_named(home: Path, tmp_path: Path) -> None:
    """An export that was carried elsewhere: its config.yaml names the home with the library."""
    carried = shutil.copytree(home / "exports" / "music-text" / "train-0", tmp_path / "carried")
    done = run(tmp_path, "--model", str(carried), "--home", str(home), "--top", "1", "mid")
    assert "Mid tone" in done.stdout, done.stderr
    line = command("search", "--model", str(carried), "--top", "1", "mid")
    nowhere = environment(tmp_path)
    del nowhere["ETUDE_HOME"]
    done = subprocess.run(line, env=nowhere, capture_output=True, text=True, timeout=400, check=False)
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
    line = command("search", "--serve", "--port", str(port))
    process = subprocess.Popen(
        line, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home
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
