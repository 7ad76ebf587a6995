"""The database of AudioMuse-AI: connecting to it, and which of its two schemas it has.

That of December 2025 knows a track by the media server's own id. The current one knows it by a fingerprint,
`fp_...`, and maps it to the ids of one or more servers (facts/audiomuse.md, a).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import IsolationLevel, conninfo, errors
from psycopg.rows import DictRow, dict_row
from pydantic import SecretStr

from etude.errors import UserError

Connection = psycopg.Connection[DictRow]

CONNECT_TIMEOUT_S = 10
FINGERPRINT = "fp_"  # how the current schema's ids begin
# Whose audio settings a server of AudioMuse-AI takes, by its server_type; of others nothing is known.
KINDS = {
    "jellyfin": "jellyfin",
    "emby": "emby",
    "navidrome": "subsonic",
    "subsonic": "subsonic",
    "opensubsonic": "subsonic",
    "lyrion": "lyrion",
    "plex": "plex",
}
_TABLES = ("score", "embedding", "clap_embedding", "track_server_map", "music_servers")


@dataclass(frozen=True)
class Place:
    """Where a database is, in words that hold no secret."""

    name: str
    host: str
    port: str
    user: str

    def __str__(self) -> str:
        return f"the database {self.name} on {self.host}:{self.port}"


def place_of(dsn: SecretStr) -> Place:
    """Where a DSN points. Raises UserError, without the DSN, if it is none."""
    try:
        given = conninfo.conninfo_to_dict(dsn.get_secret_value())
    except psycopg.ProgrammingError:  # its message repeats the DSN
        given = {"port": "unreadable"}
    # A password with a plain @ or / in it spills into the fields after it.
    spilt = "@" in f"{given.get('host')}{given.get('dbname')}"
    if spilt or not re.fullmatch(r"[0-9,]*", str(given.get("port") or "")):
        raise UserError(
            "the DSN cannot be read: write postgresql://user:password@host:5432/database, "
            "with special characters of the password as %40 and the like"
        )
    user = str(given.get("user") or "postgres")
    return Place(
        name=str(given.get("dbname") or user),
        host=str(given.get("host") or "localhost"),
        port=str(given.get("port") or 5432),
        user=user,
    )


@contextmanager
def connected(dsn: SecretStr, *, writing: bool = False) -> Iterator[Connection]:
    """One transaction on a new connection, rolled back if it fails and closed at the end.

    One that writes sees a single state of the database: that at its first SELECT. Raises UserError, without
    the password, for whatever the server refuses.
    """
    place = place_of(dsn)
    with _explained(place), open_connection(dsn) as connection:
        connection.read_only = not writing
        if writing:
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
        yield connection


def open_connection(dsn: SecretStr) -> Connection:
    """A connection that the caller closes. Raises UserError if there is no way in."""
    place = place_of(dsn)
    defaults = {"connect_timeout": str(CONNECT_TIMEOUT_S), "application_name": "etude"}
    given = conninfo.conninfo_to_dict(dsn.get_secret_value())
    try:
        return psycopg.connect(**(defaults | given), row_factory=dict_row)  # type: ignore[arg-type]
    except psycopg.OperationalError as error:
        raise UserError(_no_way_in(place, str(error), str(given.get("password") or ""))) from None


def _no_way_in(place: Place, message: str, password: str) -> str:
    """One sentence about a connection that was refused; the server's own words only where they are safe."""
    if "password" in message or "authentication" in message or "pg_hba.conf" in message:
        return f"{place} does not let {place.user} in: check user and password in the DSN"
    if "does not exist" in message:
        return f"there is no {str(place).removeprefix('the ')}, or no role {place.user}: check the DSN"
    if "translate host name" in message or "resolve host" in message:
        return f"the host {place.host} is not known here: check the DSN"
    if "refused" in message or "timeout" in message or "No such file" in message or "No route" in message:
        return f"{place} cannot be reached: check host and port in the DSN, and that the server runs"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    said = f" ({lines[-1]})" if lines and not (password and password in message) else ""
    return f"{place} cannot be opened{said}: check the DSN"


@contextmanager
def _explained(place: Place) -> Iterator[None]:
    try:
        yield
    except (errors.UndefinedTable, errors.UndefinedColumn) as error:
        what = error.diag.message_primary or "a table is missing"
        raise UserError(f"{place} is not AudioMuse-AI's, or an unknown version of it: {what}") from None
    except errors.InsufficientPrivilege as error:
        what = error.diag.message_primary or "permission denied"
        raise UserError(f"{place.user} may not do this in {place} ({what}): grant the right") from None
    except errors.ReadOnlySqlTransaction:
        raise UserError(f"{place} takes no writes: connect to its primary server") from None
    except errors.LockNotAvailable:
        raise UserError(f"a table of {place} is in use: try again when AudioMuse-AI is idle") from None
    except errors.DiskFull:
        raise UserError(f"the disk of {place} is full: make room there; nothing was changed") from None
    except (errors.SerializationFailure, errors.DeadlockDetected, errors.ForeignKeyViolation):
        raise UserError(
            f"{place} was changed by others at the same time, so nothing was done: run the same command again"
        ) from None
    except psycopg.OperationalError:
        raise UserError(f"the connection to {place} broke: run the same command again") from None


@dataclass(frozen=True)
class Schema:
    """The tables of AudioMuse-AI that a database has, with their columns."""

    place: Place
    columns: Mapping[str, frozenset[str]]

    @property
    def maps_servers(self) -> bool:
        """True for the current schema, False for that of December 2025."""
        return "track_server_map" in self.columns and "music_servers" in self.columns

    def require(self, table: str) -> None:
        """Raises UserError if a table is missing, or hidden from this role."""
        if table not in self.columns:
            raise UserError(
                f"{self.place} has no table {table} that {self.place.user} may read: check the DSN, "
                f"run an analysis in AudioMuse-AI, or grant SELECT on {table}"
            )


def read_schema(connection: Connection, place: Place) -> Schema:
    """Which tables and columns this role sees."""
    rows = connection.execute(
        "SELECT table_name, array_agg(column_name::text) AS names FROM information_schema.columns "
        "WHERE table_schema = ANY (current_schemas(false)) AND table_name = ANY (%s) GROUP BY table_name",
        [list(_TABLES)],
    )
    return Schema(place, {row["table_name"]: frozenset(row["names"]) for row in rows})


@dataclass(frozen=True)
class Server:
    """A media server that AudioMuse-AI knows; empty where the schema knows none."""

    id: str = ""
    kind: str = ""  # its server_type

    def require_kind(self, audio: str) -> None:
        """Raises UserError if the settings `source.audio` are known to be for another kind of server."""
        if KINDS.get(self.kind, audio) != audio:
            raise UserError(
                f"AudioMuse-AI's server {self.id} is {self.kind}, and source.audio.name is {audio}: "
                "give the settings of that server in source.audio, or choose another with source.server"
            )


def choose_server(connection: Connection, schema: Schema, wanted: str) -> Server:
    """The server whose id is wanted, or the default one.

    Raises UserError that names the servers if the wanted one is not there, or none is the default.
    """
    if not schema.maps_servers:
        if wanted:
            raise UserError(
                f"{schema.place} is of December 2025 and knows no servers: leave out source.server"
            )
        return Server()
    rows = connection.execute(
        "SELECT server_id, name, lower(server_type) AS kind, is_default FROM music_servers ORDER BY server_id"
    ).fetchall()
    if wanted:
        chosen = [row for row in rows if row["server_id"] == wanted]
    else:
        chosen = [row for row in rows if row["is_default"]] or rows
    if len(chosen) == 1:
        return Server(chosen[0]["server_id"], chosen[0]["kind"])
    if not rows and not wanted:
        return Server()
    there = ", ".join(f"{row['server_id']} ({row['name']})" for row in rows) or "none"
    problem = f"has no server {wanted}" if wanted else "has no default server"
    raise UserError(f"{schema.place} {problem}: set source.server to one of its servers: {there}")
