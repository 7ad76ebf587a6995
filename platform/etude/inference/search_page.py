"""The search in a browser: a page, its answers as JSON, and the original files to play.

It listens on the loopback alone unless told otherwise, and answers only if it is called by a name that it
knows: otherwise any page on the web could read the library by pointing a name of its own to 127.0.0.1.
"""

import asyncio
import base64
import hashlib
import html
import re
import signal
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

from etude.config import mask
from etude.errors import BadAudio, UserError
from etude.inference.originals import Originals, content_type
from etude.inference.search import Found, Searchable
from etude.inference.settings import MOST

MAX_QUERY = 1000  # characters; what is longer is no description, and no model here takes it
PAGE = Path(__file__).with_name("search_page.html")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_KEPT_S = 3600  # a file of one id never changes


class Page:
    """Answers the requests for one library."""

    def __init__(self, library: Searchable, top: int) -> None:
        self._library = library
        self._originals = Originals(library.source)
        self._top = top

    async def page(self, request: web.Request) -> web.Response:
        """GET /"""
        text = _template().replace("{{library}}", html.escape(self._library.name))
        return web.Response(text=text.replace("{{top}}", str(self._top)), content_type="text/html")

    async def search(self, request: web.Request) -> web.Response:
        """GET /search?q=...&k=...: tracks with their cosines, or `error`, a sentence."""
        query, k = request.query.get("q", ""), request.query.get("k", str(self._top))
        if len(query) > MAX_QUERY:
            return _error(400, f"the query has {len(query)} characters: shorten it to {MAX_QUERY}")
        if not (re.fullmatch(r"[0-9]{1,3}", k) and 1 <= int(k) <= MOST):
            return _error(400, f"k is the number of tracks, from 1 to {MOST}")
        try:
            found = await asyncio.to_thread(self._library.find, query, int(k))
        except UserError as error:
            return _error(400, str(error))
        known = self._library.reader.knows(query)
        return web.json_response(_answer(found) | {"known": known}, headers={"Cache-Control": "no-store"})

    async def audio(self, request: web.Request) -> web.Response:
        """GET /audio/ID: the original file, or the range of it that is asked for."""
        track = self._library.index.track(request.match_info["id"])
        if track is None:
            return _error(404, "this library has no such track: search again")
        try:
            data = await self._originals.get(track)
        except (BadAudio, UserError) as error:
            return _error(502, f"this track cannot be played: {error}")
        except OSError as error:
            return _error(502, f"this track cannot be had now: {error.strerror or error}")
        return _ranged(request, data, f'"{hashlib.sha256(track.id.encode()).hexdigest()[:16]}"')

    async def aclose(self, app: web.Application) -> None:
        """Close what fetching has opened."""
        await self._originals.aclose()


def search_app(library: Searchable, top: int = 10, names: Sequence[str] = ()) -> web.Application:
    """The page as an application; `names` are those by which it may be called, beside localhost."""
    page = Page(library, top)
    app = web.Application(middlewares=[_known_names_only(LOOPBACK | {name.lower() for name in names})])
    app.router.add_get("/", page.page)
    app.router.add_get("/search", page.search)
    app.router.add_get("/audio/{id}", page.audio)
    app.on_response_prepare.append(_add_headers)
    app.on_cleanup.append(page.aclose)
    return app


def serve(app: web.Application, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; `ready` is called with the address.

    Raises UserError if the address cannot be had.
    """
    asyncio.run(_serve(app, host, port, ready))


async def _serve(app: web.Application, host: str, port: int, ready: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        ready(f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}/")
        await stop.wait()
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}, port {port} ({error.strerror or error}): choose another --port "
            "or --host"
        ) from None
    finally:
        await runner.cleanup()


def _known_names_only(names: frozenset[str]) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _name_of(request.headers.get("Host", "")) not in names:
            return _error(
                403,
                "this page does not answer to that name: open it as localhost, or start it with --names NAME",
            )
        return await handler(request)

    return check


def _name_of(host: str) -> str:
    """The name in a Host header, without the port; empty if there is none."""
    try:
        return (URL(f"http://{host}").host or "").lower()
    except ValueError:
        return ""


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Content-Security-Policy"] = _policy()
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"


@cache
def _template() -> str:
    return PAGE.read_text("utf-8")


@cache
def _policy() -> str:
    """Nothing from elsewhere, and of scripts and styles only the page's own, known by their hashes."""

    def own(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", _template(), re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found]
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {own('script')}; style-src {own('style')}; img-src data:; "
        "connect-src 'self'; media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _answer(found: Found) -> dict[str, object]:
    tracks = [
        {
            "id": track.id,
            "title": track.title,
            "artist": track.artist,
            "album": track.album,
            "duration_s": track.duration_s,
            "score": round(cosine, 4),
        }
        for track, cosine in found
    ]
    return {"tracks": tracks}


def _error(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": mask(sentence)}, status=status, headers={"Cache-Control": "no-store"})


def _ranged(request: web.Request, data: bytes, tag: str) -> web.Response:
    """A whole file, or one range of it (RFC 9110, 14); several ranges at once are answered with all of it."""
    headers = {
        "Accept-Ranges": "bytes", "ETag": tag, "Cache-Control": f"private, max-age={_KEPT_S}",
        "Content-Type": content_type(data),
    }  # fmt: skip
    asked = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", request.headers.get("Range", ""), re.ASCII)
    changed = request.headers.get("If-Range", tag) != tag
    if asked is None or asked.groups() == ("", "") or changed:
        return web.Response(body=data, headers=headers)
    first, last = asked.groups()
    start = int(first) if first else max(len(data) - int(last), 0)
    end = min(int(last) + 1, len(data)) if first and last else len(data)
    if first and last and int(last) < int(first):  # no range at all
        return web.Response(body=data, headers=headers)
    if start >= end:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    return web.Response(status=206, body=data[start:end], headers=headers)
