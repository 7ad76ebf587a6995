"""Jellyfin and Emby against a stub that enforces their rules."""

import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from pydantic import SecretStr

from etude.errors import BadAudio, OutOfReach, UserError
from etude.services.daemon import free_port
from etude.sources import http
from etude.sources.http import HttpConfig
from etude.sources.jellyfin import JellyfinConfig, JellyfinSource
from tests.support.faults import KINDS, faults
from tests.support.fetching import fetch_all, fetch_item
from tests.support.jellyfin_server import (
    ALICE,
    API_KEY,
    RESTRICTED_TOKEN,
    USER_TOKEN,
    JellyfinServer,
    Song,
    jellyfin_stub,
    library_id,
)
from tests.support.serving import answering

REPOSITORY = Path(__file__).resolve().parents[2]
QUICK = HttpConfig(attempts=5, timeout_s=2, total_timeout_s=20)


def songs(n: int, size: int = 3000) -> list[Song]:
    """So many files, each of its own bytes and length."""
    generator = np.random.default_rng(3)
    return [
        Song(
            id=hashlib.md5(str(i).encode()).hexdigest(),
            data=generator.bytes(size + 17 * i),
            title=f"Variation {i}",
            library="Music" if i % 3 else "Other",
        )
        for i in range(n)
    ]


def source(
    url: str, token: str | SecretStr = API_KEY, cache: Path | None = None, **settings: object
) -> JellyfinSource:
    given = {"url": url, "token": token, "http": QUICK} | settings
    return JellyfinSource(JellyfinConfig.model_validate(given), cache)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off as always, only shorter."""
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.02)


@pytest.fixture
def server() -> Iterator[JellyfinServer]:
    with jellyfin_stub(songs(12)) as stub:
        yield stub


@pytest.mark.parametrize("emby", [False, True])
@pytest.mark.parametrize("token", [API_KEY, USER_TOKEN])
def test_a_library_is_listed_and_fetched(emby: bool, token: str) -> None:
    with jellyfin_stub(songs(5), emby=emby) as stub:
        name = "emby" if emby else "jellyfin"
        opened = source(stub.url, token, name=name)
        tracks = list(opened.tracks())
        assert fetch_all(opened, tracks) == [song.data for song in stub.songs]
        assert fetch_item(opened, stub.songs[2].id) == stub.songs[2].data
    first = tracks[0]
    assert first.uri == f"{name}://127.0.0.1:{stub.port}/Items/{stub.songs[0].id}"
    assert first.id.startswith(f"{name}-")
    assert (first.title, first.artist, first.album) == ("Variation 0", "Bach", "Variations")
    assert (first.duration_s, first.n_bytes) == (2.0, len(stub.songs[0].data))
    assert first.tags == {"genre": "Baroque", "date": "1741"}


def test_pages_add_up(monkeypatch: pytest.MonkeyPatch, server: JellyfinServer) -> None:
    monkeypatch.setattr("etude.sources.jellyfin.PAGE_ITEMS", 5)
    assert len({track.id for track in source(server.url).tracks()}) == 12


@pytest.mark.parametrize("total", [0, 5, 7, 5000, -1])
@pytest.mark.parametrize("page", [5, 6, 50])
def test_a_wrong_total_hides_nothing(
    monkeypatch: pytest.MonkeyPatch, server: JellyfinServer, total: int, page: int
) -> None:
    monkeypatch.setattr("etude.sources.jellyfin.PAGE_ITEMS", page)
    server.total = total
    assert len(list(source(server.url).tracks())) == 12


def test_what_a_page_lists_twice_is_one_track(server: JellyfinServer) -> None:
    server.songs[3:3] = [server.songs[2], server.songs[0]]
    assert len(list(source(server.url).tracks())) == 12


@pytest.mark.parametrize("name", ["jellyfin", "emby"])
def test_a_token_with_a_line_end_is_refused_unseen(name: str) -> None:
    with pytest.raises(UserError, match=r"the token of .* holds a line end") as raised:
        source("http://127.0.0.1:1", SecretStr("5ecret\nrest"), name=name)
    assert "5ecret" not in str(raised.value)
    source("http://127.0.0.1:1", SecretStr("5ecret\n"), name=name)  # as from a file


def test_pages_are_asked_for_as_they_are_needed(
    monkeypatch: pytest.MonkeyPatch, server: JellyfinServer
) -> None:
    monkeypatch.setattr("etude.sources.jellyfin.PAGE_ITEMS", 5)
    with faults(server.port, share=0.0) as proxy:
        listing = source(proxy.url, user_id=ALICE).tracks()
        next(listing)
        assert proxy.n_requests == 1
        listing.close()


def test_ids_change_with_the_file_and_the_server_only(server: JellyfinServer) -> None:
    before = [track.id for track in source(server.url).tracks()]
    assert [track.id for track in source(server.url + "/", USER_TOKEN).tracks()] == before
    server.songs[0].data += b"more"
    server.songs[1].title = "Another name"
    after = [track.id for track in source(server.url).tracks()]
    assert after[0] != before[0] and after[1:] == before[1:]


@pytest.mark.parametrize("version", ["12.0.0", "10.8.0"])
@pytest.mark.parametrize("token", [API_KEY, USER_TOKEN])
@pytest.mark.parametrize("library", ["other", library_id("Other")])
def test_one_library(version: str, token: str, library: str) -> None:
    with jellyfin_stub(songs(9), version=version) as stub:
        titles = [track.title for track in source(stub.url, token, library=library).tracks()]
    assert titles == ["Variation 0", "Variation 3", "Variation 6"]


def test_no_such_library(server: JellyfinServer) -> None:
    with pytest.raises(UserError, match="has no library 'Films', but Music, Other"):
        list(source(server.url, library="Films").tracks())


@pytest.mark.parametrize("header", ["X-Emby-Token", "X-MediaBrowser-Token"])
def test_the_stub_refuses_the_legacy_forms(server: JellyfinServer, header: str) -> None:
    opened = source(server.url)
    opened._http._headers = {header: API_KEY}
    with pytest.raises(UserError, match="refuses the token"):
        list(opened.tracks())
    opened = source(server.url)
    opened._http._sign = lambda: {"api_key": API_KEY}
    with pytest.raises(UserError, match="refuses the token"):
        list(opened.tracks())


def test_a_user_name_is_no_id(server: JellyfinServer) -> None:
    with pytest.raises(UserError, match="'alice' is no id but perhaps a name"):
        list(source(server.url, user_id="alice").tracks())
    with pytest.raises(UserError):
        list(source(server.url, user_id="f" * 32).tracks())
    dashed = "-".join([ALICE[:8], ALICE[8:12], ALICE[12:16], ALICE[16:20], ALICE[20:]]).upper()
    assert len(list(source(server.url, user_id=dashed).tracks())) == 12


def test_what_goes_wrong_at_the_start_is_one_sentence(server: JellyfinServer) -> None:
    few = QUICK.model_copy(update={"attempts": 2})
    wrong = {
        "refuses the token": source(server.url, "wrong"),
        r"out of reach: .*no connection": source(f"http://127.0.0.1:{free_port()}", http=few),
        "has nothing there": source(server.url + "/nowhere", http=few),
    }
    for sentence, opened in wrong.items():
        with pytest.raises(UserError, match=sentence) as raised:
            list(opened.tracks())
        assert "\n" not in str(raised.value)


def test_a_log_in_page_is_no_jellyfin() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="<html>log in</html>", content_type="text/html")

    async def other(request: web.Request) -> web.Response:
        return web.json_response(["something else"])

    with answering(answer) as url, pytest.raises(UserError, match="any log-in page before it"):
        list(source(url).tracks())
    with answering(other) as url, pytest.raises(UserError, match="does not answer as Jellyfin does"):
        list(source(url, user_id=ALICE).tracks())


def test_an_empty_library_is_said_to_be_empty() -> None:
    with jellyfin_stub([]) as stub, pytest.raises(UserError, match="shows no audio"):
        list(source(stub.url).tracks())


def test_no_right_to_download_and_an_expired_token(server: JellyfinServer) -> None:
    opened = source(server.url, RESTRICTED_TOKEN)
    (track, *_) = opened.tracks()
    with pytest.raises(OutOfReach, match="allow the token's user"):
        fetch_all(opened, [track])
    server.token_refused = True
    with pytest.raises(OutOfReach, match="has expired"):
        fetch_all(opened, [track])
    with pytest.raises(OutOfReach, match="has expired"):
        fetch_item(opened, server.songs[0].id)


def test_a_file_that_is_gone(server: JellyfinServer) -> None:
    opened = source(server.url)
    tracks = list(opened.tracks())
    gone = server.songs.pop(0)
    with pytest.raises(OutOfReach, match="the file is gone"):
        fetch_all(opened, tracks[:1])
    with pytest.raises(OutOfReach, match="has no item"):
        fetch_item(opened, gone.id)


@pytest.mark.parametrize("item_id", ["../../etc/passwd", "..", "", "a/b", "a?b=c", "a%2f..", "é", "a\nb"])
def test_an_id_cannot_leave_its_place(tmp_path: Path, item_id: str) -> None:
    with jellyfin_stub([Song(id=item_id, data=b"data"), Song(id="ab12", data=b"more")]) as stub:
        opened = source(stub.url, cache=tmp_path / "cache")
        tracks = list(opened.tracks())
        odd = tracks[0]
        assert odd.uri.startswith(f"jellyfin://127.0.0.1:{stub.port}/Items/")
        assert odd.uri.count("/") == 4
        assert all(character.isalnum() or character == "-" for character in odd.id)
        with pytest.raises(BadAudio, match="is no item's id"):
            fetch_all(opened, [odd])
        with pytest.raises(BadAudio):
            fetch_item(opened, item_id)
        assert fetch_all(opened, tracks[1:]) == [b"more"]
        assert set(stub.requested) == {"ab12"}


def test_odd_fields_do_not_stop_a_listing() -> None:
    odd = Song(id="ab12", data=b"data", title="\ud800\n", artist="", album="", duration_s=-1, size=0)
    with jellyfin_stub([odd]) as stub:
        (track,) = source(stub.url).tracks()
    assert (track.title, track.duration_s, track.n_bytes) == ("?", None, None)
    assert track.artist == "Someone"


def test_with_one_request_in_twenty_failing_every_track_arrives() -> None:
    with jellyfin_stub(songs(60, size=40_000)) as stub, faults(stub.port, share=0.05, seed=3) as proxy:
        opened = source(proxy.url)
        for _ in range(5):  # three hundred files, so that every kind of fault has its turn
            tracks = list(opened.tracks())
            assert len(tracks) == 60
            assert fetch_all(opened, tracks) == [song.data for song in stub.songs]
        assert fetch_item(opened, stub.songs[7].id) == stub.songs[7].data
    assert set(proxy.counts) == set(KINDS)
    assert 0.03 < proxy.counts.total() / proxy.n_requests < 0.07


def test_with_every_fault_often_every_track_arrives(tmp_path: Path) -> None:
    with jellyfin_stub(songs(60, size=40_000)) as stub, faults(stub.port, share=0.3, seed=5) as proxy:
        opened = source(proxy.url, http=QUICK.model_copy(update={"attempts": 20, "concurrency": 8}))
        tracks = list(opened.tracks())
        assert fetch_all(opened, tracks) == [song.data for song in stub.songs]
        assert stub.ranges  # what was broken off went on where it was
    assert set(proxy.counts) == set(KINDS)


DRIVER = """
import asyncio, sys
from pathlib import Path
from etude.sources.jellyfin import JellyfinConfig, JellyfinSource

async def main():
    source = JellyfinSource(JellyfinConfig(url=sys.argv[1], token=sys.argv[2]), Path(sys.argv[3]))
    tracks = await asyncio.to_thread(lambda: list(source.tracks()))
    slots = asyncio.Semaphore(4)  # as in etude.data.fetch
    async def fetch(track):
        async with slots:
            data = await source.fetch(track)
        print(track.uri.rsplit("/", 1)[1], len(data), flush=True)
    await asyncio.gather(*map(fetch, tracks))
    await source.aclose()

asyncio.run(main())
"""


def test_a_driver_killed_in_the_middle_fetches_nothing_twice(tmp_path: Path) -> None:
    with jellyfin_stub(songs(40, size=60_000), slice_delay_s=0.05) as stub:
        command = [sys.executable, "-c", DRIVER, stub.url, API_KEY, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
            assert first.stdout
            arrived = [first.stdout.readline().split()[0] for _ in range(15)]
            first.kill()
            arrived += [line.split()[0] for line in first.stdout]
        assert 15 <= len(arrived) < 40
        second = subprocess.run(command, capture_output=True, text=True, check=True)
        lines = dict(line.split() for line in second.stdout.splitlines())
        assert lines == {song.id: str(len(song.data)) for song in stub.songs}
        assert all(stub.requested[item] == 1 for item in arrived)
        again = [item for item, times in stub.requested.items() if times > 1]
        assert len(again) <= 4  # only what was under way when the first was killed


def test_no_secret_in_errors_logs_or_files(
    tmp_path: Path, server: JellyfinServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    few = QUICK.model_copy(update={"attempts": 2, "timeout_s": 0.2})
    texts = []
    opened = source(server.url, USER_TOKEN, cache=tmp_path)
    tracks = list(opened.tracks())
    fetch_all(opened, tracks)
    texts += [repr(opened._config), repr(opened), opened.id, repr(tracks)]
    for kind in KINDS:
        with faults(server.port, share=1.0, kinds=[kind]) as proxy:
            broken = source(proxy.url, USER_TOKEN, user_id=ALICE, http=few)
            with pytest.raises(UserError) as raised:
                list(broken.tracks())
            texts.append(repr(raised.value))
            with pytest.raises(OutOfReach) as out_of_reach:
                fetch_all(broken, tracks[:1])
            texts.append(repr(out_of_reach.value))
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    names = " ".join(os.fspath(path) for path in tmp_path.rglob("*"))
    assert USER_TOKEN not in "\n".join(texts) + caplog.text + names
    assert USER_TOKEN.encode() not in files
