"""The page's answers over real HTTP: what a browser relies on, and what it must never be given."""

import asyncio
import http.client
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from etude.errors import BadAudio, OutOfReach, UserError
from etude.inference.originals import Originals, content_type
from etude.inference.search import Searchable, listing
from etude.inference.search_page import search_app, serve
from etude.services.daemon import free_port
from etude.sources.base import Track
from tests.support.serving import serving


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def get(port: int, path: str, method: str = "GET", **headers: str) -> Answer:
    """A request whose path goes out as it is written."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    reply = connection.getresponse()
    answer = Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
    connection.close()
    return answer


@pytest.fixture(scope="module")
def port(library: Searchable) -> Iterator[int]:
    with serving(search_app(library, top=2)) as port:
        yield port


def search(port: int, query: str, **more: str) -> Answer:
    rest = "".join(f"&{name}={value}" for name, value in more.items())
    return get(port, f"/search?q={quote(query)}{rest}")


def test_the_page_is_whole_and_fetches_nothing_from_elsewhere(port: int, library: Searchable) -> None:
    page = get(port, "/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    text = page.body.decode()
    assert library.name in text and "{{" not in text
    assert library.name == "3 tracks of the folder music, heard by train-0"
    assert not re.findall(r"""(?:src|href|action)=["'](?!data:)""", text)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy


def test_a_query_finds_the_track_that_sounds_so(port: int) -> None:
    answer = search(port, "a high tone")
    assert answer.status == 200
    first, second = answer.json["tracks"]
    assert first["title"] == "High tone"
    assert first["score"] > 0.8 > second["score"]
    assert answer.json["known"] is True
    assert [len(search(port, "low", k=k).json["tracks"]) for k in ("1", "3", "100")] == [1, 3, 3]
    assert search(port, "low", k="1").json["tracks"][0]["title"] == "Low <b>tone"
    assert search(port, "qwertz").json["known"] is False


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/search", "the query is empty"),
        ("/search?q=%20", "the query is empty"),
        ("/search?q=" + "a" * 1001, "shorten it to 1000"),
        ("/search?q=" + "low+" * 20, "tokens, the model takes 12"),
        ("/search?q=low&k=0", "from 1 to 100"),
        ("/search?q=low&k=101", "from 1 to 100"),
        ("/search?q=low&k=00050000", "from 1 to 100"),
        ("/search?q=low&k=-1", "from 1 to 100"),
        ("/search?q=low&k=%D9%A3", "from 1 to 100"),
    ],
)
def test_what_a_user_gets_wrong_is_one_sentence(port: int, path: str, said: str) -> None:
    answer = get(port, path)
    assert answer.status == 400
    assert said in answer.json["error"]


@pytest.mark.parametrize("query", ["%ff%fe", "%00", "%ed%a0%80", "%F0%9F%8E%B9"])
def test_no_bytes_break_the_search(port: int, query: str) -> None:
    answer = get(port, f"/search?q={query}")
    assert answer.status in (200, 400)
    assert set(answer.json) in ({"tracks", "known"}, {"error"})


def test_the_original_file_is_played_whole_or_in_part(port: int, library: Searchable, home: Path) -> None:
    track_id = search(port, "high").json["tracks"][0]["id"]
    data = (home / "music" / "High tone.flac").read_bytes()
    path, n = f"/audio/{track_id}", len(data)
    whole = get(port, path)
    assert (whole.status, whole.body) == (200, data)
    assert whole.headers["content-type"] == "audio/flac"
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["x-content-type-options"] == "nosniff"
    head = get(port, path, "HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(n))
    for asked, start, end in [
        ("bytes=0-0", 0, 1), ("bytes=10-99", 10, 100), (f"bytes={n - 5}-", n - 5, n), ("bytes=-7", n - 7, n),
        (f"bytes=5-{10**12}", 5, n), (f"bytes=-{10**12}", 0, n),
    ]:  # fmt: skip
        part = get(port, path, Range=asked)
        assert (part.status, part.body) == (206, data[start:end]), asked
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{n}"
        assert part.headers["content-length"] == str(end - start)
    for asked in (f"bytes={n}-", "bytes=-0", f"bytes={10**15}-{10**16}"):
        beyond = get(port, path, Range=asked)
        assert (beyond.status, beyond.headers["content-range"], beyond.body) == (416, f"bytes */{n}", b"")
    for asked in (
        "bytes=5-2",
        "bytes=-",
        "bytes=a-b",
        "lines=0-1",
        "bytes=0-1,5-6",
        "bytes=" + "9" * 99 + "-",
    ):
        assert get(port, path, Range=asked).status == 200, asked  # not understood, so all of it
    tag = whole.headers["etag"]
    assert get(port, path, Range="bytes=0-0", If_Range=tag).status == 206
    assert get(port, path, Range="bytes=0-0", If_Range='"another"').status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/audio/", "/audio/nothing", "/audio/..", "/audio/../../etc/passwd", "/audio/..%2f..%2fetc%2fpasswd",
        "/audio/%2fetc%2fpasswd", "/audio/High%20tone.flac", "/audio/%00", "/music/High%20tone.flac",
        "/../store/FORMAT", "/search_page.html",
    ],
)  # fmt: skip
def test_nothing_but_tracks_of_the_library_is_given_out(port: int, path: str) -> None:
    answer = get(port, path)
    assert answer.status in (400, 404)
    assert b"root:" not in answer.body


def test_only_known_names_are_answered(library: Searchable) -> None:
    with serving(search_app(library, names=["Music.home"])) as port:
        for host in ("localhost", "127.0.0.1", "[::1]:80", f"LOCALHOST:{port}", f"music.home:{port}"):
            assert get(port, "/", Host=host).status == 200, host
        for host in (
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:80",
            "",
            "evil@@",
            "a b",
        ):
            for path in ("/", "/search?q=low"):
                refused = get(port, path, Host=host)
                assert refused.status in (400, 403), host
                assert b"tracks" not in refused.body
        assert "start it with --names" in get(port, "/", Host="evil.example").json["error"]


class Shaky:
    """A source whose files fail as their ids say, and that counts what it is asked for."""

    id = "shaky"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.closed = False

    def tracks(self) -> Iterator[Track]:
        return iter(())

    async def fetch(self, track: Track) -> bytes:
        self.calls.append(track.id)
        await asyncio.sleep(0.05)
        if track.id == "gone":
            raise OutOfReach("the server has no such item")
        if track.id == "denied":
            raise PermissionError(13, "Permission denied", "/secret/place.flac")
        if track.id == "bad":
            raise BadAudio("it was never music")
        if track.id == "stale":
            raise UserError("list the library again")
        return b"fLaC" + track.id.encode() * 10

    async def aclose(self) -> None:
        self.closed = True


def test_a_file_that_cannot_be_had_is_told_in_a_sentence(library: Searchable) -> None:
    source = Shaky()
    names = ("gone", "denied", "bad", "stale", "fine")
    shaky = replace(library, source=source, index=_Anything(names))  # type: ignore[arg-type]
    with serving(search_app(shaky)) as port:
        said = {name: get(port, f"/audio/{name}") for name in names}
    assert [answer.status for answer in said.values()] == [502, 502, 502, 502, 200]
    assert said["gone"].json == {"error": "this track cannot be had now: the server has no such item"}
    assert said["denied"].json == {"error": "this track cannot be had now: Permission denied"}
    assert said["bad"].json == {"error": "this track cannot be played: it was never music"}
    assert "list the library again" in said["stale"].json["error"]
    assert source.closed


class _Anything:
    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def track(self, track_id: str) -> Track | None:
        return Track(track_id, "", track_id) if track_id in self._names else None


def test_pieces_of_a_file_cost_one_fetch_and_memory_is_bounded() -> None:
    async def run() -> list[str]:
        source = Shaky()
        originals = Originals(source, max_bytes=50)
        a, b, c = (Track(name, "", name) for name in "abc")
        first = await asyncio.gather(*(originals.get(a) for _ in range(5)))
        assert set(first) == {b"fLaC" + b"a" * 10}
        for track in (b, c, a, b, c):  # 42 bytes
            await originals.get(track)
        assert source.calls == ["a", "b", "c"]
        await originals.get(Track("x", "", "x"))  # 56 bytes: the one used longest ago, a, goes
        await originals.get(b)
        assert source.calls == ["a", "b", "c", "x"]
        await originals.get(a)
        with pytest.raises(OutOfReach):
            await originals.get(Track("gone", "", "gone"))
        with pytest.raises(OutOfReach):  # a failure is not kept
            await originals.get(Track("gone", "", "gone"))
        waiting = asyncio.create_task(originals.get(Track("slow", "", "slow")))
        await asyncio.sleep(0)
        await originals.aclose()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return source.calls

    assert asyncio.run(run()) == ["a", "b", "c", "x", "a", "gone", "gone"]


def test_a_file_larger_than_the_memory_is_given_and_not_kept() -> None:
    async def run() -> int:
        source = Shaky()
        originals = Originals(source, max_bytes=5)
        for _ in range(2):
            assert len(await originals.get(Track("a", "", "a"))) == 14
        return len(source.calls)

    assert asyncio.run(run()) == 2


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        (b"fLaC\0", "audio/flac"), (b"OggS", "audio/ogg"), (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90", "audio/mpeg"), (b"\xff\xf1\x50", "audio/aac"), (b"RIFF\0\0\0\0WAVE", "audio/wav"),
        (b"\0\0\0 ftypM4A ", "audio/mp4"), (b"FORM\0\0\0\0AIFF", "audio/aiff"),
        (b"\x1aE\xdf\xa3", "audio/webm"), (b"<html>", "application/octet-stream"),
        (b"", "application/octet-stream"), (b"\xff", "application/octet-stream"),
    ],
)  # fmt: skip
def test_the_type_of_a_file_is_told_by_its_beginning(beginning: bytes, name: str) -> None:
    assert content_type(beginning) == name


def test_a_taken_port_is_told_in_a_sentence(library: Searchable, port: int) -> None:
    with pytest.raises(UserError, match=rf"cannot listen on 127.0.0.1, port {port} .*choose another --port"):
        serve(search_app(library), "127.0.0.1", port, lambda address: None)
    with pytest.raises(UserError, match=r"cannot listen on 192\.0\.2\.1"):  # not this machine's
        serve(search_app(library), "192.0.2.1", free_port(), lambda address: None)


def test_a_listing_moves_no_cursor(library: Searchable) -> None:
    shown = listing([(Track("a", "", "Bad\x1b[2J\ntitle", "A\u202eB"), 0.5), (Track("b", "", "Fine"), -0.25)])
    assert shown == "  1  0.500  Bad [2J title (A B)\n  2 -0.250  Fine (unknown)"
