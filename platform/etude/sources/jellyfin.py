"""Jellyfin and Emby: a server's music, as it lies on the server's disk."""

import re
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from pydantic import Field
from yarl import URL

from etude.config import Secret, Section
from etude.errors import BadAudio, OutOfReach, UserError
from etude.sources.base import Track
from etude.sources.http import BaseUrl, Downloader, HttpConfig, Refused, check_sendable
from etude.sources.listing import digest, items_of, named, number_of, paged, synchronous, text_of, texts_of

PAGE_ITEMS = 500
TICKS_PER_S = 1e7
FIELDS = "MediaSources,Genres,Etag"
ITEM_ID = re.compile(r"[0-9A-Za-z-]{1,64}")  # Jellyfin: 32 hexadecimal digits; Emby: a number
USER_ID = re.compile(r"[0-9a-f]{32}")  # after the dashes are taken out


class JellyfinConfig(Section):
    """Settings of a Jellyfin or Emby server."""

    name: Literal["jellyfin", "emby"] = "jellyfin"
    url: BaseUrl = Field(description="the server's address, such as http://192.168.1.5:8096")
    token: Secret = Field(description="an API key from the server's dashboard, or a user's access token")
    user_id: str = Field("", description="list what this user sees; an id, not a name")
    library: str = Field("", description="name or id of one library; empty: all music")
    http: HttpConfig = HttpConfig()


class JellyfinSource:
    """The audio of a Jellyfin or Emby server as a `Source`; `cache` is the folder below which files are kept.

    Jellyfin 12 refuses every other form of its token than this header; Emby knows only a header of its own.
    """

    def __init__(self, config: JellyfinConfig, cache: Path | None) -> None:
        self._config = config
        self._emby = config.name == "emby"
        self._title = "Emby" if self._emby else "Jellyfin"
        below = "/emby" if self._emby and not config.url.endswith("/emby") else ""
        self._url = config.url + below
        url = URL(config.url)
        self._place = f"{url.host}:{url.port}{url.path.rstrip('/')}"
        token = config.token.get_secret_value().strip()
        check_sendable(token, f"the token of {self._at()}")
        headers = (
            {"X-Emby-Token": token} if self._emby else {"Authorization": f'MediaBrowser Token="{token}"'}
        )
        self._http = Downloader(config.http, headers, cache)

    @property
    def id(self) -> str:
        """The server's kind and a hash of its address, user and library."""
        return f"{self._config.name}-{digest(self._place, self._config.user_id, self._config.library)}"

    def tracks(self) -> Iterator[Track]:
        """List the server's audio, oldest first, page by page.

        Raises UserError if the server cannot be reached, refuses the token, is none of this kind, knows no
        such user or library, or has no audio there.
        """
        found = False
        try:
            for item in synchronous(self._pages(), self.aclose):
                found = True
                yield self._track(item)
        except OutOfReach as error:
            raise UserError(self._why(error)) from None
        if not found:
            raise UserError(f"{self._at()} shows no audio: check its library and what the user may see")

    async def fetch(self, track: Track) -> bytes:
        """The original file, never a transcoded one. Raises OutOfReach, or BadAudio if it is no item's id."""
        item_id = _checked(unquote(track.uri.rsplit("/", 1)[-1]))
        url = f"{self._url}/Items/{item_id}/Download"
        try:
            return await self._http.download(url, {}, key=track.id, n_bytes=track.n_bytes)
        except Refused as error:
            raise OutOfReach(self._why(error)) from None

    async def fetch_item(self, item_id: str) -> bytes:
        """The original file of an item whose id is known; one request more tells its length.

        Raises OutOfReach, or BadAudio if it is no item's id.
        """
        query = {"Ids": _checked(item_id), "Fields": FIELDS}
        try:
            items = items_of(await self._get("/Items", query), "Items")
        except Refused as error:
            raise OutOfReach(self._why(error)) from None
        if not items:
            raise OutOfReach(f"{self._at()} has no item {item_id}")
        return await self.fetch(self._track(items[0]))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _pages(self) -> AsyncGenerator[list[dict[str, Any]], None]:
        user = await self._user()
        query = {
            "IncludeItemTypes": "Audio",
            "Recursive": "true",
            "SortBy": "DateCreated,SortName",  # what is added meanwhile comes last and shifts no page
            "SortOrder": "Ascending",
            "Fields": FIELDS,
            "EnableImages": "false",
            "EnableUserData": "false",
            "Limit": str(PAGE_ITEMS),
        }
        if user:
            query["UserId"] = user
        if self._config.library:
            query["ParentId"] = await self._library(user)

        async def page_after(start: int) -> list[dict[str, Any]]:
            body = await self._get("/Items", query | {"StartIndex": str(start)})
            if not isinstance(body, dict) or not isinstance(body.get("Items"), list):
                raise UserError(f"{self._at()} does not answer as {self._title} does: check its address")
            return items_of(body, "Items")

        async for page in paged(page_after, "Id"):
            yield page

    async def _user(self) -> str:
        """The id of the user whose library is listed; empty for an API key without one, which sees all."""
        user = self._config.user_id.strip()
        if user:
            if not USER_ID.fullmatch(user.replace("-", "").lower()):
                raise UserError(
                    f"user_id {user!r} is no id but perhaps a name: it is the 32 hexadecimal digits in the "
                    f"address of the user's page in {self._title}'s dashboard"
                )
            return user
        if self._emby:
            return ""
        try:
            return text_of(await self._get("/Users/Me"), "Id")
        except Refused as error:
            if error.status not in (400, 404):  # what an API key, which is no user's, gets
                raise
            return ""

    async def _library(self, user: str) -> str:
        """The id of the library that the configuration names by id or name."""
        paths: list[tuple[str, dict[str, str]]] = [
            ("/Library/VirtualFolders", {}),
            ("/Library/MediaFolders", {}),
        ]
        if user:
            paths = [("/UserViews", {"userId": user}), (f"/Users/{user}/Views", {}), *paths]
        for path, query in paths:
            try:
                body = await self._get(path, query)
            except Refused as error:
                if error.status not in (403, 404):  # an older server, or a user who is no administrator
                    raise
                continue
            views = items_of(body, "Items") if isinstance(body, dict) else items_of({"": body}, "")
            names = {text_of(view, "ItemId", "Id"): text_of(view, "Name") for view in views}
            wanted = named(self._config.library, names)
            if wanted is None:
                known = ", ".join(sorted(names.values())) or "none"
                raise UserError(f"{self._at()} has no library {self._config.library!r}, but {known}")
            return wanted
        raise UserError(f"{self._at()} does not show its libraries to this token: give an administrator's")

    async def _get(self, path: str, query: dict[str, str] | None = None) -> Any:
        return await self._http.get_json(self._url + path, query or {})

    def _track(self, item: dict[str, Any]) -> Track:
        item_id = text_of(item, "Id")
        media = items_of(item, "MediaSources")
        own = next(
            (source for source in media if text_of(source, "Id") == item_id), media[0] if media else {}
        )
        n_bytes = number_of(own, "Size")
        ticks = number_of(item, "RunTimeTicks")
        tags = {
            "genre": texts_of(item, "Genres"),
            "date": text_of(item, "PremiereDate")[:10] or text_of(item, "ProductionYear"),
        }
        version = str(int(n_bytes)) if n_bytes else text_of(item, "Etag")
        return Track(
            id=f"{self._config.name}-{digest(self._place, item_id, version)}",
            uri=f"{self._config.name}://{self._place}/Items/{quote(item_id, safe='')}",
            title=text_of(item, "Name") or item_id,
            artist=text_of(item, "AlbumArtist")
            or texts_of(item, "Artists"),  # the album's: it names the work
            album=text_of(item, "Album"),
            duration_s=ticks / TICKS_PER_S if ticks else None,
            n_bytes=int(n_bytes) if n_bytes else None,
            tags={name: value for name, value in tags.items() if value},
        )

    def _at(self) -> str:
        return f"{self._title} at {self._config.url}"

    def _why(self, error: OutOfReach) -> str:
        """One sentence: what the server did, and what to do."""
        at = self._at()
        status = error.status if isinstance(error, Refused) else None
        if status == 401:
            return f"{at} refuses the token: it is wrong or has expired, make a new API key in the dashboard"
        if status == 403:
            return f"{at} gives no right to this: allow the token's user to see the library and to download"
        if status == 400:
            return f"{at} does not know the user or the library: check user_id, an id and not a name"
        if status == 404:
            return f"{at} has nothing there: the file is gone, or the address is not {self._title}'s"
        if status == 200:
            return f"{at} answers with a text or a web page: check the address, and any log-in page before it"
        return f"{at} is out of reach: {error}"


def _checked(item_id: str) -> str:
    """An id that is safe in a path. Raises BadAudio for any other, since no server has given it."""
    if not ITEM_ID.fullmatch(item_id):
        raise BadAudio(f"{item_id!r} is no item's id: those have letters, digits and dashes")
    return item_id
