"""Vectors that AudioMuse-AI has stored, as a teacher that does not listen.

It knows one vector a track, so every segment's target is the whole track's vector (weak supervision).
No column of AudioMuse-AI says which model wrote `clap_embedding`, so the configuration has to.
"""

import hashlib
from typing import Any, Literal

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from pydantic import Field, SecretStr

from etude.audio.decode import Audio
from etude.audio.segment import Segments
from etude.config import Secret, Section
from etude.errors import BadAudio, OutOfReach, UserError
from etude.sources.audiomuse_schema import Connection, connected, open_connection, place_of, read_schema
from etude.sources.base import Track
from etude.teachers.base import Targets

Table = Literal["embedding", "clap_embedding"]
Provenance = Literal["musicnn", "clap_htsat", "clap_student"]

UNIT = 1e-3  # a length this near to 1 is 1
DIMS: dict[Table, int] = {"embedding": 200, "clap_embedding": 512}
PROVENANCES: dict[Table, tuple[Provenance, ...]] = {
    "embedding": ("musicnn",),
    "clap_embedding": ("clap_htsat", "clap_student"),
}


class StoredConfig(Section):
    """Which stored vectors to learn from."""

    name: Literal["stored"] = "stored"
    dsn: Secret | None = Field(None, description="postgresql://...; without one, source.dsn")
    table: Table = "clap_embedding"
    provenance: Provenance | None = Field(None, description="which model wrote the vectors")
    version: str = Field("", description="hash of the vectors; empty: asked from the database")


class StoredTeacher:
    """A `Teacher`: the vectors in a table of AudioMuse-AI's database, by the track's `item_id`.

    It travels to other processes without its connection, which opens when a vector is first asked for.
    Raises UserError if the provenance is not stated or not the table's, or the table is missing or empty.
    """

    license = "unknown: that of the model with which AudioMuse-AI made the vectors"
    anchors: NDArray[np.float32] | None = None

    def __init__(self, config: StoredConfig) -> None:
        self._dsn = _dsn(config)
        self.provenance = _provenance(config)
        self.version = config.version or vectors_hash(config)
        self.id = f"stored-{config.table}-{self.provenance}-{self.version}"
        self.dim = DIMS[config.table]
        self.normalized = config.table == "clap_embedding"
        self._config = config
        self._connection: Connection | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_connection": None}

    def embed(self, audio: Audio, segments: Segments, track: Track) -> Targets:
        """The track's stored vector [dim], and the same for every segment [n_segments, dim].

        Raises BadAudio if there is none or it cannot serve, OutOfReach if the database cannot be asked.
        """
        return self.recall(track, len(segments))

    def recall(self, track: Track, n_segments: int) -> Targets:
        """The same without the audio. Raises as `embed` does."""
        vector = self.vector(track)
        return Targets(np.repeat(vector[None], n_segments, axis=0), vector)

    def vector(self, track: Track) -> NDArray[np.float32]:
        """The track's stored vector [dim], of length 1 if `normalized`. Raises as `embed` does."""
        item_id = track.tags.get("item_id")
        if item_id is None:
            raise UserError("stored vectors are found by AudioMuse-AI's ids: set source.name to audiomuse")
        row = self._row(item_id)
        if row is None:
            raise BadAudio(f"it has no row in {self._config.table}")
        vector = read_vector(row["embedding"], self.dim)
        return unit(vector) if self.normalized else vector

    def close(self) -> None:
        """Close the connection; the next vector opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _row(self, item_id: str) -> dict[str, Any] | None:
        query = sql.SQL("SELECT embedding FROM {} WHERE item_id = %s").format(
            sql.Identifier(self._config.table)
        )
        for _ in range(2):  # a connection may have been closed while nobody asked
            try:
                if self._connection is None:
                    self._connection = open_connection(self._dsn)
                    self._connection.autocommit = True
                return self._connection.execute(query, [item_id], prepare=True).fetchone()
            except UserError as error:  # no way in: the database may be back later
                raise OutOfReach(str(error)) from None
            except psycopg.OperationalError:
                self.close()
            except psycopg.ProgrammingError as error:  # the table has gone, or the right to read it
                raise OutOfReach(f"{place_of(self._dsn)}: {error.diag.message_primary}") from None
        raise OutOfReach(f"the connection to {place_of(self._dsn)} broke twice")


def read_vector(data: bytes | None, dim: int) -> NDArray[np.float32]:
    """A stored vector [dim] from its bytes, little-endian float32. Raises BadAudio if it cannot serve."""
    if data is None:
        raise BadAudio("its stored vector is missing")
    if len(data) != 4 * dim:
        raise BadAudio(f"its stored vector has {len(data)} bytes instead of {4 * dim}")
    vector = np.frombuffer(data, "<f4").astype(np.float32)
    if not np.isfinite(vector).all():
        raise BadAudio("its stored vector is not finite")
    if not vector.any():
        raise BadAudio("its stored vector is zero")
    return vector


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """A finite vector [dim] that is not zero, at length 1. Raises BadAudio if that cannot be."""
    exact = vector.astype(np.float64)  # squares of float32 leave its range
    scaled = (exact / np.linalg.norm(exact)).astype(np.float32)
    if not abs(float(np.linalg.norm(scaled)) - 1) < UNIT:  # false for NaN, too
        raise BadAudio("its stored vector cannot be brought to length 1")
    return scaled


def vectors_hash(config: StoredConfig) -> str:
    """Eight digits, computed by the server, that change with any vector or id of the table.

    Raises UserError if the table is missing or empty.
    """
    dsn = _dsn(config)
    place = place_of(dsn)
    with connected(dsn) as connection:
        read_schema(connection, place).require(config.table)
        row = connection.execute(
            sql.SQL(
                "SELECT count(*) AS n, string_agg(encode(sha256(convert_to(item_id, 'UTF8')), 'hex') || "
                "encode(sha256(embedding), 'hex'), '' ORDER BY item_id) AS hashes FROM {} "
                "WHERE embedding IS NOT NULL"
            ).format(sql.Identifier(config.table))
        ).fetchone()
    assert row is not None
    if not row["n"]:
        raise UserError(f"{config.table} of {place} holds no vectors: run an analysis in AudioMuse-AI")
    return hashlib.sha256(row["hashes"].encode()).hexdigest()[:8]


def _dsn(config: StoredConfig) -> SecretStr:
    if config.dsn is None:
        raise UserError("stored vectors are in a database: set teacher.dsn, or source.name to audiomuse")
    return config.dsn


def _provenance(config: StoredConfig) -> Provenance:
    allowed = PROVENANCES[config.table]
    if config.provenance in allowed:
        return config.provenance
    if config.provenance is None and len(allowed) == 1:
        return allowed[0]
    if config.provenance is None:
        raise UserError(
            f"{config.table} may hold the vectors of CLAP or of a student of it, and no column says which: "
            f"say where its vectors come from, --teacher.provenance {' or '.join(allowed)}; "
            "`python jobs/doctor.py` shows the evidence"
        )
    raise UserError(
        f"{config.table} does not hold vectors of {config.provenance}: "
        f"set teacher.provenance to {' or '.join(allowed)}, or teacher.table to another"
    )
