"""A real server of the S3 protocol, and a proxy before it that lets requests and answers go wrong."""

import asyncio
import contextlib
import logging
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import boto3

from tests.support.faults import FaultProxy
from tests.support.serving import in_thread

BUCKET = "etude-test"
# Whoever runs the tests may have credentials of a real cloud: these go before them, and lead nowhere.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}
REFUSALS = {"503": "SlowDown", "500": "InternalError", "403": "AccessDenied"}
S3_KINDS = ("503", "500", "reset", "lost", "short")


def address(port: int, path: str) -> str:
    """A place in the bucket of the server that listens there."""
    return f"s3://{BUCKET}/{path}?endpoint_override=127.0.0.1:{port}&scheme=http"


@contextmanager
def s3_server() -> Iterator[int]:
    """The port of a server that has one bucket."""
    from moto.server import ThreadedMotoServer  # slow to import: only who uses it waits for it

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        client(port).create_bucket(Bucket=BUCKET)
        yield port
    finally:
        server.stop()


def client(port: int) -> "boto3.client":
    """A plain client of the server, with its credentials."""
    return boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
        aws_access_key_id="test", aws_secret_access_key="test",
    )  # fmt: skip


class S3Proxy(FaultProxy):
    """Besides answers that break off (reset, short) there are 503 SlowDown, 500, and answers that are lost
    after the server did what was asked; `requests` counts what reached the server, by method."""

    def __init__(self, upstream_port: int, share: float, seed: int, kinds: Sequence[str]) -> None:
        super().__init__(upstream_port, share, seed, kinds)
        self.share = share
        self.requests: Counter[str] = Counter()
        self.refuse = False  # all, as long as it is set

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await self._request(reader, writer)
            kind = self._random.choice(self._kinds) if self._random.random() < self.share else ""
            kind = "503" if self.refuse else kind
            if kind in REFUSALS:
                code = REFUSALS[kind]
                body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
                head = f"HTTP/1.1 {kind} Injected\r\nContent-Type: application/xml\r\nConnection: close"
                answer = head.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            else:
                self.requests[request.split(b" ", 1)[0].decode()] += 1
                answer = await self._upstream(request)
            head, _, body = answer.partition(b"\r\n\r\n")
            if kind in ("reset", "short") and not body:
                kind = "lost"  # there is nothing to break off
            if kind in ("reset", "short"):
                answer = head + b"\r\n\r\n" + body[: len(body) // 2]
            if kind:
                self.counts[kind] += 1
            if kind != "lost":
                writer.write(answer)
                await writer.drain()
            if kind in ("reset", "lost"):  # closing with this option sends RST
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """A whole request, whose body its sender may hold back until it is asked to go on."""
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.rstrip().split(b"\r\n")
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in lines[1:])
        }
        if b"expect" in fields:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await writer.drain()
        if fields.get(b"transfer-encoding") == b"chunked":
            body = await _chunks(reader)
        else:
            body = await reader.readexactly(int(fields.get(b"content-length", 0)))
        kept = [line for line in lines if not line.lower().startswith((b"connection:", b"expect:"))]
        return b"\r\n".join([*kept, b"Connection: close"]) + b"\r\n\r\n" + body

    async def _upstream(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        writer.write(request)
        await writer.drain()
        answer = await reader.read()
        writer.close()
        return answer


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """A body that comes in chunks, as it came: each after its length, then lines until an empty one."""
    body = b""
    while True:
        line = await reader.readline()
        body += line
        if not (size := int(line.split(b";")[0], 16)):
            break
        body += await reader.readexactly(size + 2)
    while line != b"\r\n":
        line = await reader.readline()
        body += line
    return body


@contextmanager
def s3_faults(
    port: int, share: float = 0.0, seed: int = 0, kinds: Sequence[str] = S3_KINDS
) -> Iterator[S3Proxy]:
    """A running proxy on a free port before the server at `port`."""
    proxy = S3Proxy(port, share, seed, kinds)
    with in_thread(proxy.serve):
        yield proxy
