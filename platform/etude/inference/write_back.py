"""Vectors into AudioMuse-AI's own tables, in one transaction, and back out again.

What a run replaces stands in a table beside, `etude_<table>_backup`, until the run is rolled back.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from psycopg import sql
from pydantic import SecretStr

from etude.errors import UserError
from etude.inference.vectors import VectorFolder
from etude.sources import SourceConfig
from etude.sources.audiomuse import AudioMuseConfig
from etude.sources.audiomuse_schema import Connection, connected, place_of, read_schema
from etude.sources.base import Track
from etude.teachers.stored import DIMS, Table

LOCK_TIMEOUT = "30s"


@dataclass(frozen=True)
class WriteReport:
    """What writing did, or would do."""

    where: str
    inserted: int = 0
    replaced: int = 0
    unchanged: int = 0
    unknown: int = 0  # tracks that AudioMuse-AI no longer has
    run: str = ""  # empty: nothing was written

    def describe(self) -> str:
        """The counts, and what to do next."""
        did = "inserted" if self.run else "would insert"
        text = f"{self.where}: {did} {self.inserted} rows, "
        text += (
            f"{'replaced' if self.run else 'would replace'} {self.replaced}, {self.unchanged} are the same"
        )
        if self.unknown:
            text += f", {self.unknown} are of tracks that AudioMuse-AI no longer has"
        if self.run:
            return f"{text}\nnext: rebuild the index in AudioMuse-AI; --rollback undoes this run ({self.run})"
        if self.inserted + self.replaced:
            return f"{text}\nnothing was written: --write does it, and --rollback undoes that"
        return f"{text}\nthere is nothing to write"


@dataclass(frozen=True)
class RollbackReport:
    """What a rollback did."""

    where: str
    run: str
    restored: int
    deleted: int
    changed_since: int  # rows that AudioMuse-AI has written anew, which stay

    def describe(self) -> str:
        """The counts, in one sentence."""
        text = f"{self.where}: restored {self.restored} rows and deleted {self.deleted} of run {self.run}"
        if self.changed_since:
            text += f"; {self.changed_since} were changed since by others and stay as they are"
        return f"{text}\nnext: rebuild the index in AudioMuse-AI"


def database_of(dsn: SecretStr | None, source: SourceConfig) -> SecretStr:
    """The DSN to write to: the one that is given, or the source's. Raises UserError if there is neither."""
    if dsn is not None:
        return dsn
    if isinstance(source, AudioMuseConfig):
        return source.dsn
    raise UserError("no database is given: set ETUDE_DSN, or embed with --source.name audiomuse")


def check_target(dsn: SecretStr, table: Table, dim: int) -> None:
    """Raises UserError if vectors of `dim` numbers do not fit a table, or it is not there."""
    if dim != DIMS[table]:
        raise UserError(
            f"the model's vectors have {dim} numbers and {table} takes {DIMS[table]}: "
            "write them --to parquet, or choose another --table"
        )
    place = place_of(dsn)
    with connected(dsn) as connection:
        schema = read_schema(connection, place)
        schema.require("score")
        schema.require(table)


def plan_write(
    dsn: SecretStr, table: Table, vectors: VectorFolder, tracks: Sequence[Track] | None = None
) -> WriteReport:
    """Count what writing would change; writes nothing. Raises UserError as `check_target` does."""
    check_target(dsn, table, vectors.dim)
    report = WriteReport(_where(dsn, table))
    with connected(dsn) as connection:
        for batch in vectors.batches(tracks):
            report = _counted(report, connection, table, batch)
    return report


def write(
    dsn: SecretStr, table: Table, vectors: VectorFolder, tracks: Sequence[Track] | None = None
) -> WriteReport:
    """Replace or insert the vectors that differ, in one transaction, and keep what they replace.

    Those of `tracks`, or all that the folder holds.

    Raises UserError, and changes nothing, if the vectors do not fit, there is no right to write, or the
    table is in use.
    """
    check_target(dsn, table, vectors.dim)
    run = f"{vectors.model}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    report = WriteReport(_where(dsn, table))
    with connected(dsn, writing=True) as connection:
        _lock(connection, table)
        connection.execute(_sql(_CREATE_BACKUP, table))
        for batch in vectors.batches(tracks):
            report = _counted(report, connection, table, batch)
            values = _values(batch)
            connection.execute(_sql(_BACK_UP, table), values | {"run": run})
            connection.execute(_sql(_UPSERT, table), values)
        _drop_if_empty(connection, table)
    return replace(report, run=run) if report.inserted + report.replaced else report


def rollback(dsn: SecretStr, table: Table) -> RollbackReport:
    """Undo the latest run that was not undone: old bytes back, rows that were new deleted.

    A row that no longer holds what the run wrote stays. Raises UserError if there is no such run.
    """
    place = place_of(dsn)
    with connected(dsn, writing=True) as connection:
        _lock(connection, table)
        found = connection.execute("SELECT to_regclass(%s) AS name", [_backup_name(table)]).fetchone()
        if found is None or found["name"] is None:
            raise UserError(f"{table} of {place} holds no run of Étude: there is nothing to roll back")
        latest = connection.execute(_sql(_LATEST, table)).fetchone()
        assert latest is not None  # a table without rows is dropped
        run = {"run": latest["run"]}
        restored = connection.execute(_sql(_RESTORE, table), run).rowcount
        deleted = connection.execute(_sql(_DELETE_NEW, table), run).rowcount
        n_rows = connection.execute(_sql(_FORGET, table), run).rowcount
        _drop_if_empty(connection, table)
    return RollbackReport(_where(dsn, table), latest["run"], restored, deleted, n_rows - restored - deleted)


_VECTORS = "unnest(%(ids)s::text[], %(vectors)s::bytea[]) AS v(item_id, embedding)"
_COUNT = f"""
SELECT count(*) FILTER (WHERE s.item_id IS NOT NULL AND t.item_id IS NULL) AS inserted,
  count(*) FILTER (WHERE t.item_id IS NOT NULL AND t.embedding IS DISTINCT FROM v.embedding) AS replaced,
  count(*) FILTER (WHERE t.embedding = v.embedding) AS unchanged,
  count(*) FILTER (WHERE s.item_id IS NULL) AS unknown
FROM {_VECTORS} LEFT JOIN score s USING (item_id) LEFT JOIN {{table}} t USING (item_id)"""
_CREATE_BACKUP = """
CREATE TABLE IF NOT EXISTS {backup} (item_id text NOT NULL, embedding bytea, existed boolean NOT NULL,
  run text NOT NULL, number bigserial, written bytea NOT NULL,
  PRIMARY KEY (run, item_id))"""
_BACK_UP = f"""
INSERT INTO {{backup}} (item_id, embedding, existed, run, written)
SELECT v.item_id, t.embedding, t.item_id IS NOT NULL, %(run)s, sha256(v.embedding)
FROM {_VECTORS} JOIN score s USING (item_id) LEFT JOIN {{table}} t USING (item_id)
WHERE t.embedding IS DISTINCT FROM v.embedding"""
_UPSERT = f"""
INSERT INTO {{table}} AS t (item_id, embedding)
SELECT v.item_id, v.embedding FROM {_VECTORS} JOIN score s USING (item_id)
ON CONFLICT (item_id) DO UPDATE SET embedding = EXCLUDED.embedding
WHERE t.embedding IS DISTINCT FROM EXCLUDED.embedding"""
_LATEST = "SELECT run FROM {backup} GROUP BY run ORDER BY max(number) DESC LIMIT 1"
_RESTORE = """
UPDATE {table} t SET embedding = b.embedding FROM {backup} b
WHERE b.run = %(run)s AND b.existed AND t.item_id = b.item_id AND sha256(t.embedding) = b.written"""
_DELETE_NEW = """
DELETE FROM {table} t USING {backup} b
WHERE b.run = %(run)s AND NOT b.existed AND t.item_id = b.item_id AND sha256(t.embedding) = b.written"""
_FORGET = "DELETE FROM {backup} WHERE run = %(run)s"


def _sql(template: str, table: Table) -> sql.Composed:
    """One of the statements above; nothing in them comes from outside."""
    names = {"table": sql.Identifier(table), "backup": sql.Identifier(_backup_name(table))}
    return sql.SQL(template).format(**names)


def _backup_name(table: Table) -> str:
    return f"etude_{table}_backup"


def _lock(connection: Connection, table: Table) -> None:
    """Until the end of the transaction others may read the table and not write it.

    It comes first: what the transaction sees is the state at its first SELECT, and no other run may end
    between that and the lock.
    """
    connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(LOCK_TIMEOUT))
    connection.execute(_sql("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE", table))


def _drop_if_empty(connection: Connection, table: Table) -> None:
    if connection.execute(_sql("SELECT 1 FROM {backup} LIMIT 1", table)).fetchone() is None:
        connection.execute(_sql("DROP TABLE {backup}", table))


def _values(batch: Sequence[tuple[str, bytes]]) -> dict[str, Any]:
    return {"ids": [item_id for item_id, _ in batch], "vectors": [vector for _, vector in batch]}


def _counted(
    report: WriteReport, connection: Connection, table: Table, batch: Sequence[tuple[str, bytes]]
) -> WriteReport:
    row = connection.execute(_sql(_COUNT, table), _values(batch)).fetchone()
    assert row is not None
    return replace(report, **{name: getattr(report, name) + count for name, count in row.items()})


def _where(dsn: SecretStr, table: Table) -> str:
    return f"{table} of {place_of(dsn)}"
