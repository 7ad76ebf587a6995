"""How files and listings come over HTTP: limits, patience, resumption, checks, and no secret in any message.

Whatever varies with a caller's rights travels in headers or in the query, and neither is ever repeated: an
error names the address without its query, and says in words of its own what went wrong.
"""

import asyncio
import io
import json
import os
import random
import time
import unicodedata
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from functools import cache as memoize
from pathlib import Path
from typing import Annotated, Any, TypeVar
from weakref import WeakKeyDictionary

import aiohttp
from pydantic import AfterValidator, Field
from yarl import URL

from etude.config import Section
from etude.errors import BadAudio, OutOfReach, UserError
from etude.storage.cache import DiskCache

MAX_BYTES = 2 << 30  # a file is held whole in memory; two hours of 24-bit stereo at 96 kHz are 4 GB
MAX_JSON_BYTES = 64 << 20
MAX_WAIT_S = 60.0  # whatever Retry-After says
FIRST_WAIT_S = 0.5
CHUNK_BYTES = 256 << 10
PASSING = frozenset({408, 425, 429, *range(500, 600)})  # statuses that another try may change
T = TypeVar("T")


class HttpConfig(Section):
    """How hard a server is pressed and how long it is waited for."""

    concurrency: int = Field(4, ge=1, description="requests under way at a time, in each process")
    rate_per_s: float | None = Field(None, gt=0, description="requests a second at most, in each process")
    attempts: int = Field(5, ge=1, description="tries before a file counts as out of reach")
    timeout_s: float = Field(30.0, gt=0, description="seconds without a connection or a byte")
    total_timeout_s: float = Field(600.0, gt=0, description="seconds for one try")
    cache_gb: float = Field(10.0, ge=0, description="audio kept for the next run, 0: none")


def base_url(text: str) -> str:
    """An http or https address without a trailing slash. Raises ValueError for anything else."""
    try:
        url = URL(text.strip())
    except ValueError:
        raise ValueError("it is no address such as http://192.168.1.5:8096") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("an address begins with http:// or https:// and a host")
    if url.user or url.password or url.query_string or url.fragment:
        raise ValueError("only scheme, host, port and path belong into the address, no user and no query")
    return str(url).rstrip("/")


BaseUrl = Annotated[str, AfterValidator(base_url)]


def check_sendable(text: str, what: str) -> None:
    """Raise UserError, which says `what` it is and not the text, for what no request can carry."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise UserError(f"{what} holds a line end or another control character: copy it again, without it")


class Refused(OutOfReach):
    """An answer that another try will not change: a status, or a text where a file belongs."""

    def __init__(self, reason: str, status: int = 0, body: bytes = b"") -> None:
        super().__init__(reason)
        self.status = status  # 0: no connection or no file that can be trusted
        self.body = body  # its beginning; never shown, only searched for a server's error number


class _Fault(Exception):  # noqa: N818
    """What another try may mend."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s  # what the server asks for


class _Partial:
    """What has come of a file so far, and what tells whether the rest still belongs to it."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what has come."""
        self.buffer = io.BytesIO()  # its value is taken without a copy
        self.validator = ("", "")  # a header and its value, for If-Range
        self.total: int | None = None


class Pace:
    """When the next request to a server may start; shared by the threads and event loops of a process."""

    def __init__(self, rate_per_s: float | None) -> None:
        self._interval_s = 1 / rate_per_s if rate_per_s else 0.0
        self._next = 0.0

    async def wait(self) -> None:
        """Return when the next request may start."""
        start = max(time.monotonic(), self._next)
        self._next = start + self._interval_s
        await asyncio.sleep(max(0.0, start - time.monotonic()))

    def pause(self, seconds: float) -> None:
        """Start nothing for so long: the server has said when it wants to be asked again."""
        self._next = max(self._next, time.monotonic() + seconds)


@memoize
def _pace(origin: str, rate_per_s: float | None) -> Pace:
    return Pace(rate_per_s)


class Downloader:
    """Requests to one server, with its headers and whatever `sign` adds to each query.

    Files are kept in `cache` below the configured size; None or a size of 0 keeps none. Every method raises
    OutOfReach when the tries are used up, and Refused, which is one, when more of them would be in vain.
    """

    def __init__(
        self,
        config: HttpConfig,
        headers: Mapping[str, str],
        cache: Path | None,
        sign: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._config = config
        self._headers = dict(headers)
        self._sign = sign
        kept = cache is not None and config.cache_gb > 0
        self._cache = DiskCache(cache / "audio", config.cache_gb * 1e9) if cache and kept else None
        self._open: WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[aiohttp.ClientSession, asyncio.Semaphore]
        ] = WeakKeyDictionary()

    async def get_json(self, url: str, params: Mapping[str, str]) -> Any:
        """What a server answers in JSON."""

        async def once() -> Any:
            async with self._request(url, params, {"Accept": "application/json"}) as response:
                if "html" in response.content_type:
                    raise Refused(f"{url} answers with a web page", response.status)
                body = await _text(response, MAX_JSON_BYTES)
            try:
                return json.loads(body)
            except ValueError:
                raise _Fault("its answer is not JSON") from None

        return await self._try(url, once)

    async def download(self, url: str, params: Mapping[str, str], *, key: str, n_bytes: int | None) -> bytes:
        """A whole file, from the cache or the server, of `n_bytes` if that is known.

        A file of another length than was listed is never passed on: it is another one, or not all of it.
        Raises BadAudio for a file of more than 2 GiB.
        """
        if n_bytes is not None:
            _check_size(n_bytes)
        if self._cache:
            data = await asyncio.to_thread(self._cache.get, key)
            if data is not None and n_bytes in (None, len(data)):
                return data
        partial = _Partial()
        data = await self._try(url, lambda: self._file(url, params, partial, n_bytes))
        if self._cache:
            await asyncio.to_thread(self._cache.put, key, data)
        return data

    async def aclose(self) -> None:
        """Close the connections that the running event loop has opened."""
        session, _ = self._open.pop(asyncio.get_running_loop(), (None, None))
        if session:
            await session.close()

    async def _try(self, url: str, once: Callable[[], Awaitable[T]]) -> T:
        pace = _pace(str(URL(url).origin()), self._config.rate_per_s)
        reason = ""
        for attempt in range(1, self._config.attempts + 1):
            wait_s = min(MAX_WAIT_S, FIRST_WAIT_S * 2**attempt) * random.random()
            try:
                async with self._session()[1]:
                    await pace.wait()
                    return await once()
            except _Fault as fault:
                reason = str(fault)
                if fault.wait_s is not None:
                    pace.pause(fault.wait_s)
                    wait_s += fault.wait_s  # the random part keeps those who wait from coming back at once
            except aiohttp.ClientConnectorCertificateError:
                reason = "its certificate is not trusted: name its authority's file in SSL_CERT_FILE"
                break
            except aiohttp.ClientSSLError:
                reason = "it does not speak TLS there: try http:// or another port"
                break
            except (aiohttp.ClientError, OSError) as error:
                if isinstance(error, Refused):
                    raise
                reason = self._words(error)
            if attempt < self._config.attempts:
                await asyncio.sleep(wait_s)
        else:
            # Raised outside of the handlers: the errors that came before hold the query, in their text.
            raise OutOfReach(f"{url}: {reason} (tried {_times(self._config.attempts)})")
        raise Refused(f"{url}: {reason}")

    async def _file(
        self, url: str, params: Mapping[str, str], partial: _Partial, n_bytes: int | None
    ) -> bytes:
        """One try at a file or at the rest of it. Raises _Fault."""
        size = partial.buffer.tell()
        headers = {"Accept-Encoding": "identity"}  # else no length could be checked
        header, version = partial.validator
        if size and version:
            headers |= {"Range": f"bytes={size}-", "If-Range": version}
        async with self._request(url, params, headers) as response:
            if response.status == 206:
                part = response.headers.get("Content-Range", "")
                asked_for = _content_range(size, partial.total)
                if part != asked_for or response.headers.get(header, version) != version:
                    partial.restart()
                    raise _Fault("it sends another part than was asked for")
            else:
                partial.restart()
                await _check_kind(url, response)
                _check_end(url, response, n_bytes)
                _begin(partial, response, n_bytes)
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                partial.buffer.write(chunk)
                if n_bytes is None:
                    _check_size(partial.buffer.tell())
        expected = partial.total if n_bytes is None else n_bytes
        size = partial.buffer.tell()
        if size == 0 or (expected is not None and size != expected):
            if expected is None or size > expected:
                partial.restart()
            raise _Fault(f"{size} bytes came" + (f" instead of {expected}" if expected else ""))
        return partial.buffer.getvalue()

    @asynccontextmanager
    async def _request(
        self, url: str, params: Mapping[str, str], headers: Mapping[str, str]
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        address = URL(url, encoded=True).with_query({**params, **self._sign()})
        # Not followed elsewhere: headers and query say who asks, and are meant for this server alone.
        async with self._session()[0].get(address, headers=headers, allow_redirects=False) as response:
            status = response.status
            if status in PASSING:
                raise _Fault(f"it answers {status}", retry_after(response.headers.get("Retry-After")))
            if 300 <= status < 400:
                place = _place(response.headers.get("Location", ""))
                raise Refused(f"{url} sends one on to {place}: give the address of that place", status)
            if status not in (200, 206):
                raise Refused(f"{url} answers {status}", status, await _text(response))
            yield response

    def _session(self) -> tuple[aiohttp.ClientSession, asyncio.Semaphore]:
        loop = asyncio.get_running_loop()
        if loop not in self._open:
            session = aiohttp.ClientSession(
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(
                    total=self._config.total_timeout_s,
                    sock_connect=self._config.timeout_s,
                    sock_read=self._config.timeout_s,
                ),
                connector=aiohttp.TCPConnector(limit=self._config.concurrency),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            self._open[loop] = session, asyncio.Semaphore(self._config.concurrency)
        return self._open[loop]

    def _words(self, error: Exception) -> str:
        """What went wrong, without the error's own text, which may hold the query."""
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return "no host of this name is found"
        if isinstance(error, aiohttp.ClientConnectorError):
            number = error.os_error.errno
            return f"no connection ({os.strerror(number) if number else 'refused'})"
        if isinstance(error, aiohttp.ServerTimeoutError):
            return f"nothing came for {self._config.timeout_s:g} s"
        if isinstance(error, TimeoutError):
            return f"not finished within {self._config.total_timeout_s:g} s"
        return "the connection broke off"


def _begin(partial: _Partial, response: aiohttp.ClientResponse, n_bytes: int | None) -> None:
    """Take a new answer's length and validator. Raises _Fault if it is not the file that was listed."""
    partial.total = response.content_length
    if n_bytes is None and partial.total is not None:
        _check_size(partial.total)
    elif partial.total not in (None, n_bytes):
        raise _Fault(
            f"it has {partial.total} bytes, not the {n_bytes} that it listed: let the server scan its library"
        )
    etag = response.headers.get("ETag", "")
    if partial.total is not None and response.headers.get("Accept-Ranges", "").lower() != "none":
        weak = etag.startswith("W/")  # RFC 9110: not for If-Range
        header = "Last-Modified" if weak or not etag else "ETag"
        partial.validator = header, response.headers.get(header, "")


async def _check_kind(url: str, response: aiohttp.ClientResponse) -> None:
    kind = response.content_type
    if kind.startswith("text/") or kind.endswith(("json", "xml")):
        body = await _text(response)
        raise Refused(f"{url} answers with {kind} instead of a file", response.status, body)


def _check_end(url: str, response: aiohttp.ClientResponse, n_bytes: int | None) -> None:
    """Refuse a file of which nothing tells whether it broke off."""
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    if n_bytes is None and response.content_length is None and not chunked:
        raise Refused(
            f"{url} comes without its length, so that half of it would pass for the whole: "
            "let the server, or the proxy before it, send Content-Length"
        )


async def _text(response: aiohttp.ClientResponse, limit: int = CHUNK_BYTES) -> bytes:
    """At most `limit` bytes of an answer that is no audio."""
    body = bytearray()
    while len(body) < limit and (more := await response.content.read(limit - len(body))):
        body += more
    return bytes(body)


def _place(location: str) -> str:
    """Where a redirection leads, without its query."""
    try:
        return str(URL(location).with_query(None).with_fragment(None).with_user(None))
    except ValueError:
        return "another address"


def _check_size(n_bytes: int) -> None:
    if n_bytes > MAX_BYTES:
        raise BadAudio(f"the file has more than {MAX_BYTES >> 30} GiB, which is not fetched")


def _content_range(start: int, total: int | None) -> str:
    return f"bytes {start}-{(total or 0) - 1}/{total}"


def retry_after(value: str | None) -> float | None:
    """Seconds that a server asks to be left alone for, at most a minute; None if it does not say."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(MAX_WAIT_S, max(0.0, seconds))


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"
