"""A stub of Jellyfin, and of Emby, which no package carries: written from their API, it enforces its rules.

Of Jellyfin 12 it has: the token in `Authorization: MediaBrowser Token="..."` and nowhere else, ids that must
be ids, paging, libraries, the right to download, and files with Range and ETag. Emby's flavour lives below
/emby and takes its token from X-Emby-Token.
"""

import asyncio
import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.serving import serving

API_KEY = "5ecret-api-key-of-the-stub"
USER_TOKEN = "5ecret-token-of-alice"
RESTRICTED_TOKEN = "5ecret-token-of-bob-who-may-not-download"
ALICE = "6c1f4bd1a2b34c5d8e9f0a1b2c3d4e5f"
BOB = "00112233445566778899aabbccddeeff"
USERS = {USER_TOKEN: ALICE, RESTRICTED_TOKEN: BOB}
GUID = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
SLICE_BYTES = 16 << 10
TOKEN = web.RequestKey("token", str)


@dataclass
class Song:
    """One file that the stub serves."""

    id: str
    data: bytes
    title: str = "Aria"
    artist: str = "Bach"
    album: str = "Variations"
    library: str = "Music"
    duration_s: float = 2.0
    size: int | None = None  # what the catalogue says, if it is not the file's own

    def as_item(self) -> dict[str, Any]:
        return {
            "Id": self.id,
            "Name": self.title,
            "Type": "Audio",
            "Album": self.album,
            "AlbumArtist": self.artist,
            "Artists": [self.artist, "Someone"],
            "Genres": ["Baroque"],
            "ProductionYear": 1741,
            "RunTimeTicks": round(self.duration_s * 1e7),
            "MediaSources": [{"Id": self.id, "Size": len(self.data) if self.size is None else self.size}],
        }


@dataclass
class JellyfinServer:
    """The stub's state; what it serves may be changed while it runs."""

    songs: list[Song]
    emby: bool = False
    version: str = "12.0.0"  # an older one, 10.x, has no /UserViews
    slice_delay_s: float = 0.0  # before each 16 KiB of a file
    total: int | None = None  # TotalRecordCount, if it is not the truth
    port: int = 0
    token_refused: bool = False
    requested: Counter[str] = field(default_factory=Counter)  # downloads begun, by item
    completed: Counter[str] = field(default_factory=Counter)  # downloads written to the end, by item
    ranges: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def libraries(self) -> dict[str, str]:
        """Names to ids."""
        return {song.library: library_id(song.library) for song in self.songs}

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._authorize])
        below = "/emby" if self.emby else ""
        app.router.add_get(below + "/Items", self._items)
        app.router.add_get(below + "/Items/{id}/Download", self._download)
        app.router.add_get(below + "/Users/{id}/Views", self._views)
        app.router.add_get(below + "/Library/VirtualFolders", self._virtual_folders)
        if not self.emby:
            app.router.add_get("/Users/Me", self._me)
            if not self.version.startswith("10."):
                app.router.add_get("/UserViews", self._views)
        app.router.add_get("/web/", self._web)
        return app

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path == "/web/":
            return await handler(request)  # type: ignore[no-any-return]
        legacy = {"x-emby-token", "x-mediabrowser-token", "x-emby-authorization"} & {
            name.lower() for name in request.headers
        }
        if self.emby:
            token = request.headers.get("X-Emby-Token", "")
        else:
            sent = re.fullmatch(r'MediaBrowser Token="([^"]*)"', request.headers.get("Authorization", ""))
            token = sent.group(1) if sent and not legacy and not _query(request, "api_key") else ""
        if self.token_refused or token not in {API_KEY, *USERS}:
            return web.json_response({"title": "Unauthorized"}, status=401)
        request[TOKEN] = token
        return await handler(request)  # type: ignore[no-any-return]

    async def _web(self, request: web.Request) -> web.Response:
        return web.Response(text="<html>log in</html>", content_type="text/html")

    async def _me(self, request: web.Request) -> web.Response:
        user = USERS.get(request[TOKEN])
        return web.json_response({"Id": user, "Name": "alice"}) if user else web.Response(status=400)

    async def _items(self, request: web.Request) -> web.Response:
        user, parent, ids = (_query(request, name) for name in ("userId", "parentId", "ids"))
        for value in (user, parent):
            if value and not GUID.fullmatch(value):
                return web.json_response(
                    {"errors": {"id": [f"The value '{value}' is not valid."]}}, status=400
                )
        if user and user.replace("-", "").lower() not in (ALICE, BOB):
            return web.json_response({"title": "Not Found"}, status=404)
        if not user and request[TOKEN] in USERS and not ids and not self.emby:
            return web.json_response({"title": "userId is required"}, status=400)
        if not ids and (_query(request, "includeItemTypes"), _query(request, "recursive")) != (
            "Audio",
            "true",
        ):
            return web.json_response({"Items": [], "TotalRecordCount": 0})
        songs = [
            song
            for song in self.songs
            if (not parent or library_id(song.library) == parent) and (not ids or song.id in ids.split(","))
        ]
        start, limit = (
            int(_query(request, "startIndex") or 0),
            int(_query(request, "limit") or len(songs) or 1),
        )
        total = len(songs) if self.total is None else self.total
        page = [song.as_item() for song in songs[start : start + limit]]
        if "MediaSources" not in _query(request, "fields"):
            for item in page:
                del item["MediaSources"]
        return web.json_response({"Items": page, "TotalRecordCount": total, "StartIndex": start})

    async def _views(self, request: web.Request) -> web.Response:
        user = request.match_info.get("id") or _query(request, "userId")
        if not GUID.fullmatch(user):
            return web.json_response({"title": "not an id"}, status=400)
        views = [{"Id": id, "Name": name, "Type": "CollectionFolder"} for name, id in self.libraries.items()]
        return web.json_response({"Items": views, "TotalRecordCount": len(views)})

    async def _virtual_folders(self, request: web.Request) -> web.Response:
        if request[TOKEN] != API_KEY:
            return web.Response(status=403)
        folders = [{"ItemId": id, "Name": name, "Locations": []} for name, id in self.libraries.items()]
        return web.json_response(folders)

    async def _download(self, request: web.Request) -> web.StreamResponse:
        song = next((song for song in self.songs if song.id == request.match_info["id"]), None)
        if song is None:
            return web.Response(status=404)
        if request[TOKEN] == RESTRICTED_TOKEN:
            return web.Response(status=403)
        self.requested[song.id] += 1
        etag = f'"{hashlib.sha256(song.data).hexdigest()[:16]}"'
        start, headers = _part(request.headers, len(song.data), etag)
        if start:
            self.ranges.append(request.headers["Range"])
        if start >= len(song.data) > 0:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(song.data)}"})
        response = web.StreamResponse(status=206 if start else 200, headers=headers | {"ETag": etag})
        response.content_type = "audio/flac"
        response.content_length = len(song.data) - start
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # the client went away
            for position in range(start, len(song.data), SLICE_BYTES):
                await asyncio.sleep(self.slice_delay_s)
                await response.write(song.data[position : position + SLICE_BYTES])
            await response.write_eof()
            self.completed[song.id] += 1
        return response


def library_id(name: str) -> str:
    """A library's id, made of its name."""
    return hashlib.md5(name.encode()).hexdigest()


def _part(headers: Mapping[str, str], size: int, etag: str) -> tuple[int, dict[str, str]]:
    """The first byte that is wanted, and the headers that go with it; If-Range of another file: all of it."""
    wanted = re.fullmatch(r"bytes=(\d+)-", headers.get("Range", ""))
    if not wanted or headers.get("If-Range", etag) != etag:
        return 0, {"Accept-Ranges": "bytes"}
    start = int(wanted.group(1))
    return start, {"Accept-Ranges": "bytes", "Content-Range": f"bytes {start}-{size - 1}/{size}"}


def _query(request: web.Request, name: str) -> str:
    """A query's field; the servers do not mind its capitals."""
    return next((value for key, value in request.query.items() if key.lower() == name.lower()), "")


@contextmanager
def jellyfin_stub(songs: list[Song], **options: Any) -> Iterator[JellyfinServer]:
    """A running stub on a free port, in a thread of its own."""
    server = JellyfinServer(songs, **options)
    with serving(server.application()) as server.port:
        yield server
