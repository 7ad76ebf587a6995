"""Requests to a real server that answers as servers on bad days do."""

import asyncio
import logging
import pickle
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from etude.config import Section
from etude.errors import BadAudio, OutOfReach, UserError
from etude.services.daemon import free_port
from etude.sources import http
from etude.sources.http import BaseUrl, Downloader, HttpConfig, Refused
from tests.support.faults import KINDS, faults
from tests.support.serving import answering, in_thread

SECRET = "5ecret"
DATA = bytes(range(256)) * 400  # 102,400 bytes
QUICK = HttpConfig(attempts=4, timeout_s=5.0, total_timeout_s=30)
THROUGH_FAULTS = QUICK.model_copy(update={"attempts": 12, "timeout_s": 1.0})  # some never end


@asynccontextmanager
async def downloader(config: HttpConfig = QUICK, cache: Path | None = None) -> AsyncIterator[Downloader]:
    opened = Downloader(config, {"Authorization": f"Token {SECRET}"}, cache, sign=lambda: {"salt": SECRET})
    try:
        yield opened
    finally:
        await opened.aclose()


def fetch(
    url: str, config: HttpConfig = QUICK, n_bytes: int | None = None, cache: Path | None = None
) -> bytes:
    async def run() -> bytes:
        async with downloader(config, cache) as http:
            return await http.download(url, {}, key="a", n_bytes=n_bytes)

    return asyncio.run(run())


def get_json(url: str, params: Mapping[str, str], config: HttpConfig = QUICK) -> Any:
    async def run() -> Any:
        async with downloader(config) as http:
            return await http.get_json(url, params)

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off as always, only shorter."""
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.01)


def test_headers_query_and_signature_arrive(tmp_path: Path) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response({"query": dict(request.query), "token": request.headers["Authorization"]})

    with answering(echo) as url:
        answer = get_json(f"{url}/a", {"name": "a&b=ü /?"})
    assert answer == {"query": {"name": "a&b=ü /?", "salt": SECRET}, "token": f"Token {SECRET}"}


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_is_mended(kind: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=DATA, content_type="audio/flac")

    with (
        answering(answer) as url,
        faults(int(url.rsplit(":", 1)[1]), share=0.5, seed=1, kinds=[kind]) as proxy,
    ):
        for _ in range(4):
            assert fetch(f"{proxy.url}/a", THROUGH_FAULTS, n_bytes=len(DATA)) == DATA
    assert proxy.counts[kind] > 0


def test_a_broken_listing_is_asked_for_again() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"names": ["x" * 100] * 50})

    with answering(answer) as url, faults(int(url.rsplit(":", 1)[1]), share=0.5, seed=2) as proxy:
        for _ in range(6):
            assert len(get_json(f"{proxy.url}/a", {}, THROUGH_FAULTS)["names"]) == 50
    assert proxy.counts.total() > 0


@pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
def test_a_broken_download_goes_on_where_it_was(validator: str) -> None:
    version = {"ETag": '"one"', "Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT"}[validator]
    ranges: list[tuple[str | None, str | None]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        ranges.append((request.headers.get("Range"), request.headers.get("If-Range")))
        start = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        headers = {validator: version, "Content-Length": str(len(DATA) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        await response.write(DATA[start : start + 40_000])
        await asyncio.sleep(0.05)
        if request.transport and start + 40_000 < len(DATA):
            request.transport.close()
        return response

    with answering(answer) as url:
        assert fetch(f"{url}/a", n_bytes=len(DATA)) == DATA
    assert ranges == [(None, None), ("bytes=40000-", version), ("bytes=80000-", version)]


def test_a_file_that_changed_meanwhile_starts_over() -> None:
    files = [b"a" * 50_000, b"b" * 50_000]
    requests: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        requests.append(request.headers.get("Range"))
        data = files[min(len(requests), 2) - 1]
        response = web.StreamResponse(headers={"ETag": f'"{data[:1].decode()}"', "Content-Length": "50000"})
        await response.prepare(request)
        await response.write(data if len(requests) > 1 else data[:20_000])
        await asyncio.sleep(0.05)
        if request.transport and len(requests) == 1:
            request.transport.close()
        return response

    with answering(answer) as url:
        assert fetch(f"{url}/a", n_bytes=50_000) == files[1]
    assert requests == [None, "bytes=20000-"]


def test_a_server_that_sends_another_part_is_not_believed() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if "Range" in request.headers:  # the first half again, said to be so
            headers = {"Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"}
            return web.Response(body=DATA, status=206, headers=headers)
        answer.first = not answer.first  # type: ignore[attr-defined]
        response = web.StreamResponse(headers={"ETag": '"one"', "Content-Length": str(len(DATA))})
        await response.prepare(request)
        await response.write(DATA[:50_000] if answer.first else DATA)  # type: ignore[attr-defined]
        await asyncio.sleep(0.05)
        if request.transport and answer.first:  # type: ignore[attr-defined]
            request.transport.close()
        return response

    answer.first = False  # type: ignore[attr-defined]
    with answering(answer) as url:
        assert fetch(f"{url}/a", n_bytes=len(DATA)) == DATA


@pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
def test_the_rest_of_another_file_is_not_joined(validator: str) -> None:
    versions = {
        "ETag": ['"a"', '"b"'],
        "Last-Modified": ["Mon, 02 Nov 2026 10:00:00 GMT", "Tue, 03 Nov 2026 10:00:00 GMT"],
    }[validator]
    requests: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        """A file that is another one from the second request on, by a server that knows no If-Range."""
        requests.append(request.headers.get("Range"))
        first = len(requests) == 1
        start = int((requests[-1] or "bytes=0-")[6:-1])
        headers = {validator: versions[not first], "Content-Length": str(50_000 - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-49999/50000"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        await response.write(b"a" * 20_000 if first else b"b" * (50_000 - start))
        await asyncio.sleep(0.05)
        if request.transport and first:
            request.transport.close()
        return response

    with answering(answer) as url:
        assert fetch(f"{url}/a", n_bytes=50_000) == b"b" * 50_000
    assert requests == [None, "bytes=20000-", None]


def test_the_server_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []

    async def answer(request: web.Request) -> web.Response:
        times.append(time.monotonic())
        late = len(times) > 1
        return web.Response(body=DATA) if late else web.Response(status=429, headers={"Retry-After": "1"})

    with answering(answer) as url:
        assert fetch(f"{url}/a") == DATA
    assert times[1] - times[0] >= 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("0", 0), ("3600", 60), ("-5", 0), ("soon", None), ("", None), ("inf", 60), ("nan", 0)],
)
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    assert http.retry_after(value) == seconds


def test_retry_after_as_a_date() -> None:
    seconds = http.retry_after(formatdate(time.time() + 30, usegmt=True))
    assert seconds is not None and 25 < seconds <= 30
    assert http.retry_after(formatdate(0, usegmt=True)) == 0


def test_a_file_of_another_length_than_listed_is_not_passed_on() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=DATA)

    with (
        answering(answer) as url,
        pytest.raises(OutOfReach, match=r"102400 bytes, not the 5 .*scan its library"),
    ):
        fetch(f"{url}/a", n_bytes=5)


def test_without_any_length_the_end_is_the_end() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(DATA)
        return response

    with answering(answer) as url:
        assert fetch(f"{url}/a") == DATA


@contextmanager
def raw(answer: bytes) -> Iterator[str]:
    """The address of a server that answers so to everything and then closes the connection."""
    ports: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def serve(started: threading.Event) -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        started.set()
        await server.serve_forever()

    with in_thread(serve):
        yield f"http://127.0.0.1:{ports[0]}"


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_file_that_ends_with_the_connection_is_trusted_by_its_listed_length_only(
    tmp_path: Path, version: bytes
) -> None:
    head = b"HTTP/" + version + b" 200 OK\r\nContent-Type: audio/flac\r\nConnection: close\r\n\r\n"
    with raw(head + b"fLaC, half") as url:
        with pytest.raises(Refused, match=r"comes without its length.* Content-Length") as raised:
            fetch(f"{url}/a", cache=tmp_path)
        assert raised.value.status == 0  # no source takes it for a log-in page
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
        assert fetch(f"{url}/a", n_bytes=10) == b"fLaC, half"
        with pytest.raises(OutOfReach, match="10 bytes came instead of 20"):
            fetch(f"{url}/a", n_bytes=20)


def test_chunks_without_an_end_are_no_file(tmp_path: Path) -> None:
    with raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfLaC\r\n") as url:
        with pytest.raises(OutOfReach, match="broke off"):
            fetch(f"{url}/a", cache=tmp_path)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_written_costs_no_file(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=DATA)

    (tmp_path / "audio").write_bytes(b"")
    with answering(answer) as url:
        assert fetch(f"{url}/a", cache=tmp_path) == DATA


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "\0", "a\x85", "\udcff"])
def test_a_credential_that_cannot_be_sent_is_not_shown(text: str) -> None:
    with pytest.raises(UserError, match=r"^the token holds a line end or another control character: copy"):
        http.check_sendable(text, "the token")
    http.check_sendable("pass word é€\u200b", "the token")


def test_an_empty_answer_is_no_file() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"", content_type="audio/flac")

    with answering(answer) as url, pytest.raises(OutOfReach, match="0 bytes came"):
        fetch(f"{url}/a")


def test_more_than_fits_is_bad_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=DATA)

    with answering(answer) as url, pytest.raises(BadAudio, match="more than 2 GiB"):
        fetch(f"{url}/a", n_bytes=3 << 30)
    monkeypatch.setattr(http, "MAX_BYTES", 1000)
    with answering(answer) as url, pytest.raises(BadAudio):
        fetch(f"{url}/a")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 301])
def test_a_refusal_ends_the_trying(status: int) -> None:
    requests = []

    async def answer(request: web.Request) -> web.Response:
        requests.append(request.path)
        return web.Response(status=status, headers={"Location": f"https://elsewhere/b?key={SECRET}"})

    with answering(answer) as url, pytest.raises(Refused) as raised:
        fetch(f"{url}/a")
    assert raised.value.status == status
    assert requests == ["/a"]  # neither tried again nor followed elsewhere with what is secret
    assert SECRET not in str(raised.value)
    copy = pickle.loads(pickle.dumps(raised.value))  # Ray carries errors from process to process
    assert (str(copy), copy.status) == (str(raised.value), status)


@pytest.mark.parametrize("kind", ["text/html", "application/json", "application/xml", "text/plain"])
def test_a_text_is_no_file(kind: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="<p>log in</p>", content_type=kind)

    with answering(answer) as url, pytest.raises(Refused, match="instead of a file") as raised:
        fetch(f"{url}/a")
    assert raised.value.body == b"<p>log in</p>"


def test_a_web_page_is_no_listing() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="<p>log in</p>", content_type="text/html")

    with answering(answer) as url, pytest.raises(Refused, match="web page"):
        get_json(f"{url}/a", {})


def test_nobody_there() -> None:
    config = QUICK.model_copy(update={"attempts": 2})
    with pytest.raises(OutOfReach, match=r"no connection \(Connection refused\) \(tried 2 times\)"):
        fetch(f"http://127.0.0.1:{free_port()}/a", config)
    with pytest.raises(OutOfReach, match="no host of this name"):
        fetch("http://nobody.invalid/a", HttpConfig(attempts=1))


def test_no_trust_and_no_tls(tmp_path: Path) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -keyout key -out cert"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert", tmp_path / "key")

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=DATA)

    with answering(answer, tls) as url, pytest.raises(Refused, match="certificate is not trusted"):
        fetch(f"{url}/a")
    with answering(answer) as url, pytest.raises(Refused, match="does not speak TLS"):
        fetch(f"{url.replace('http', 'https')}/a")


def test_what_was_fetched_is_not_asked_for_again(tmp_path: Path) -> None:
    requests = []

    async def answer(request: web.Request) -> web.Response:
        requests.append(request.path)
        return web.Response(body=DATA)

    with answering(answer) as url:
        for _ in range(3):
            assert fetch(f"{url}/a", n_bytes=len(DATA), cache=tmp_path) == DATA
        assert len(requests) == 1
        for _ in range(2):
            fetch(f"{url}/a", QUICK.model_copy(update={"cache_gb": 0.0}), cache=tmp_path)
        assert len(requests) == 3


@pytest.mark.parametrize("limit", [3, 16])
def test_as_many_as_the_limit_are_under_way(limit: int) -> None:
    under_way = [0, 0]
    reached = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        under_way[0] += 1
        under_way[1] = max(under_way)
        if under_way[0] == limit:
            reached.set()
        await asyncio.wait_for(reached.wait(), 10)
        await asyncio.sleep(0.02)
        under_way[0] -= 1
        return web.Response(body=DATA)

    async def run(url: str) -> None:
        async with downloader(HttpConfig(concurrency=limit)) as http:
            await asyncio.gather(
                *(http.download(f"{url}/{i}", {}, key=str(i), n_bytes=len(DATA)) for i in range(48))
            )

    with answering(answer) as url:
        asyncio.run(run(url))
    assert under_way == [0, limit]


def test_a_rate_is_kept_over_event_loops() -> None:
    times: list[float] = []

    async def answer(request: web.Request) -> web.Response:
        times.append(time.monotonic())
        return web.Response(body=DATA)

    config = HttpConfig(rate_per_s=20, concurrency=8)

    async def run(url: str) -> None:
        async with downloader(config) as http:
            await asyncio.gather(*(http.download(f"{url}/{i}", {}, key="", n_bytes=None) for i in range(4)))

    with answering(answer) as url:
        begun = time.monotonic()  # the first to arrive may be late
        asyncio.run(run(url))
        asyncio.run(run(url))
    assert len(times) == 8
    assert max(times) - begun >= 7 / 20


def test_one_downloader_serves_several_event_loops() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=DATA)

    opened = Downloader(QUICK, {}, None)

    async def run(url: str) -> bytes:
        try:
            return await opened.download(url, {}, key="a", n_bytes=None)
        finally:
            await opened.aclose()

    with answering(answer) as url:
        assert [asyncio.run(run(f"{url}/a")) for _ in range(3)] == [DATA] * 3


def test_no_secret_in_errors_or_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    config = THROUGH_FAULTS.model_copy(update={"attempts": 2})
    texts = []

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="{" if request.path == "/json" else SECRET, content_type="application/json")

    with answering(answer) as url:
        places = [f"{url}/a", f"{url}/json", f"http://127.0.0.1:{free_port()}/a"]
        for kind in KINDS:
            with faults(int(url.rsplit(":", 1)[1]), share=1.0, kinds=[kind]) as proxy:
                for call in (lambda url: fetch(url, config), lambda url: get_json(url, {}, config)):
                    for place in (proxy.url + "/a", *places):
                        with pytest.raises(OutOfReach) as raised:
                            call(place)
                        chain: BaseException | None = raised.value
                        while chain is not None:
                            texts.append(f"{chain!r} {chain}")
                            chain = chain.__cause__ or chain.__context__
                places = []
    assert len(texts) >= 18
    assert SECRET not in "\n".join(texts) + caplog.text


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://h:8096/", "http://h:8096"),
        (" https://music.example/jellyfin/ ", "https://music.example/jellyfin"),
    ],
)
def test_addresses(given: str, kept: str) -> None:
    assert TypeAdapter(BaseUrl).validate_python(given) == kept


@pytest.mark.parametrize(
    "given",
    ["", "h:8096", "ftp://h", "http://", "http://u:p@h", "http://h/?a=b", "http://h/#!/home", "http://[h"],
)
def test_no_addresses(given: str) -> None:
    class Holder(Section):
        url: BaseUrl

    with pytest.raises(ValidationError):
        Holder(url=given)
