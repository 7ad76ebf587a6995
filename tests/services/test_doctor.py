"""The doctor finds what is wrong, says how to mend it, and goes on with the rest."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from etude.data.store import FORMAT, Quarantined, Store
from etude.services import daemon, doctor
from etude.services.doctor import CHECKS, Doctor, examine
from etude.services.findings import Finding
from etude.services.local import Ports, ray_environment, ray_head
from etude.sources import FolderConfig
from etude.sources.audiomuse import AudioMuseConfig
from tests.support.audiomuse_db import Analysed, audiomuse_database, vector_bytes
from tests.support.library import made_up_library

JOB = Path(__file__).resolve().parents[2] / "jobs" / "doctor.py"


@pytest.fixture
def settings(tmp_path: Path) -> Doctor:
    """A home with a prepared store, and a library of one file."""
    music = tmp_path / "music"
    music.mkdir()
    soundfile.write(music / "a.wav", np.zeros(48_000), 48_000)
    made_up_library(tmp_path / "home" / "store", n_tracks=3)
    return Doctor(home=tmp_path / "home", source=FolderConfig(path=music))


def found(settings: Doctor) -> dict[str, Finding]:
    findings = {finding.name: finding for finding in examine(settings)}
    assert list(findings) == list(CHECKS)  # whatever fails, the others are still looked at
    return findings


def changed(settings: Doctor, **values: object) -> Doctor:
    return settings.model_copy(update=values)


def test_all_is_well(settings: Doctor, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-key")
    Store(settings.store.root).write_quarantine(
        settings.recipe.id, [Quarantined("a", "u", "t", "decode", "empty")]
    )
    findings = found(settings)
    states = {name: finding.state for name, finding in findings.items() if name != "gpu"}
    assert states == dict.fromkeys(states, "ok") | {"ray": "not used", "database": "not used"}
    assert f"format {FORMAT}, 3 tracks prepared with this recipe, 1 in quarantine" in findings["store"].text
    assert "the first is 'a', fetched with 0.1 MB" in findings["source"].text
    assert findings["teacher"].text == "msd_musicnn-8579734e"
    assert not any("planted" in str(finding) for finding in findings.values())


def test_looking_changes_nothing(tmp_path: Path) -> None:
    findings = found(Doctor(home=tmp_path / "home"))
    assert {finding.state for finding in findings.values()} <= {"ok", "not used"}
    assert findings["store"].state == "not used"
    assert not (tmp_path / "home").exists()


def test_a_store_of_another_format_is_a_problem(settings: Doctor) -> None:
    (settings.home / "store" / "FORMAT").write_text("99")
    finding = found(settings)["store"]
    assert (finding.state, "choose another folder with --home" in finding.text) == ("problem", True)


def test_a_server_that_does_not_listen_is_a_problem(
    settings: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = daemon.free_port()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:planted@127.0.0.1:{port}")
    findings = found(settings)
    assert "start it, or unset RAY_ADDRESS (Connection refused)" in str(findings["ray"])
    assert "start it with `make up`" in str(findings["mlflow"])
    assert (findings["ray"].state, findings["mlflow"].state) == ("problem", "problem")
    assert "planted" not in str(findings["mlflow"])


def test_an_altered_teacher_file_is_a_problem(
    settings: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec("musicnn")
    assert spec and spec.submodule_search_locations
    weights = tmp_path / "musicnn" / "MSD_musicnn"
    shutil.copytree(Path(spec.submodule_search_locations[0], "MSD_musicnn"), weights)
    (tmp_path / "musicnn" / "__init__.py").touch()
    with (weights / ".index").open("ab") as file:
        file.write(b"!")
    monkeypatch.syspath_prepend(tmp_path)
    finding = found(settings)["teacher"]
    assert (finding.state, "pip install --no-deps musicnn==0.1.0" in finding.text) == ("problem", True)


def test_a_library_that_is_not_there_is_a_problem(settings: Doctor, tmp_path: Path) -> None:
    finding = found(changed(settings, source=FolderConfig(path=tmp_path / "nowhere")))["source"]
    assert (finding.state, "check source.path" in finding.text) == ("problem", True)


def test_a_full_disk_and_one_without_the_right_are_problems(
    settings: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(settings.home)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1_000_000))
        assert "0.0 GB free: make room" in found(settings)["disk"].text
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "no right to write" in found(settings)["disk"].text


@pytest.mark.slow
def test_a_head_with_another_token_is_a_problem(settings: Doctor) -> None:
    ports = Ports(ray=daemon.free_port(), dashboard=daemon.free_port())
    ray_head(settings.home, ports, "http://127.0.0.1:9")
    try:
        assert found(settings)["ray"].text.endswith("takes this home's token")
        Path(ray_environment(settings.home)["RAY_AUTH_TOKEN_PATH"]).write_text("0" * 64)
        finding = found(settings)["ray"]
        assert (finding.state, "refuses this home's token" in finding.text) == ("problem", True)
        assert "make stop, make up" in finding.text
    finally:
        daemon.stop(settings.home / "services", "ray")


def test_the_database_shows_where_its_vectors_may_come_from(settings: Doctor) -> None:
    database = audiomuse_database("current")
    database.add([Analysed("fp_1", clap=vector_bytes(1, 512, unit=True))])
    source = AudioMuseConfig.model_validate({"dsn": database.dsn, "audio": settings.source})
    said = doctor.database(changed(settings, source=source))
    assert "clap_embedding: 100% of 1 vectors have length 1" in said
    assert "dates: first analysed" in said


@pytest.mark.parametrize(("library", "status", "last"), [("music", 0, "all is well"), ("x", 1, "1 problem:")])
def test_the_job_ends_with_1_if_there_is_a_problem(
    settings: Doctor, library: str, status: int, last: str
) -> None:
    folder = settings.home.parent / library
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "ETUDE_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, str(JOB), "--home", str(settings.home),
         "--source.name", "folder", "--source.path", str(folder)],
        env=clean, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (status, "")
    assert done.stdout.splitlines()[-1].startswith(last)
