"""The library that AudioMuse-AI has analysed, as a source: rows from its database, audio from a server.

Only rows whose audio can be fetched are listed; how many others there are, and why, is logged and counted.
"""

import asyncio
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol
from urllib.parse import quote

from psycopg import sql
from pydantic import Field

from etude.config import Secret, Section
from etude.errors import BadAudio, OutOfReach, UserError
from etude.sources.audiomuse_schema import (
    FINGERPRINT,
    Schema,
    choose_server,
    connected,
    place_of,
    read_schema,
)
from etude.sources.base import Track
from etude.sources.folder import FolderConfig
from etude.sources.jellyfin import JellyfinConfig, JellyfinSource
from etude.sources.listing import digest
from etude.sources.subsonic import SubsonicConfig, SubsonicSource

ROWS_AT_ONCE = 2000  # that the server sends
_COLUMNS = ("title", "author")  # of both schemas, beside the id
_OPTIONAL = frozenset(
    {"album", "album_artist", "year", "duration"}
    | {"tempo", "energy", "key", "scale", "mood_vector", "other_features"}
)
_MAPPED = (
    "LEFT JOIN (SELECT DISTINCT ON (item_id) * FROM track_server_map WHERE server_id = %(server)s "
    "ORDER BY item_id, provider_track_id) m ON m.item_id = s.item_id"
)
_SCORE = re.compile(r"([^:,\s](?:[^:,]*[^:,\s])?):(-?[0-9]+(?:\.[0-9]+)?)")  # rock:0.560
log = logging.getLogger(__name__)


class AudioMuseConfig(Section):
    """Settings of an AudioMuse-AI library."""

    name: Literal["audiomuse"] = "audiomuse"
    dsn: Secret = Field(description="postgresql://user:password@host:5432/database")
    audio: JellyfinConfig | SubsonicConfig | FolderConfig = Field(discriminator="name")
    server: str = Field("", description="server_id of music_servers; empty: the default one")
    mounted_at: str = Field(
        "", description="where the media server sees the folder of audio.path, such as /music"
    )


@dataclass(frozen=True)
class Analysis:
    """What AudioMuse-AI found in a track; what it did not store, or not in its format, is None or empty."""

    tempo: float | None  # beats a minute, folded into 40..200
    energy: float | None
    key: str
    scale: str
    moods: Mapping[str, float]
    features: Mapping[str, float]
    year: int | None
    malformed: tuple[str, ...] = ()  # the tags that are not in AudioMuse-AI's format

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> "Analysis":
        """Parse the tags of a track; never raises."""
        malformed: list[str] = []

        def parsed(name: str, parse: Any, empty: Any) -> Any:
            try:
                return parse(tags[name]) if tags.get(name) else empty
            except ValueError:
                malformed.append(name)
                return empty

        return cls(
            tempo=parsed("tempo", _finite, None),
            energy=parsed("energy", _finite, None),
            key=tags.get("key", ""),
            scale=tags.get("scale", ""),
            moods=parsed("moods", parse_scores, {}),
            features=parsed("features", parse_scores, {}),
            year=parsed("year", int, None),
            malformed=tuple(malformed),
        )


def parse_scores(text: str) -> dict[str, float]:
    """`rock:0.560,pop:0.538` as a dictionary. Raises ValueError for anything but that format."""
    scores: dict[str, float] = {}
    for part in text.split(","):
        match = _SCORE.fullmatch(part)
        if not match or match[1] in scores:
            raise ValueError(f"{part!r} is not a new label with its number, such as rock:0.560")
        scores[match[1]] = _finite(match[2])
    return scores


class _Audio(Protocol):
    """Whoever knows the audio: a media server by its own id, or a folder by the file's path."""

    @property
    def id(self) -> str: ...

    async def fetch_item(self, item_id: str) -> bytes: ...

    async def aclose(self) -> None: ...


class AudioMuseSource:
    """The tracks of an AudioMuse-AI database that a media server, or a folder, has the audio of.

    A track whose id is a fingerprint, `fp_...`, is the same in every library, and another when its audio
    changes. A server's own id means something on that server only, so there the track's id holds this
    source's; that the audio behind it has changed shows in the stored length alone, and with the schema of
    December 2025, which stores no length, not at all.
    """

    def __init__(self, config: AudioMuseConfig, cache: Path | None = None) -> None:
        self._config = config
        self._audio = _open_audio(config, cache)
        self._skipped: Counter[str] = Counter()

    @property
    def id(self) -> str:
        """`audiomuse-` and a hash of where database and audio are; no name or secret is in it."""
        place = place_of(self._config.dsn)
        return f"audiomuse-{digest(place.host, place.port, place.name, self._config.server, self._audio.id)}"

    @property
    def skipped(self) -> dict[str, int]:
        """After listing: how many rows were passed over or are incomplete, by reason."""
        return dict(self._skipped)

    def tracks(self) -> Iterator[Track]:
        """List the analysed tracks by id, streamed from the server.

        Raises UserError if there is no way into the database, it is not AudioMuse-AI's, the server is not
        there or of another kind than `audio`, or no track at all has audio.
        """
        self._skipped.clear()
        place = place_of(self._config.dsn)
        n_listed = 0
        with connected(self._config.dsn) as connection:
            schema = read_schema(connection, place)
            schema.require("score")
            server = choose_server(connection, schema, self._config.server)
            if not isinstance(self._config.audio, FolderConfig):
                server.require_kind(self._config.audio.name)
            with connection.cursor(name="etude_tracks") as cursor:
                cursor.itersize = ROWS_AT_ONCE
                cursor.execute(_listing(schema), {"server": server.id})
                for row in cursor:
                    track = self._track(row)
                    if track is not None:
                        n_listed += 1
                        yield track
        for reason, count in self._skipped.items():
            log.warning("%s: %d of %s", reason, count, place)
        if not n_listed:
            why = "; ".join(f"{reason}: {count}" for reason, count in self._skipped.items())
            raise UserError(f"no track of {place} can be used ({why or 'it has none'}): analyse music first")

    async def fetch(self, track: Track) -> bytes:
        """The original file. Raises OutOfReach if it cannot be had now, BadAudio if it never can."""
        folder = isinstance(self._config.audio, FolderConfig)
        return await self._audio.fetch_item(track.tags["file_path" if folder else "provider_id"])

    async def aclose(self) -> None:
        """Close what fetching has opened."""
        await self._audio.aclose()

    def _track(self, row: Mapping[str, Any]) -> Track | None:
        item_id: str = row["item_id"]
        provider_id = row["provider_id"] or ("" if item_id.startswith(FINGERPRINT) else item_id)
        file_path = row.get("file_path") or ""
        if isinstance(self._config.audio, FolderConfig):
            if not file_path:
                self._skipped["rows without audio, because no file path is stored"] += 1
                return None
        elif not provider_id:
            self._skipped["rows without audio, because the media server has no item for them"] += 1
            return None
        tags = {
            "item_id": item_id,
            "provider_id": provider_id,
            "file_path": file_path,
            "author": row["author"],
            "tempo": row.get("tempo"),
            "energy": row.get("energy"),
            "key": row.get("key"),
            "scale": row.get("scale"),
            "moods": row.get("mood_vector"),
            "features": row.get("other_features"),
            "year": row.get("year"),
        }
        texts = {name: str(value) for name, value in tags.items() if value not in (None, "")}
        for name in Analysis.of(texts).malformed:
            self._skipped[f"rows with unreadable {name}, which is left empty"] += 1
        duration_s = row.get("duration") or 0.0
        known = math.isfinite(duration_s) and duration_s > 0
        own = (self.id, str(round(duration_s)) if known else "")
        return Track(
            id=f"audiomuse-{digest(item_id, *(() if item_id.startswith(FINGERPRINT) else own))}",
            uri=f"audiomuse:{quote(item_id, safe='')}",
            title=row["title"] or item_id,
            artist=row.get("album_artist") or row["author"] or "",
            album=row.get("album") or "",
            duration_s=float(duration_s) if known else None,
            tags=texts,
        )


class _FolderAudio:
    """Files below a folder, by the path under which a media server knows them."""

    def __init__(self, root: Path, mounted_at: str) -> None:
        self._root = root
        self._mounted_at = mounted_at

    @property
    def id(self) -> str:
        return str(self._root)

    async def fetch_item(self, item_id: str) -> bytes:
        path = file_below(self._root, self._mounted_at, item_id)
        try:
            return await asyncio.to_thread(path.read_bytes)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise OutOfReach(f"there is no file {path}") from None

    async def aclose(self) -> None:
        """Nothing stays open."""


def file_below(root: Path, mounted_at: str, stored: str) -> Path:
    """The file below `root` that a stored path means; `mounted_at` is where the server sees `root`.

    Raises BadAudio if it leaves the folder, OutOfReach if a setting is wrong: the path begins elsewhere.
    """
    path = PurePosixPath(stored)
    if ".." in path.parts:
        raise BadAudio(f"its path {path} leaves the folder")
    for base in filter(None, (mounted_at, str(root))):
        if path.is_relative_to(base):
            return root / path.relative_to(base)
    if path.is_absolute():
        raise OutOfReach(
            f"its path {path} is not below {mounted_at or root}: set source.mounted_at to where the media "
            f"server sees {root}"
        )
    return root / path


def _open_audio(config: AudioMuseConfig, cache: Path | None) -> _Audio:
    audio = config.audio
    if isinstance(audio, FolderConfig):
        return _FolderAudio(audio.path.resolve(), config.mounted_at)
    return JellyfinSource(audio, cache) if isinstance(audio, JellyfinConfig) else SubsonicSource(audio, cache)


def _listing(schema: Schema) -> sql.Composed:
    """The rows of `score` by id, with one provider id each: the first where there are several."""
    score = schema.columns["score"]
    columns = [sql.Identifier("s", name) for name in ("item_id", *_COLUMNS, *sorted(score & _OPTIONAL))]
    paths = [sql.Identifier("s", "file_path")] if "file_path" in score else []
    if schema.maps_servers and "file_path" in schema.columns["track_server_map"]:
        paths.insert(0, sql.Identifier("m", "file_path"))
    given = [sql.SQL("nullif({}, '')").format(path) for path in paths]
    return sql.SQL(
        "SELECT {columns}, {provider_id} AS provider_id, coalesce({paths}) AS file_path "
        "FROM score s {joined} ORDER BY s.item_id"
    ).format(
        columns=sql.SQL(", ").join(columns),
        provider_id=sql.SQL("m.provider_track_id" if schema.maps_servers else "NULL"),
        paths=sql.SQL(", ").join([*given, sql.NULL]),
        joined=sql.SQL(_MAPPED if schema.maps_servers else ""),
    )


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value
