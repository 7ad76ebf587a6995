"""A proxy before a real HTTP server that is away, refuses, holds its answers or loses them, as it is told."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from aiohttp import ClientSession, DummyCookieJar, web
from multidict import CIMultiDict

from tests.support.serving import serving

Mode = Literal["pass", "away", "503", "429", "hold", "lost answer"]
OF_A_CONNECTION = {"host", "connection", "keep-alive", "transfer-encoding", "content-length"}


class Unsteady:
    """Does with every request as `mode` says at the time; `counts` says how many met which mode."""

    def __init__(self, upstream: str) -> None:
        self.mode: Mode = "pass"
        self.counts: Counter[str] = Counter()
        self.url = ""
        self._upstream = upstream

    async def answer(self, request: web.Request) -> web.StreamResponse:
        mode = self.mode
        self.counts[mode] += 1
        if mode == "away":
            return _cut(request)
        if mode in ("503", "429"):
            return web.Response(status=int(mode))
        while self.mode == "hold":
            await asyncio.sleep(0.01)
        options = {"auto_decompress": False, "cookie_jar": DummyCookieJar()}
        async with (
            ClientSession(**options) as session,
            session.request(
                request.method,
                self._upstream + request.raw_path,
                headers=_passed_on(request.headers),
                data=await request.read(),
                allow_redirects=False,
            ) as upstream,
        ):
            body = await upstream.read()
        if mode == "lost answer":
            return _cut(request)
        return web.Response(status=upstream.status, headers=_passed_on(upstream.headers), body=body)


@contextmanager
def unsteady(upstream: str) -> Iterator[Unsteady]:
    """A running proxy on a free port before the server at an address such as `http://127.0.0.1:5000`."""
    proxy = Unsteady(upstream)
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", proxy.answer)
    with serving(app) as port:
        proxy.url = f"http://127.0.0.1:{port}"
        yield proxy


def wait_until(true: Callable[[], bool], what: str, limit_s: float = 200) -> None:
    """Fails if it is not true in time."""
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, f"{what}: not within {limit_s:.0f} s"
        time.sleep(0.01)


def _cut(request: web.Request) -> web.StreamResponse:
    """What a client sees of a server that died."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _passed_on(headers: "CIMultiDict[str]") -> "CIMultiDict[str]":
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in OF_A_CONNECTION
    )
