"""`jobs/embed_library.py` as a user calls it."""

import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from etude.inference.vectors import VectorFolder
from etude.inference.write_back import write
from etude.sources.base import Track
from tests.support.audiomuse_db import PASSWORD, Analysed, audiomuse_database, vector_bytes
from tests.support.jobs import call

pytestmark = pytest.mark.slow


def run(home: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    done = call(home, "embed_library", *words, **environment)
    assert PASSWORD not in done.stdout + done.stderr
    return done


def test_a_folder_becomes_parquet(exported: Path, chorale_wav: bytes, tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    for name in ("a.wav", "b.wav"):
        (tmp_path / "music" / name).write_bytes(chorale_wav)
    words = ["--model", str(exported), "--source.name", "folder", "--source.path", str(tmp_path / "music")]
    words += ["--out", str(tmp_path / "vectors.parquet")]
    planned = run(tmp_path, *words, "--plan")
    assert "to embed: 2 tracks, 0.01 hours" in planned.stdout, planned.stderr
    assert not (tmp_path / "vectors.parquet").exists()
    done = run(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert "embedded 2 of 2 tracks" in done.stdout
    assert pq.read_table(tmp_path / "vectors.parquet").num_rows == 2
    back = run(tmp_path, *words, "--to", "audiomuse")
    assert back.returncode == 2
    assert "no database is given" in back.stderr


def test_each_source_has_a_folder_of_its_own(exported: Path, chorale_wav: bytes, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes(chorale_wav)
        words = ["--model", str(exported), "--source.name", "folder", "--source.path", str(tmp_path / name)]
        assert "embedded 1 of 1" in run(tmp_path, *words).stdout
    folders = list((tmp_path / "vectors").iterdir())
    assert [pq.read_table(folder).num_rows for folder in folders] == [1, 1]


def test_only_this_librarys_vectors_are_written(exported: Path, chorale_wav: bytes, tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.wav").write_bytes(chorale_wav)
    database = audiomuse_database("current", [Analysed("a", file_path="a.wav", clap=vector_bytes(0, 512))])
    words = ["--model", str(exported), "--out", str(tmp_path / "vectors")]
    path = str(tmp_path / "music")
    assert run(tmp_path, *words, "--source.name", "folder", "--source.path", path).returncode == 0
    words += ["--source.name", "audiomuse", "--source.audio.name", "folder", "--source.audio.path", path]
    done = run(tmp_path, *words, "--to", "audiomuse", "--write", ETUDE_SOURCE__DSN=database.dsn)
    assert done.returncode == 0, done.stderr
    assert "inserted 0 rows, replaced 1" in done.stdout


def test_a_rollback_needs_no_model(tmp_path: Path) -> None:
    database = audiomuse_database("current", [Analysed("a", clap=vector_bytes(0, 512))])
    before = database.contents()
    folder = VectorFolder(tmp_path / "v", "m", 512)
    folder.create()

    track = Track("t", "", "A", tags={"item_id": "a"})
    folder.write([(track, np.frombuffer(vector_bytes(1, 512), "<f4"))])
    write(SecretStr(database.dsn), "clap_embedding", folder)
    assert database.contents() != before
    done = run(tmp_path, "--rollback", ETUDE_DSN=database.dsn)
    assert done.returncode == 0, done.stderr
    assert "restored 1 rows" in done.stdout
    assert database.contents() == before
    again = run(tmp_path, "--rollback", ETUDE_DSN=database.dsn)
    assert again.returncode == 2
    assert "nothing to roll back" in again.stderr
