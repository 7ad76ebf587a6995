"""Navidrome and every other server that speaks Subsonic or OpenSubsonic: its files as they are on disk."""

import asyncio
import hashlib
import logging
import re
import secrets
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from pydantic import Field, SecretStr
from yarl import URL

from etude.config import Secret, Section
from etude.errors import OutOfReach, UserError
from etude.sources.base import Track
from etude.sources.http import BaseUrl, Downloader, HttpConfig, Refused, check_sendable
from etude.sources.listing import digest, items_of, named, number_of, paged, synchronous, text_of, unseen

PAGE_ITEMS = 500
VERSION = "1.16.1"  # the last of the Subsonic protocol; the first with tokens is 1.13
NO_TOKENS = frozenset({10, 30, 41, 42})  # error numbers of servers that cannot check a salted token
ERROR_NUMBER = re.compile(rb"\bcode[\"']?\s*[:=]\s*[\"']?(\d+)")  # in JSON and in XML
log = logging.getLogger(__name__)


class SubsonicConfig(Section):
    """Settings of a Subsonic server: user and password, or an OpenSubsonic API key."""

    name: Literal["subsonic"] = "subsonic"
    url: BaseUrl = Field(description="the server's address, such as http://192.168.1.5:4533")
    user: str = ""
    password: Secret | None = None
    plain_password: bool = Field(
        False,
        description="send the password itself where a server cannot check tokens, such as supysonic; "
        "only over https or at home",
    )
    api_key: Secret | None = None
    library: str = Field("", description="name or id of one music folder; empty: all")
    http: HttpConfig = HttpConfig()


class SubsonicError(OutOfReach):
    """A server's own error; `number` is the protocol's, None where there is no Subsonic server."""

    def __init__(self, reason: str, number: int | None = None) -> None:
        super().__init__(reason)
        self.number = number


class SubsonicSource:
    """The songs of a Subsonic server as a `Source`; `cache` is the folder below which files are kept.

    The password is sent salted and hashed. Where a server cannot check that, because it keeps no password
    that it could hash, and `plain_password` allows it, the password itself is sent, as the protocol's older
    versions want it.
    """

    def __init__(self, config: SubsonicConfig, cache: Path | None) -> None:
        if (config.api_key is None) == (config.password is None or not config.user):
            raise UserError(
                "a Subsonic server needs either user and password or api_key: give one of the two"
            )
        self._config = config
        check_sendable(config.user, f"the user name of {self._at()}")
        check_sendable(_text_of_secret(config.password), f"the password of {self._at()}")
        check_sendable(_text_of_secret(config.api_key).strip(), f"the API key of {self._at()}")
        url = URL(config.url)
        self._place = f"{url.host}:{url.port}{url.path.rstrip('/')}"
        self._version = VERSION
        self._plain = False
        self._agreed = False
        self._http = Downloader(config.http, {}, cache, sign=self._sign)

    @property
    def id(self) -> str:
        """`subsonic-` and a hash of the server's address, user and library."""
        return f"subsonic-{digest(self._place, self._config.user, self._config.library)}"

    def tracks(self) -> Iterator[Track]:
        """List the server's songs page by page.

        Raises UserError if the server cannot be reached, refuses the log-in, is none of this kind, knows no
        such music folder, or has no song there.
        """
        found = False
        try:
            for song in synchronous(self._pages(), self.aclose):
                found = True
                yield self._track(song)
        except OutOfReach as error:
            raise UserError(self._why(error)) from None
        if not found:
            raise UserError(f"{self._at()} shows no song: check its library and what the user may see")

    async def fetch(self, track: Track) -> bytes:
        """The original file, never a transcoded one. Raises OutOfReach, or BadAudio for one far too large."""
        query = {"id": unquote(track.uri.rsplit("/", 1)[-1]), "format": "raw"}
        try:
            await self._agree()
            url = f"{self._config.url}/rest/download.view"
            return await self._http.download(url, query, key=track.id, n_bytes=track.n_bytes)
        except (Refused, SubsonicError) as error:
            raise OutOfReach(self._why(error)) from None

    async def fetch_item(self, item_id: str) -> bytes:
        """The original file of a song whose id is known; one request more tells its length."""
        try:
            song = (await self._get("getSong", {"id": item_id})).get("song")
        except (Refused, SubsonicError) as error:
            raise OutOfReach(self._why(error)) from None
        if not isinstance(song, dict):
            raise OutOfReach(f"{self._at()} has no song {item_id!r}")
        return await self.fetch(self._track(song))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _pages(self) -> AsyncGenerator[list[dict[str, Any]], None]:
        folder = {}
        if self._config.library:
            reply = await self._get("getMusicFolders")
            folders = items_of(reply, "musicFolders", "musicFolder")
            names = {text_of(item, "id"): text_of(item, "name") for item in folders}
            wanted = named(self._config.library, names)
            if wanted is None:
                known = ", ".join(sorted(names.values())) or "none"
                raise UserError(f"{self._at()} has no music folder {self._config.library!r}, but {known}")
            folder = {"musicFolderId": wanted}
        seen: set[str] = set()
        listings = (self._all_songs(folder), self._songs_by_album(folder))
        for listing in listings:
            async for songs in listing:
                yield unseen([song for song in songs if _is_song(song)], "id", seen)
            if seen:
                return

    def _all_songs(self, folder: dict[str, str]) -> AsyncGenerator[list[dict[str, Any]], None]:
        """The empty search, which OpenSubsonic servers answer with everything, and others with nothing."""
        query = {"query": "", "artistCount": "0", "albumCount": "0", "songCount": str(PAGE_ITEMS)}

        async def page_after(start: int) -> list[dict[str, Any]]:
            reply = await self._get("search3", query | folder | {"songOffset": str(start)})
            return items_of(reply, "searchResult3", "song")

        return paged(page_after, "id")

    async def _songs_by_album(self, folder: dict[str, str]) -> AsyncGenerator[list[dict[str, Any]], None]:
        query = {"type": "alphabeticalByName", "size": str(PAGE_ITEMS)}

        async def page_after(start: int) -> list[dict[str, Any]]:
            reply = await self._get("getAlbumList2", query | folder | {"offset": str(start)})
            return items_of(reply, "albumList2", "album")

        async for albums in paged(page_after, "id"):
            for album in await asyncio.gather(
                *(self._get("getAlbum", {"id": text_of(album, "id")}) for album in albums)
            ):
                yield items_of(album, "album", "song")

    async def _get(self, method: str, query: dict[str, str] | None = None) -> dict[str, Any]:
        await self._agree()
        return await self._call(method, query or {})

    async def _agree(self) -> None:
        """Find the log-in that the server understands, once."""
        may_be_plain = self._config.plain_password and self._config.password is not None
        while not self._agreed:
            version, plain = self._version, self._plain
            try:
                await self._call("ping", {})
                self._agreed = True
            except SubsonicError as error:
                if error.number == 30 and version == VERSION != self._version:
                    continue
                if error.number not in NO_TOKENS or plain or not may_be_plain:
                    raise
                if not self._plain:
                    log.warning("%s cannot check a salted password: it gets the password itself", self._at())
                self._plain = True

    async def _call(self, method: str, query: dict[str, str]) -> dict[str, Any]:
        try:
            body = await self._http.get_json(f"{self._config.url}/rest/{method}.view", query)
        except Refused as refused:
            number = _number_in(refused.body)
            if number is None:
                raise
            raise SubsonicError(f"error {number}", number) from None
        reply = body.get("subsonic-response") if isinstance(body, dict) else None
        if not isinstance(reply, dict):
            raise SubsonicError("its answer is none of the Subsonic protocol")
        if "error" in reply or reply.get("status") == "failed":
            error = reply.get("error")
            number = int(number_of(error, "code") or 0) if isinstance(error, dict) else 0
            if number == 30:  # the server is older than the version that was asked for, and says how old
                self._version = text_of(reply, "version") or self._version
            raise SubsonicError(f"error {number}", number)
        return reply

    def _sign(self) -> dict[str, str]:
        """What every request carries in its query, with a salt of its own."""
        config = self._config
        common = {"v": self._version, "c": "etude", "f": "json"}
        if config.api_key is not None:
            return common | {"apiKey": _text_of_secret(config.api_key).strip()}
        password = _text_of_secret(config.password)
        if self._plain:
            return common | {"u": config.user, "p": "enc:" + password.encode().hex()}
        salt = secrets.token_hex(8)
        token = hashlib.md5((password + salt).encode(), usedforsecurity=False).hexdigest()
        return common | {"u": config.user, "t": token, "s": salt}

    def _track(self, song: dict[str, Any]) -> Track:
        song_id = text_of(song, "id")
        n_bytes = number_of(song, "size")
        tags = {"genre": text_of(song, "genre"), "date": text_of(song, "year")}
        return Track(
            id=f"subsonic-{digest(self._place, song_id, str(int(n_bytes)) if n_bytes else '')}",
            uri=f"subsonic://{self._place}/songs/{quote(song_id, safe='')}",
            title=text_of(song, "title") or song_id,
            artist=text_of(song, "displayAlbumArtist", "artist"),  # the album's: it names the work
            album=text_of(song, "album"),
            duration_s=number_of(song, "duration"),
            n_bytes=int(n_bytes) if n_bytes else None,
            tags={name: value for name, value in tags.items() if value},
        )

    def _at(self) -> str:
        return f"the Subsonic server at {self._config.url}"

    def _why(self, error: OutOfReach) -> str:
        """One sentence: what the server did, and what to do."""
        at = self._at()
        number = error.number if isinstance(error, SubsonicError) else None
        if isinstance(error, Refused):
            number = _number_in(error.body)
        status = error.status if isinstance(error, Refused) else None
        if number in (40, 44) or status == 401:
            what = "user name or password" if self._config.api_key is None else "API key"
            return f"{at} refuses the {what}: correct it"
        salted = self._config.password is not None and not self._config.plain_password
        if number in NO_TOKENS and salted and not self._agreed:
            return (
                f"{at} cannot check a salted password (error {number}): over https or at home set "
                "plain_password to send the password itself"
            )
        if number in NO_TOKENS | {43}:
            what = "password" if self._config.api_key is None else "API key"
            return f"{at} does not understand this log-in (error {number}): give another than the {what}"
        if number == 50 or status == 403:
            return f"{at} gives no right to this: allow its user to download"
        if number == 70:
            return f"{at} has no such song any more: list the library again"
        if number is not None:
            return f"{at} answers with Subsonic's error {number}: its own log says why"
        if status in (200, 404) or isinstance(error, SubsonicError):
            return f"there is no Subsonic server at {self._config.url}: check the address and its path"
        return f"{at} is out of reach: {error}"


def _text_of_secret(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _number_in(body: bytes) -> int | None:
    """The protocol's error number in an answer that should have been something else."""
    found = ERROR_NUMBER.search(body)
    return int(found.group(1)) if found else None


def _is_song(item: dict[str, Any]) -> bool:
    return bool(text_of(item, "id")) and not item.get("isDir") and not item.get("isVideo")
