"""A proxy before a real server that lets a seeded share of its answers go wrong, each in a chosen way."""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.support.serving import in_thread

KINDS = ("429", "500", "reset", "stall", "short", "wrong length")
STALL_S = 30.0  # far beyond any time-out in the tests; ended with the proxy


class FaultProxy:
    """Passes requests on to `upstream_port`, one a connection; `counts` says which faults really happened."""

    def __init__(self, upstream_port: int, share: float, seed: int, kinds: Sequence[str]) -> None:
        self.counts: Counter[str] = Counter()
        self.n_requests = 0
        self.port = 0
        self._upstream_port = upstream_port
        self._share = share
        self._random = random.Random(seed)
        self._kinds = kinds

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, started: threading.Event) -> None:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            self.n_requests += 1
            kind = self._random.choice(self._kinds) if self._random.random() < self._share else ""
            if kind == "429":
                answer = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
            elif kind == "500":
                answer = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
            else:
                answer = await self._upstream(request)
            head, _, body = answer.partition(b"\r\n\r\n")
            half = body[: len(body) // 2]
            if kind in ("reset", "stall", "short"):
                answer = head + b"\r\n\r\n" + half
            elif kind == "wrong length":
                lines = [
                    line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")
                ]
                answer = b"\r\n".join([*lines, b"Content-Length: %d" % len(half)]) + b"\r\n\r\n" + half
            if kind:
                self.counts[kind] += 1
            writer.write(answer)
            await writer.drain()
            if kind == "stall":
                await asyncio.sleep(STALL_S)
            if kind == "reset":  # closing with this option sends RST
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    async def _upstream(self, request: bytes) -> bytes:
        """The whole answer of the real server, which closes the connection after it."""
        lines = [
            line for line in request.rstrip().split(b"\r\n") if not line.lower().startswith(b"connection:")
        ]
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        writer.write(b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n")
        await writer.drain()
        answer = await reader.read()
        writer.close()
        return answer


@contextmanager
def faults(
    upstream_port: int, share: float = 0.05, seed: int = 0, kinds: Sequence[str] = KINDS
) -> Iterator[FaultProxy]:
    """A running proxy on a free port, in a thread of its own."""
    proxy = FaultProxy(upstream_port, share, seed, kinds)
    with in_thread(proxy.serve):
        yield proxy
