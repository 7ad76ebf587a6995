"""Writing into AudioMuse-AI's tables changes what it says, and a rollback restores every byte."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from etude.errors import UserError
from etude.inference import write_back
from etude.inference.vectors import VectorFolder
from etude.inference.write_back import check_target, database_of, plan_write, rollback, write
from etude.sources import DemoConfig
from etude.sources.audiomuse import AudioMuseConfig
from etude.sources.audiomuse_schema import Connection
from etude.sources.base import Track
from etude.sources.folder import FolderConfig
from etude.teachers.stored import Table
from tests.support.audiomuse_db import (
    PASSWORD,
    READER,
    Analysed,
    Database,
    Schema,
    audiomuse_database,
    vector_bytes,
)

CLAP = "clap_embedding"
BACKUP = "etude_clap_embedding_backup"


def vectors_of(path: Path, ids: list[str], seed: int = 0, dim: int = 512) -> VectorFolder:
    """Made-up vectors of length 1, in parts of two."""
    folder = VectorFolder(path / f"{seed}-{dim}", f"model-{seed}", dim)
    folder.create()
    for start in range(0, len(ids), 2):
        folder.write([(_track(item_id), _vector(item_id, seed, dim)) for item_id in ids[start : start + 2]])
    return folder


def _track(item_id: str) -> Track:
    return Track(f"audiomuse-{item_id}", "", item_id, tags={"item_id": item_id})


def _vector(item_id: str, seed: int, dim: int) -> np.ndarray:
    return np.frombuffer(vector_bytes(sum(item_id.encode()) + 1000 * seed, dim, unit=True), "<f4")


def library(schema: Schema) -> Database:
    """Three tracks with vectors, one of them damaged, two without, one with an empty row."""
    rows = [Analysed(name, clap=vector_bytes(i, 512)) for i, name in enumerate(("a", "b"))]
    rows += [Analysed("c", clap=b"damaged"), Analysed("d"), Analysed("e"), Analysed("f")]
    database = audiomuse_database(schema, rows)
    database.execute("INSERT INTO clap_embedding (item_id, embedding) VALUES ('f', NULL)")
    return database


def sentence(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        act()
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("schema", ["december 2025", "current"])
def test_a_dry_run_counts_and_a_rollback_restores_every_byte(schema: Schema, tmp_path: Path) -> None:
    database = library(schema)
    dsn = SecretStr(database.dsn)
    before = database.contents()
    vectors = vectors_of(tmp_path, ["a", "c", "d", "f", "gone"])
    planned = plan_write(SecretStr(database.dsn_of(READER)), CLAP, vectors)
    assert (planned.inserted, planned.replaced, planned.unchanged, planned.unknown) == (1, 3, 0, 1)
    assert "would insert 1 rows, would replace 3" in planned.describe()
    assert database.contents() == before

    done = write(dsn, CLAP, vectors)
    assert (done.inserted, done.replaced, done.unchanged, done.unknown) == (1, 3, 0, 1)
    stored = {
        name: bytes(data) for name, data in database.execute("SELECT item_id, embedding FROM clap_embedding")
    }
    for batch in vectors.batches():
        for item_id, vector in batch:
            assert stored.get(item_id, vector) == vector
    assert stored["b"] == vector_bytes(1, 512)
    assert len(stored) == 5

    again = write(dsn, CLAP, vectors)
    assert (again.inserted, again.replaced, again.unchanged, again.run) == (0, 0, 4, "")
    assert "nothing to write" in again.describe()

    undone = rollback(dsn, CLAP)
    assert (undone.restored, undone.deleted, undone.changed_since) == (3, 1, 0)
    assert undone.run == done.run
    assert database.contents() == before  # the side table is gone, too
    assert "nothing to roll back" in sentence(lambda: rollback(dsn, CLAP))


def test_runs_are_undone_last_first(tmp_path: Path) -> None:
    database = library("current")
    dsn = SecretStr(database.dsn)
    states = [database.contents()["clap_embedding"]]
    for seed, ids in ((1, ["a", "d"]), (2, ["a", "b"]), (3, ["d", "e"])):
        write(dsn, CLAP, vectors_of(tmp_path, ids, seed))
        states.append(database.contents()["clap_embedding"])
    for state in reversed(states[:-1]):
        rollback(dsn, CLAP)
        assert database.contents()["clap_embedding"] == state


def test_what_others_have_written_since_stays(tmp_path: Path) -> None:
    database = library("current")
    dsn = SecretStr(database.dsn)
    write(dsn, CLAP, vectors_of(tmp_path, ["a", "b", "d", "e"]))
    database.execute("UPDATE clap_embedding SET embedding = 'new' WHERE item_id IN ('a', 'd')")
    database.execute("DELETE FROM score WHERE item_id = 'e'")
    undone = rollback(dsn, CLAP)
    assert (undone.restored, undone.deleted, undone.changed_since) == (1, 0, 3)
    assert "3 were changed since by others" in undone.describe()
    stored = dict(database.execute("SELECT item_id, embedding FROM clap_embedding"))
    assert (stored["a"], stored["b"], stored["d"]) == (b"new", vector_bytes(1, 512), b"new")
    assert "e" not in stored


def test_a_run_that_is_cut_off_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = library("current")
    before = database.contents()
    vectors = vectors_of(tmp_path, ["a", "b", "c", "d"])
    batches = list(vectors.batches())

    def cut_off(tracks: object) -> object:
        yield batches[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(vectors, "batches", cut_off)
    with pytest.raises(KeyboardInterrupt):
        write(SecretStr(database.dsn), CLAP, vectors)
    assert database.contents() == before


def test_tracks_that_are_analysed_meanwhile_are_left_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = library("current")
    dsn = SecretStr(database.dsn)
    before = database.contents()[CLAP]
    statement = write_back._sql

    def meanwhile(template: str, table: Table) -> sql.Composed:
        if template is write_back._UPSERT:
            database.add([Analysed("late")])
        return statement(template, table)

    with monkeypatch.context() as patch:
        patch.setattr(write_back, "_sql", meanwhile)
        done = write(dsn, CLAP, vectors_of(tmp_path, ["a", "late"]))
    assert (done.replaced, done.inserted, done.unknown) == (1, 0, 1)
    rollback(dsn, CLAP)
    assert database.contents()[CLAP] == before


def test_a_track_that_is_removed_meanwhile_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = library("current")
    database.execute(  # without the cascade, for which removing would wait for the lock
        "ALTER TABLE clap_embedding DROP CONSTRAINT clap_embedding_item_id_fkey, "
        "ADD FOREIGN KEY (item_id) REFERENCES score"
    )
    statement = write_back._sql

    def meanwhile(template: str, table: Table) -> sql.Composed:
        if template is write_back._UPSERT:
            database.execute("DELETE FROM score WHERE item_id = 'd'")
        return statement(template, table)

    monkeypatch.setattr(write_back, "_sql", meanwhile)
    before = database.contents()[CLAP]
    said = sentence(lambda: write(SecretStr(database.dsn), CLAP, vectors_of(tmp_path, ["a", "d"])))
    assert "was changed by others at the same time" in said
    assert database.contents()[CLAP] == before


def test_runs_are_undone_in_the_order_in_which_they_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = library("current")
    dsn = SecretStr(database.dsn)
    states = [database.contents()[CLAP]]
    lock = write_back._lock

    def overtaken(connection: Connection, table: Table) -> None:
        monkeypatch.setattr(write_back, "_lock", lock)
        connection.execute("SET LOCAL lock_timeout = '30s'")  # the transaction has begun
        write(dsn, CLAP, vectors_of(tmp_path, ["a"], seed=1))
        states.append(database.contents()[CLAP])
        lock(connection, table)

    monkeypatch.setattr(write_back, "_lock", overtaken)
    write(dsn, CLAP, vectors_of(tmp_path, ["a"], seed=2))
    for state in reversed(states):
        rollback(dsn, CLAP)
        assert database.contents()[CLAP] == state


def test_a_rollback_that_is_overtaken_undoes_the_run_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = library("current")
    dsn = SecretStr(database.dsn)
    write(dsn, CLAP, vectors_of(tmp_path, ["a"]))
    lock = write_back._lock

    def overtaken(connection: Connection, table: Table) -> None:
        monkeypatch.setattr(write_back, "_lock", lock)
        rollback(dsn, CLAP)
        lock(connection, table)

    monkeypatch.setattr(write_back, "_lock", overtaken)
    assert "nothing to roll back" in sentence(lambda: rollback(dsn, CLAP))


def test_vectors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    database = audiomuse_database("current", [Analysed("a", musicnn=vector_bytes(0, 200))])
    dsn = SecretStr(database.dsn)
    short = vectors_of(tmp_path, ["a"], dim=200)
    for act in (plan_write, write):
        assert "have 200 numbers and clap_embedding takes 512" in sentence(
            lambda act=act: act(dsn, CLAP, short)  # type: ignore[misc]
        )
    before = database.contents()
    assert write(dsn, "embedding", short).replaced == 1
    assert rollback(dsn, "embedding").restored == 1
    assert database.contents() == before


def test_what_the_database_refuses_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = library("december 2025")
    vectors = vectors_of(tmp_path, ["a"])
    reader = SecretStr(database.dsn_of(READER))
    assert "reader may not do this" in sentence(lambda: write(reader, CLAP, vectors))
    assert "reader may not do this" in sentence(lambda: rollback(reader, CLAP))
    monkeypatch.setattr(write_back, "LOCK_TIMEOUT", "50ms")
    with psycopg.connect(database.dsn) as other:
        other.execute("INSERT INTO clap_embedding (item_id, embedding) VALUES ('d', 'x')")
        assert "in use" in sentence(lambda: write(SecretStr(database.dsn), CLAP, vectors))
    database.execute("DROP TABLE clap_embedding")
    assert '"clap_embedding" does not exist' in sentence(lambda: rollback(SecretStr(database.dsn), CLAP))
    assert "no table clap_embedding" in sentence(lambda: check_target(SecretStr(database.dsn), CLAP, 512))


def test_the_database_is_the_sources_unless_another_is_given(tmp_path: Path) -> None:
    source = AudioMuseConfig(dsn=SecretStr("host=a"), audio=FolderConfig(path=tmp_path))
    assert database_of(None, source).get_secret_value() == "host=a"  # type: ignore[arg-type]
    assert database_of(SecretStr("host=b"), source).get_secret_value() == "host=b"  # type: ignore[arg-type]
    assert "set ETUDE_DSN" in sentence(lambda: database_of(None, DemoConfig()))
