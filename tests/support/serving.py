"""Real servers for tests, on free ports, each in a thread of its own."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextmanager
def serving(app: web.Application, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port on which `app` answers until the block is left."""
    ports: list[int] = []

    async def serve(started: threading.Event) -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        ports.append(runner.addresses[0][1])
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    with in_thread(serve):
        yield ports[0]


@contextmanager
def answering(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of a real server whose every path is answered by `handler`."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    with serving(app, tls) as port:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"


@contextmanager
def in_thread(serve: Callable[[threading.Event], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """Run `serve(started)`, a coroutine that serves for ever, in a thread until the block is left."""
    started = threading.Event()
    loop = asyncio.new_event_loop()
    task: list[asyncio.Task[None]] = []

    def run() -> None:
        asyncio.set_event_loop(loop)
        task.append(loop.create_task(serve(started)))
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task[0])
        for left in asyncio.all_tasks(loop):
            left.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(10), "the server did not start"
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task[0].cancel)
        thread.join(10)
